"""Whether a try-on dataset can train, in figures a person understands; and how training will see it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scd.data.check import WORTH_A_WORD, Report, counted, spread
from scd.data.fitting import read_fitting, read_pose, read_region
from scd.data.pairs import TryOnLayout, TryOnPair
from scd.data.tryon_pictures import can_train, frame_of
from scd.data.tryon_prepare import survey_pairs
from scd.media import contact_sheet
from scd.pose.draw import overlay_pose
from scd.pose.skeleton import empty_pose
from scd.region import tinted
from scd.types import UserError

log = logging.getLogger("scd")

LOOKED_INTO = 20  # masks: a dataset inverts all or none
INVERTED = 0.75  # white in so much of most masks: no garment is so large
NAMED = 5  # people in a line


def check_pairs(
    layout: TryOnLayout, size: int, advance: Callable[[], None] | None = None, workers: int = 1
) -> Report:
    """What the dataset holds, and how much of it trains at buckets of `size`. Every picture, mask and pose is
    read, but those that a manifest knows already; `advance` is called a picture (tryon_prepare.num_pictures).
    """
    layout = survey_pairs(layout, advance, workers)
    listed = [path for pair in layout.pairs for path in (pair.person, pair.garment)]
    missing = sum(not path.exists() for path in set(listed))
    broken = {pair.error: None for pair in layout.pairs if pair.error}
    # One pair of each person, of training if it can be
    people = sorted({pair.person: pair for pair in reversed(layout.pairs)}.items())
    good = [pair for _, pair in people if pair.size[0] and not pair.error]
    training = [pair for pair in layout.training if can_train(pair)]
    masks, poses = [p for p in good if p.region is None], [p for p in good if p.pose is None]
    spoilt: list[str] = []
    good = [pair for pair in good if _guides_are_read(pair, spoilt)]
    nobody = [p for p in good if p.pose is not None and not read_pose(p, p.size).scores.any()]
    copies = _copies(layout)
    small = [p for p in good if WORTH_A_WORD**2 * p.size[0] * p.size[1] < size**2]
    problems = [*layout.problems, *broken, *spoilt, *copies]
    problems += _some(masks, good, "have no agnostic mask, the region is made from the pose")
    problems += _some(poses, good, "have no pose file, training sees no pose")
    problems += _some(nobody, good, "have a pose file without a person")
    problems += _some(small, good, f"are small, enlarged {WORTH_A_WORD} times and more for buckets of {size}")
    problems += _inverted(good)
    sizes = {pair.garment: pair.garment_size for pair in layout.pairs if pair.garment_size[0]}
    figures: dict[str, Any] = {
        "layout": layout.kind, "training_pairs": len(training), "test_paired": len(layout.paired),
        "test_unpaired": len(layout.unpaired),
        "with_truth": sum(pair.truth is not None for pair in layout.unpaired),
        "categories": counted(pair.category for pair in layout.pairs),
        "missing": len(layout.problems) + missing, "unusable": len(people) - len(good),
        "copies": len(copies), "small": len(small),
        "sizes": counted(_shown(pair.size) for pair in good),
        "garment_sizes": counted(map(_shown, sizes.values())),
        "without_mask": len(masks), "without_pose": len(poses), "without_person": len(nobody),
        "buckets": counted(_shown(frame_of(pair, size)) for pair in training),
    }  # fmt: skip
    verdict = ""
    if not training:
        verdict = (
            "no pair to train with has its pictures, and a mask or a pose (which scd data prepare "
            f"{layout.listed_in or layout.root} finds)"
        )
        if not layout.training:
            verdict = "it has no pairs to train with; those of its test part can be evaluated"
    return Report(figures, problems, verdict)


def preview_pairs(layout: TryOnLayout, size: int, num: int) -> NDArray[np.uint8]:
    """A sheet of up to `num` pairs: garment, person, region, pose, as training reads them; one that cannot be
    read is a line in the log. Raises UserError when there are none."""
    pairs = [pair for pair in layout.pairs if not pair.error]
    if not pairs:
        raise UserError(f"{layout.root}: holds no pair whose pictures are there; run scd data check")
    rows, names = [], []
    for pair in (pairs[number] for number in spread(num, len(pairs))):
        try:
            fitting = read_fitting(pair, frame_of(pair, size))
        except UserError as error:
            log.warning("left out: %s", error)
            continue
        person = fitting.person
        rows.append(
            [fitting.garment, person, tinted(person, fitting.region), overlay_pose(person, fitting.pose)]
        )
        kind = "paired" if pair.paired else "another garment"
        names.append(f"{pair.name}, {pair.category}, {kind}, {_shown(person.shape[:2])}")
    if not rows:
        raise UserError(f"{layout.root}: no pair can be shown; scd data prepare finds poses and masks")
    return contact_sheet(rows, ["garment", "person", "painted", "pose"], names)


def _copies(layout: TryOnLayout) -> list[str]:
    """A line for every person's picture with the content of one before, of the same category: another piece
    of what one person wears is another pair; or in the other part."""
    first: dict[str, TryOnPair] = {}
    lines, test = [], {pair.person for pair in (*layout.paired, *layout.unpaired)}
    for pair in layout.pairs:
        before = first.setdefault(pair.content[0], pair) if pair.content and pair.content[0] else pair
        path, other = pair.person, before.person
        leak = (other in test) != (path in test)
        if other != path and (leak or before.category == pair.category):
            why = ", and one of the two is to test with: training would see it" if leak else ""
            lines.append(f"{_called(path, layout)}: shows the same as {_called(other, layout)}{why}")
    return list(dict.fromkeys(lines))


def _guides_are_read(pair: TryOnPair, spoilt: list[str]) -> bool:
    """Whether the pose can be read still; else a line more in `spoilt`."""
    try:
        read_pose(pair, pair.size)
    except UserError as error:
        spoilt.append(str(error))
        return False
    return True


def _called(path: Path, layout: TryOnLayout) -> str:
    return str(path).removeprefix(f"{layout.root}{os.sep}")


def _some(lacking: Sequence[TryOnPair], everybody: Sequence[TryOnPair], what: str) -> list[str]:
    if not lacking:
        return []
    names = ", ".join(pair.name for pair in lacking[:NAMED]) + (" ..." if len(lacking) > NAMED else "")
    return [f"{len(lacking)} of {len(everybody)} people {what}: {names}"]


def _inverted(pairs: Sequence[TryOnPair]) -> list[str]:
    """A line when most masks are white nearly everywhere, and for each that cannot be read."""
    masked = [pair for pair in pairs if pair.region is not None]
    if not masked:
        return []
    some = [masked[i] for i in spread(LOOKED_INTO, len(masked))]
    shares, lines = [], []
    for pair in some:
        try:
            shares.append(float(read_region(pair, empty_pose(pair.size), pair.size).mean()))
        except UserError as error:  # it was right when the manifest was written
            lines.append(str(error))
    if shares and float(np.median(shares)) > INVERTED:
        share = f"{np.median(shares):.0%}"
        lines.append(f"masks are white in {share} of the picture: are they inverted? white = generate")
    return lines


def _shown(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"
