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
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from scd.data.fitting import Fitting, read_fitting
from scd.data.tryon import TryOnLayout, TryOnPair
from scd.media import place, read_image, write_image
from scd.media.files import PICTURES
from scd.media.placement import border_colour
from scd.metrics.image import absolute_error, colour_error, psnr, ssim
from scd.types import UserError
from scd.world import LABELS

log = logging.getLogger("scd")

SSIM = "torchmetrics, RGB, data range 1, Gaussian window 11"
NAMED = 3  # files in an error

Picture = NDArray[np.uint8]  # (H, W, 3)
Mask = NDArray[np.bool_]  # (H, W)


class Distribution(Protocol):
    """FID and KID, or their like: pictures go in one by one, numbers come out."""

    def add(self, picture: Picture, real: bool) -> None: ...

    def numbers(self) -> dict[str, float | None]: ...


@dataclass(frozen=True)
class Subject:
    """A pair, read: everything in the frame."""

    pair: TryOnPair
    fitting: Fitting
    truth: Picture | None  # the person in that garment; None for an unpaired pair of photographs
    worn: Mask | None  # the garment's pixels in the truth, where the world tells them

    @property
    def part(self) -> tuple[slice, slice]:
        """The frame without its padding."""
        left, top, right, bottom = self.fitting.placement.target
        return slice(top, bottom), slice(left, right)


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
    return [line for line in layout.problems if "test" in line.split(":")[0]]


def names_of(pairs: Sequence[TryOnPair]) -> dict[TryOnPair, str]:
    """What each pair's picture is called, without its ending: the person; with the garment, where a person
    has several."""
    times = Counter(pair.name for pair in pairs)
    return {p: p.name if times[p.name] == 1 else f"{p.name}_{p.garment.stem}" for p in pairs}


def match_predictions(
    folder: Path, pairs: Sequence[TryOnPair], everybody: Sequence[TryOnPair]
) -> dict[TryOnPair, Path]:
    """The picture of each pair in a folder, by its name: the person's, or PERSON_GARMENT.

    Raises UserError when one lacks, or when one belongs to none of `everybody`: numbers over other sets are
    other numbers.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; --predictions names one with a picture a pair")
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES and p.is_file()):
        if path.stem in found:
            raise UserError(f"{folder}: holds {found[path.stem].name} and {path.name}: which of the two?")
        found[path.stem] = path
    known = {name for pair in everybody for name in _possible(pair)}
    strange = [path.name for stem, path in found.items() if stem not in known]
    matched = {pair: next((found[n] for n in _possible(pair) if n in found), None) for pair in pairs}
    lacking = [pair.name for pair, path in matched.items() if path is None]
    if lacking or strange:
        said = [f"{len(lacking)} of {len(pairs)} have no prediction ({_some(lacking)})"] if lacking else []
        said += [f"{len(strange)} pictures belong to no pair ({_some(strange)})"] if strange else []
        raise UserError(
            f"{folder}: is not the test set: {' and '.join(said)}; numbers of another set cannot be compared"
        )
    return {pair: path for pair, path in matched.items() if path is not None}


def _possible(pair: TryOnPair) -> tuple[str, str]:
    return f"{pair.person.stem}_{pair.garment.stem}", pair.person.stem


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
        if not np.isfinite(pictures).all():
            raise UserError("the model painted what is no number: use --dtype float32 or bfloat16")
        for (_, subject), picture in zip(read, pictures, strict=True):
            yield subject, np.rint(picture * 255).astype(np.uint8)


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
            truth = fitting.placement.apply(picture, border_colour(picture))
        if pair.labels is not None:
            there = read_image(pair.labels)[..., 0] == LABELS.index(pair.category)
            worn = fitting.placement.apply(np.where(there, np.uint8(255), np.uint8(0)), 0) > 127
    except UserError as error:
        log.warning("left out: %s", error)
        return None
    return Subject(pair, fitting, truth, worn)


# ---- numbers ----


def measure(
    subject: Subject, painted: Picture, lpips: Callable[[Picture, Picture], float] | None = None
) -> dict[str, float]:
    """Everything that is known of one picture; without a truth only what changed outside the region."""
    part = subject.part
    picture, region = painted[part], subject.fitting.region[part]
    outside = np.abs(picture.astype(int) - subject.fitting.person[part])[~region]
    row = {"outside_max_difference": float(outside.max(initial=0))}
    if subject.truth is None:
        return row
    truth = subject.truth[part]
    row |= {
        "psnr": psnr(picture, truth), "ssim": ssim(picture, truth), "l1": absolute_error(picture, truth),
        "region_psnr": psnr(picture, truth, region), "region_ssim": ssim(picture, truth, region),
    }  # fmt: skip
    if lpips is not None:
        row["lpips"] = lpips(picture, truth)
    worn = None if subject.worn is None else subject.worn[part] & region
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
        pair, picture = subject.pair, painted[subject.part]
        rows.append(measure(subject, painted, lpips))
        if out is not None:
            write_image(out / f"{names[pair]}.png", picture, force=force)
        if distribution is not None:
            distribution.add(picture, real=False)
            if pair.person not in people:
                people.add(pair.person)
                distribution.add(subject.fitting.person[subject.part], real=True)
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
