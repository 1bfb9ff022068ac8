"""Whether a try-on dataset can train, in figures a person understands; and how training will see it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scd.data.buckets import nearest_bucket
from scd.data.check import Report
from scd.data.fitting import picture_size, read_fitting, read_pose, read_region
from scd.data.tryon import TryOnLayout, TryOnPair
from scd.data.tryon_pictures import can_train, frame_of
from scd.media import contact_sheet
from scd.pose.draw import overlay_pose
from scd.types import UserError

LOOKED_INTO = 20  # masks: a dataset inverts all or none
INVERTED = 0.75  # white in so much of most masks: no garment is so large
TINT = np.array([230, 60, 60], np.float32)  # of the region in a preview, RGB
NAMED = 5  # people in a line


def check_pairs(layout: TryOnLayout, size: int, advance: Callable[[], None] | None = None) -> Report:
    """What the dataset holds, and how much of it trains at buckets of `size`; `advance` is called a person.
    Every picture's head and every pose is read; of the masks the heads, and a few whole."""
    people = {pair.person: pair for pair in reversed(layout.pairs)}  # one pair each, of training if it can be
    problems, broken = list(layout.problems), set()
    sizes: dict[Path, tuple[int, int]] = {}
    for path, pair in sorted(people.items()):
        try:
            sizes[path] = _look_into(pair)
        except UserError as error:
            broken.add(path)
            problems.append(_named(error, layout.root))
        if advance is not None:
            advance()
    garments = _garment_sizes({pair.garment for pair in layout.pairs}, layout.root, problems)
    good = [pair for path, pair in sorted(people.items()) if path not in broken]
    training = [
        pair for pair in layout.training
        if can_train(pair) and pair.person not in broken and pair.garment in garments
    ]  # fmt: skip
    masks, poses = [p for p in good if p.region is None], [p for p in good if p.pose is None]
    problems += _without(masks, good, "agnostic mask", "the region is made from the pose")
    problems += _without(poses, good, "pose file", "training sees no pose")
    problems += _inverted(good, layout.root)
    figures: dict[str, Any] = {
        "layout": layout.kind, "training_pairs": len(training), "test_paired": len(layout.paired),
        "test_unpaired": len(layout.unpaired),
        "with_truth": sum(pair.truth is not None for pair in layout.unpaired),
        "categories": _counted(pair.category for pair in layout.pairs),
        "missing": len(layout.problems), "unusable": len(people) - len(sizes),
        "sizes": _counted(f"{width}x{height}" for height, width in sizes.values()),
        "garment_sizes": _counted(f"{width}x{height}" for height, width in garments.values()),
        "without_mask": len(masks), "without_pose": len(poses),
        "buckets": _counted(_shown(nearest_bucket(*sizes[pair.person], size)) for pair in training),
    }  # fmt: skip
    verdict = ""
    if not training:
        verdict = "no pair to train with has its pictures, and a mask or a pose"
        if not layout.training:
            verdict = "it has no pairs to train with; those of its test part can be evaluated"
    return Report(figures, problems, verdict)


def preview_pairs(layout: TryOnLayout, size: int, num: int) -> NDArray[np.uint8]:
    """A sheet of up to `num` pairs: garment, person, region, pose, as training reads them. Raises UserError
    when there are none, or one cannot be read."""
    pairs = layout.pairs
    if not pairs:
        raise UserError(f"{layout.root}: holds no pair whose pictures are there; run scd data check")
    rows, names = [], []
    for number in np.unique(np.linspace(0, len(pairs) - 1, num).round().astype(int)).tolist():
        pair = pairs[number]
        fitting = read_fitting(pair, frame_of(pair, size))
        region = fitting.region[..., None]
        tinted = np.where(region, 0.5 * fitting.person + 0.5 * TINT, fitting.person).astype(np.uint8)
        rows.append([fitting.garment, fitting.person, tinted, overlay_pose(fitting.person, fitting.pose)])
        kind = "paired" if pair.paired else "another garment"
        names.append(f"{pair.name}, {pair.category}, {kind}, {_shown(fitting.person.shape[:2])}")
    return contact_sheet(rows, ["garment", "person", "painted", "pose"], names)


def _look_into(pair: TryOnPair) -> tuple[int, int]:
    """(height, width) of the person's picture, after its mask's shape and its pose. Raises UserError."""
    size = picture_size(pair.person)
    pose = read_pose(pair, size)
    if pair.region is None and pair.pose is not None:
        read_region(pair, pose, size)
    elif pair.region is not None:
        (height, width), (wanted, across) = picture_size(pair.region), size
        if abs(height / width * across / wanted - 1) > 0.02:
            read_region(pair, pose, size)  # says what is wrong
    return size


def _garment_sizes(paths: Iterable[Path], root: Path, problems: list[str]) -> dict[Path, tuple[int, int]]:
    sizes = {}
    for path in sorted(paths):
        try:
            sizes[path] = picture_size(path)
        except UserError as error:
            problems.append(_named(error, root))
    return sizes


def _without(lacking: Sequence[TryOnPair], everybody: Sequence[TryOnPair], what: str, so: str) -> list[str]:
    if not lacking:
        return []
    names = ", ".join(pair.name for pair in lacking[:NAMED]) + (" ..." if len(lacking) > NAMED else "")
    return [f"{len(lacking)} of {len(everybody)} people have no {what}, {so}: {names}"]


def _inverted(pairs: Sequence[TryOnPair], root: Path) -> list[str]:
    """A line when most masks are white nearly everywhere."""
    masked = [pair for pair in pairs if pair.region is not None]
    some = [masked[i] for i in np.unique(np.linspace(0, len(masked) - 1, LOOKED_INTO).round().astype(int))]
    shares, lines = [], []
    for pair in some if masked else []:
        try:
            size = picture_size(pair.person)
            shares.append(float(read_region(pair, read_pose(pair, size), size).mean()))
        except UserError as error:
            lines.append(_named(error, root))
    if shares and float(np.median(shares)) > INVERTED:
        lines.append(
            f"masks are white in {np.median(shares):.0%} of the picture: are they inverted? white = generate"
        )
    return lines


def _named(error: UserError, root: Path) -> str:
    """An error's text with names from the dataset's folder on."""
    return str(error).replace(f"{root}{os.sep}", "")


def _shown(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())
