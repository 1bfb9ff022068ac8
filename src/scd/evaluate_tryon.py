"""Evaluation of try-on on held-out truth: the world draws the same person, in the same pose, in the new
garment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scd import world
from scd.data.augment import as_detected
from scd.data.world import FIRST_HELD_OUT_SEED
from scd.data.world_tryon import facing, other_garment, world_region
from scd.evaluate import in_batches
from scd.media import contact_sheet, write_image
from scd.metrics.image import colour_error, psnr
from scd.region import tinted
from scd.types import Pose
from scd.world import Garment, View, flat_garment

LEAST_SHOWN = 0.01  # of the picture: a garment that shows less (trousers, cut at the hips) is no case

Picture = NDArray[np.uint8]  # (H, W, 3)
Mask = NDArray[np.bool_]  # (H, W)


@dataclass(frozen=True)
class Trial:
    """A person, what to put on, where, and what comes out if all goes well."""

    person: Picture
    pose: Pose  # as a detector would give it
    region: Mask  # True = generate; from the pose, as at inference
    garments: tuple[Picture, ...]  # laid flat; their size is the person's
    truth: Picture
    mask: Mask  # the truth's pixels of those garments, inside the region


@dataclass(frozen=True)
class HeldOut:
    """One held-out scene: its person, and another garment in place of one that is worn."""

    worn: View
    truth: View  # the same person, place and pose, in `garment`
    own: Garment
    garment: Garment
    trial: Trial


def held_out_scenes(num: int, size: int) -> Iterator[HeldOut]:
    """The first `num` held-out scenes, at (size, size): each person as seen first from the front, and another
    garment of a kind that is worn, tops and lowers by turns. One at a time: a view takes much memory."""
    seed, found = FIRST_HELD_OUT_SEED, 0
    while found < num:
        scene = world.Scene.from_seed(seed)
        view = scene.view(facing(scene, 1)[0], size)
        pieces = view.outfit.garments
        for own in (pieces[seed % len(pieces)], *pieces):
            garment = other_garment(seed, own)
            trial = trial_of(view, (garment,))
            if trial.mask.mean() >= LEAST_SHOWN:
                yield HeldOut(view, view.dressed(garment), own, garment, trial)
                found += 1
                break
        seed += 1


def trial_of(view: View, garments: Sequence[Garment], kinds: Sequence[str] | None = None) -> Trial:
    """The person of a view puts on garments of other kinds each; the region is that of `kinds`, by default
    theirs."""
    dressed = view
    for garment in garments:
        dressed = dressed.dressed(garment)
    region = world_region(view, kinds or [garment.kind for garment in garments])
    shown = np.any([dressed.region(garment.kind) for garment in garments], 0)
    flat = tuple(flat_garment(garment, view.size) for garment in garments)
    return Trial(view.image, as_detected(view.pose), region, flat, dressed.image, shown & region)


def try_on(
    pipe: Any, trials: Sequence[Trial], garments: bool = True, seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[Picture]:  # fmt: skip
    """Each person in the garments of the trial (without `garments`: with no reference), at the settings the
    pipeline has by default. All trials have as many garments."""

    def call(part: slice, generators: list[torch.Generator]) -> NDArray[np.floating]:
        batch = trials[part]
        references = [pipe.encode_reference(list(trial.garments)) for trial in batch] if garments else None
        return pipe(
            references, [trial.pose for trial in batch], person=[trial.person for trial in batch],
            region=[trial.region for trial in batch], generator=generators, output_type="np",
        ).images  # fmt: skip

    return in_batches(len(trials), call, seed, progress)


def mean_over(
    measure: Callable[[Picture, Picture, Mask], float], pictures: Sequence[Picture], trials: Sequence[Trial]
) -> float:
    """`measure(result, truth, mask)` on the truth's garment pixels, per picture, then the mean."""
    together = zip(pictures, trials, strict=True)
    return float(np.mean([measure(y, trial.truth, trial.mask) for y, trial in together]))


def region_psnr(pictures: Sequence[Picture], trials: Sequence[Trial]) -> float:
    """PSNR over everything that was painted, garment or not."""
    together = zip(pictures, trials, strict=True)
    return float(np.mean([psnr(y, trial.truth, trial.region) for y, trial in together]))


def tryon_sheet(trials: Sequence[Trial], results: Sequence[Picture]) -> Picture:
    """One row per trial: person, region, garment, result, truth; two trials side by side."""
    cells = [
        [trial.person, tinted(trial.person, trial.region), trial.garments[0], y, trial.truth]
        for trial, y in zip(trials, results, strict=True)
    ]
    rows = [[cell for pair in cells[i : i + 2] for cell in pair] for i in range(0, len(cells), 2)]
    return contact_sheet(rows, ["person", "region", "garment", "result", "truth"] * min(2, len(cells)))


def sample_tryon(pipe: Any, path: Path, size: int, num: int = 32) -> dict[str, float]:
    """What training looks at: a sheet of the first 12 of `num` held-out scenes, and four numbers over all of
    them; `garment_psnr_old` is what keeping the old garment scores."""
    pipe.set_progress_bar_config(disable=True)
    trials = [case.trial for case in held_out_scenes(num, size)]
    results = try_on(pipe, trials)
    write_image(path, tryon_sheet(trials[:12], results[:12]), force=True)
    return {
        "garment_psnr": mean_over(psnr, results, trials),
        "garment_psnr_old": mean_over(psnr, [trial.person for trial in trials], trials),
        "region_psnr": region_psnr(results, trials),
        "color_error": mean_over(colour_error, results, trials),
    }
