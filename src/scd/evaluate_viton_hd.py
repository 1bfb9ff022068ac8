"""Try-on datasets measured as the field does it: VITON-HD at 512 x 384, paired or unpaired; against the exact
truth where the world wrote the dataset.

Pictures are painted here, or were by another program. What each number means: docs/evaluation.md.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scd.data.fitting import Fitting, read_fitting
from scd.data.pairs import TryOnLayout, TryOnPair
from scd.encoders import require_finite, to_bytes
from scd.media import place, read_image, write_image
from scd.media.files import PICTURES
from scd.media.placement import border_colour
from scd.metrics.distribution import Distribution
from scd.metrics.image import absolute_error, colour_error, psnr, ssim
from scd.region import white
from scd.types import Mask, Picture, UserError
from scd.world import LABELS

log = logging.getLogger("scd")

NAMED = 3  # files in an error


@dataclass(frozen=True)
class Subject:
    """A pair, read: everything in the frame."""

    pair: TryOnPair
    fitting: Fitting
    truth: Picture | None  # the person in that garment; None for an unpaired pair of photographs
    worn: Mask | None  # the garment's pixels in the truth, where the world tells them


Painted = Iterator[tuple[Subject, Picture]]  # with the picture that is judged, in the frame too


# ---- which pairs ----


def choose_pairs(
    layout: TryOnLayout, paired: bool, categories: Sequence[str] = (), limit: int | None = None
) -> list[TryOnPair]:
    """The test pairs that are asked for. Raises UserError when there are none."""
    pairs = layout.paired if paired else layout.unpaired
    chosen = [pair for pair in pairs if not categories or pair.category in categories][:limit]
    if not chosen:
        what = " ".join([*categories, "paired" if paired else "unpaired", "test pairs"])
        raise UserError(f"{layout.root}: has no {what}; scd data check {layout.root} says what it has")
    return chosen


def missing_pictures(layout: TryOnLayout) -> list[str]:
    """The lines of the layout's problems that concern its test part."""
    return list(filter(layout.is_of_test, layout.problems))


def names_of(pairs: Sequence[TryOnPair]) -> dict[TryOnPair, str]:
    """What each pair's picture is called, without its ending: the person; with the garment, where a person
    has several. Raises UserError when two would have one name."""
    times = Counter(pair.name for pair in pairs)
    names = {p: p.name if times[p.name] == 1 else f"{p.name}_{p.garment.stem}" for p in pairs}
    for name, number in Counter(names.values()).items():
        if number > 1:
            raise UserError(f"{number} pairs are called {name}: give them other names in the manifest")
    return names


def match_predictions(
    folder: Path, pairs: Sequence[TryOnPair], everybody: Sequence[TryOnPair]
) -> dict[TryOnPair, Path]:
    """The picture of each pair in a folder, by its name: the person's, or PERSON_GARMENT; of DressCode with
    the category's folder before it, as `names_of` has it, or wherever only one pair has that name.

    Raises UserError when one lacks, when two could be meant, and when one belongs to none of `everybody`:
    numbers over other sets are other numbers.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; --predictions names one with a picture a pair")
    found: dict[str, Path] = {}
    there = (p for p in folder.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
    for path in sorted(p for p in there if not p.name.startswith(".")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise UserError(f"{folder}: holds {found[name].name} and {path.name}: which of the two?")
        found[name] = path
    by_stem: dict[str, list[Path]] = {}
    for path in found.values():
        by_stem.setdefault(path.stem, []).append(path)

    def files_of(pair: TryOnPair) -> list[Path]:
        whole = [found[name] for name in _possible(pair.name, pair) if name in found]
        return whole[:1] or next((by_stem[n] for n in _possible(pair.person.stem, pair) if n in by_stem), [])

    known = {path for pair in everybody for path in files_of(pair)}
    strange = [path.name for path in found.values() if path not in known]
    matched: dict[TryOnPair, Path] = {}
    of_file: dict[Path, TryOnPair] = {}
    for pair in pairs:
        files = files_of(pair)
        if len(files) > 1:
            raise UserError(f"{folder}: holds {files[0].name} and {files[1].name}: which of the two?")
        for path in files:
            if (other := of_file.setdefault(path, pair)) is not pair:
                raise UserError(
                    f"{path}: is it {other.name} with {other.garment.stem}, or {pair.name} with "
                    f"{pair.garment.stem}? name the pictures as scd evaluate --out does"
                )
            matched[pair] = path
    lacking = [pair.name for pair in pairs if pair not in matched]
    if lacking or strange:
        said = [f"{len(lacking)} of {len(pairs)} have no prediction ({_some(lacking)})"] if lacking else []
        said += [f"{len(strange)} pictures belong to no pair ({_some(strange)})"] if strange else []
        raise UserError(
            f"{folder}: is not the test set: {' and '.join(said)}; numbers of another set cannot be compared"
        )
    return matched


def _possible(name: str, pair: TryOnPair) -> tuple[str, str]:
    return f"{name}_{pair.garment.stem}", name


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (" ..." if len(names) > NAMED else "")


# ---- their pictures ----


def paint_pairs(
    pipe: Any, pairs: Sequence[TryOnPair], size: tuple[int, int], paste_back: bool = True, seed: int = 0,
    batch: int = 4,
) -> Painted:  # fmt: skip
    """Each pair that can be read, painted in a frame of `size`; the noise of pair i depends on the seed and i
    only. A pair that cannot be read is a line in the log."""
    for start in range(0, len(pairs), batch):
        numbers = range(start, min(start + batch, len(pairs)))
        read = [(i, subject) for i in numbers if (subject := _read(pairs[i], size))]
        if not read:
            continue
        fittings = [subject.fitting for _, subject in read]
        output = pipe(
            [pipe.encode_reference(fitting.garment) for fitting in fittings],
            [fitting.pose for fitting in fittings],
            person=[fitting.person for fitting in fittings], region=[fitting.region for fitting in fittings],
            generator=[torch.Generator().manual_seed(seed + i) for i, _ in read],
            output_type="np" if paste_back else "latent",
        ).images  # fmt: skip
        with torch.no_grad():
            pictures = output if paste_back else pipe.decode_output(output, False, "np")
        require_finite(pictures, "what the model painted", pipe.unet.dtype)
        for (_, subject), picture in zip(read, pictures, strict=True):
            yield subject, to_bytes(picture)


def read_predictions(paths: Mapping[TryOnPair, Path], size: tuple[int, int]) -> Painted:
    """Each pair that can be read, with another program's picture in the frame as the person lies in it.
    Raises UserError for one of another shape."""
    for pair, path in paths.items():
        if (subject := _read(pair, size)) is None:
            continue
        picture = read_image(path)
        shape, placement = (picture.shape[0], picture.shape[1]), subject.fitting.placement
        lies = place(shape, size)
        if any(abs(a - b) > 1 for a, b in zip(lies.target, placement.target, strict=True)):
            height, width = placement.source_size
            raise UserError(
                f"{path}: is {shape[1]}x{shape[0]}, the person {width}x{height}: a prediction shows the "
                "whole picture, in any size"
            )
        yield subject, lies.apply(picture, border_colour(picture))


def _read(pair: TryOnPair, size: tuple[int, int]) -> Subject | None:
    try:
        fitting = read_fitting(pair, size)
        truth, worn = fitting.person if pair.paired else None, None
        if pair.truth is not None and not pair.paired:
            picture = read_image(pair.truth)
            if picture.shape[:2] != fitting.placement.source_size:
                raise UserError(f"{pair.truth}: is not of the size of {pair.person}, whose truth it is")
            truth = fitting.placement.apply(picture, border_colour(picture))
        if pair.labels is not None:
            there = read_image(pair.labels)[..., 0] == LABELS.index(pair.category)
            worn = fitting.placement.apply(white(there), 0) > 127
    except UserError as error:
        log.warning("left out: %s", error)
        return None
    return Subject(pair, fitting, truth, worn)


# ---- numbers ----


def measure(
    subject: Subject, painted: Picture, lpips: Callable[[Picture, Picture], float] | None = None
) -> dict[str, float]:
    """Everything that is known of one picture; without a truth only what changed outside the region."""
    shown = subject.fitting.placement.shown
    picture, region = shown(painted), shown(subject.fitting.region)
    outside = np.abs(picture.astype(int) - shown(subject.fitting.person))[~region]
    row = {"outside_max_difference": float(outside.max(initial=0))}
    if subject.truth is None:
        return row
    truth = shown(subject.truth)
    row |= {
        "psnr": psnr(picture, truth), "ssim": ssim(picture, truth), "l1": absolute_error(picture, truth),
        "region_psnr": psnr(picture, truth, region), "region_ssim": ssim(picture, truth, region),
    }  # fmt: skip
    if lpips is not None:
        row["lpips"] = lpips(picture, truth)
    worn = None if subject.worn is None else shown(subject.worn) & region
    if worn is not None and worn.any():
        row["garment_psnr"] = psnr(picture, truth, worn)
        row["color_error"] = colour_error(picture, truth, worn)
    return row


MEANS = (
    "psnr", "ssim", "l1", "lpips", "region_psnr", "region_ssim", "garment_psnr", "color_error",
)  # fmt: skip


def evaluate_pairs(
    paintings: Painted, names: Mapping[TryOnPair, str], out: Path | None = None, force: bool = False,
    lpips: Callable[[Picture, Picture], float] | None = None, distribution: Distribution | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The means over all pairs of `names` that could be read, None where there is no truth or no measure; the
    pictures go to `out`, without padding. Raises UserError when no pair could be read."""
    rows: list[dict[str, float]] = []
    people: set[Path] = set()
    for subject, painted in paintings:
        pair, shown = subject.pair, subject.fitting.placement.shown
        picture = shown(painted)
        rows.append(measure(subject, painted, lpips))
        if out is not None:
            write_image(out / f"{names[pair]}.png", picture, force=force)
        if distribution is not None:
            distribution.add(picture, real=False)
            if pair.person not in people:
                people.add(pair.person)
                distribution.add(shown(subject.fitting.person), real=True)
        if progress is not None:
            progress(1)
    if not rows:
        raise UserError(f"none of {len(names)} pairs could be read; the lines above say why")
    return {
        **{name: _mean([row[name] for row in rows if name in row]) for name in MEANS},
        "outside_max_difference": int(max(row["outside_max_difference"] for row in rows)),
        **(dict.fromkeys(("fid", "kid")) if distribution is None else distribution.numbers()),
        "num_pairs": len(rows), "num_with_truth": sum("psnr" in row for row in rows),
        "num_broken": len(names) - len(rows),
    }  # fmt: skip


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
