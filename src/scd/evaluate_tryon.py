"""Evaluation of try-on on held-out truth: the world draws the same person, in the same pose, in the new
garment.

What each number means: docs/evaluation.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from scd import world
from scd.data.augment import as_detected
from scd.data.world import FIRST_HELD_OUT_SEED
from scd.data.world_tryon import facing, garment_mask, other_garment, world_region
from scd.evaluate import Pair, about, case_sheet, in_batches, mean, mean_psnr, paint, reconstruct
from scd.media import write_image
from scd.metrics.image import colour_error, psnr, ssim, structure_error
from scd.region import tinted
from scd.tryon import box_around
from scd.types import Mask, Picture, Pose
from scd.world import Garment, View, flat_garment

LEAST_SHOWN = 0.01  # of the picture: a garment that shows less (trousers, cut at the hips) is no case

Measure = Callable[[Picture, Picture, Mask], float]  # of result and truth, over a mask


@dataclass(frozen=True)
class Trial:
    """A person, what to put on, where, and what comes out if all goes well."""

    person: Picture
    pose: Pose  # as a detector would give it
    region: Mask  # True = generate; from the pose
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


def trial_of(view: View, garments: Sequence[Garment]) -> Trial:
    """The person of a view puts on garments of other kinds each; the region is theirs."""
    dressed = view
    for garment in garments:
        dressed = dressed.dressed(garment)
    region = world_region(view, [garment.kind for garment in garments])
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

    return in_batches(pipe, len(trials), call, seed, progress)


def mean_over(measure: Measure, pictures: Sequence[Picture], trials: Sequence[Trial]) -> float:
    """`measure(result, truth, mask)` on the truth's garment pixels, per picture, then the mean."""
    together = zip(pictures, trials, strict=True)
    return mean(measure(y, trial.truth, trial.mask) for y, trial in together)


def mean_region(measure: Measure, pictures: Sequence[Picture], trials: Sequence[Trial]) -> float:
    """The same over everything that was painted, garment or not."""
    return mean_over(measure, pictures, [replace(trial, mask=trial.region) for trial in trials])


def region_psnr(pictures: Sequence[Picture], trials: Sequence[Trial]) -> float:
    return mean_region(psnr, pictures, trials)


# ---- all numbers ----


@dataclass(frozen=True)
class Case:
    """What one held-out scene is asked for, drawn."""

    trial: Trial
    paired: Trial  # the garment that is worn already: the truth is the person's own picture
    other: Trial  # the truth of `trial`, but the next scene's garment of that kind is shown
    flat: Mask  # the garment's pixels in its own picture
    patterned: bool
    dressed: Pair  # from the person in the old clothes to another pose in the new garment
    dressed_mask: Mask  # the garment's pixels there
    two: tuple[Trial, Trial, Trial] | None  # a top and a lower: both at once; the top alone; then the lower


def draw_case(scene: HeldOut) -> Case:
    """Everything that is drawn of a scene."""
    view, trial, kind = scene.worn, scene.trial, scene.own.kind
    seed = view.scene.seed
    third = other_garment(seed + 1, scene.own)
    driver = view.scene.view(facing(view.scene, 2)[1], view.size)  # in its own clothes: poses tell no garment
    target = driver.dressed(scene.garment)
    two, outfit = None, view.outfit
    if outfit.upper is not None and outfit.lower_piece is not None:
        pieces = tuple(other_garment(seed, worn) for worn in (outfit.upper, outfit.lower_piece))
        both = trial_of(view, pieces)
        top, lower = (
            replace(both, garments=(flat,), region=world_region(view, [piece.kind]))
            for piece, flat in zip(pieces, both.garments, strict=True)
        )
        two = (both, top, lower)
    return Case(
        trial,
        replace(
            trial, garments=(flat_garment(scene.own, view.size),), truth=trial.person,
            mask=view.region(kind) & trial.region,
        ),
        replace(trial, garments=(flat_garment(third, view.size),)),
        garment_mask(scene.garment, view.size),
        scene.garment.pattern != "plain",
        Pair(
            trial.person, trial.pose, target.image, as_detected(driver.pose), target.pose, target.visible,
            target.mask,
        ),
        target.region(kind),
        two,
    )  # fmt: skip


def paste_flat(case: Case) -> Picture:
    """The flat garment scaled onto the box of the truth's garment: what a person with scissors, and with the
    truth at hand, would do."""
    trial, picture = case.trial, case.trial.person.copy()
    (left, top, right, bottom), (x0, y0, x1, y1) = box_around(trial.mask), box_around(case.flat)
    own, size = (slice(y0, y1), slice(x0, x1)), (right - left, bottom - top)
    garment = cv2.resize(trial.garments[0][own], size, interpolation=cv2.INTER_AREA)
    cut = cv2.resize(case.flat[own].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    picture[top:bottom, left:right][cut] = garment[cut]
    return picture


def dress_and_animate(
    pipe: Any, cases: Sequence[Case], seed: int = 0, progress: Callable[[int], None] | None = None
) -> list[Picture]:
    """Each person in another pose and the new garment, in one pass: two references, the whole picture."""

    def call(part: slice, generators: list[torch.Generator]) -> NDArray[np.floating]:
        batch = cases[part]
        references = [
            pipe.encode_reference([c.trial.person, *c.trial.garments], [c.trial.pose, None]) for c in batch
        ]
        poses, (height, width) = [c.dressed.target_pose for c in batch], batch[0].trial.person.shape[:2]
        return pipe(references, poses, height, width, generator=generators, output_type="np").images

    return in_batches(pipe, len(cases), call, seed, progress)


def evaluate_world_tryon(
    pipe: Any, num: int = 32, seed: int = 0, sheet: Path | None = None, model: str = "embedded",
    lpips: Callable[[Picture, Picture], float] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """All numbers of `scd evaluate world-tryon`; six to nine times `num` pictures are painted. `lpips`: a
    measure of result and truth, None where its weights are not at hand."""
    began = time.monotonic()
    cases = [draw_case(scene) for scene in held_out_scenes(num, pipe.config.default_size)]
    trials, paired = [case.trial for case in cases], [case.paired for case in cases]
    started = time.monotonic()
    result = try_on(pipe, trials, seed=seed, progress=progress)
    took = time.monotonic() - started
    none = try_on(pipe, trials, garments=False, seed=seed, progress=progress)
    other = try_on(pipe, [case.other for case in cases], seed=seed, progress=progress)
    back = try_on(pipe, paired, seed=seed, progress=progress)
    vae = reconstruct(pipe, [trial.truth for trial in trials])
    together = list(zip(result, trials, strict=True))
    if sheet is not None:
        write_image(sheet, tryon_sheet(trials[:16], result[:16]), force=True)
    return {
        "garment_psnr": mean_over(psnr, result, trials),
        "garment_psnr_no_garment": mean_over(psnr, none, trials),
        "garment_psnr_other_garment": mean_over(psnr, other, trials),
        "garment_psnr_vae": mean_over(psnr, vae, trials),
        "region_psnr": region_psnr(result, trials),
        "color_error": mean_over(colour_error, result, trials),
        "color_error_no_garment": mean_over(colour_error, none, trials),
        "color_error_other_garment": mean_over(colour_error, other, trials),
        "outside_max_difference": max(_outside(y, trial) for y, trial in together),
        "num_pairs": num,
        "garment_psnr_flat": mean_over(psnr, [paste_flat(case) for case in cases], trials),
        "garment_psnr_old": mean_over(psnr, [trial.person for trial in trials], trials),
        **_prints(cases, result, none, other, vae),
        "psnr": mean(psnr(y, trial.truth) for y, trial in together),
        "ssim": mean(ssim(y, trial.truth) for y, trial in together),
        "lpips": None if lpips is None else mean(lpips(y, trial.truth) for y, trial in together),
        "paired_region_psnr": region_psnr(back, paired),
        "paired_region_ssim": mean_region(ssim, back, paired),
        "paired_psnr": mean(psnr(y, trial.truth) for y, trial in zip(back, paired, strict=True)),
        "paired_ssim": mean(ssim(y, trial.truth) for y, trial in zip(back, paired, strict=True)),
        **_two_garments(pipe, cases, seed, progress),
        **_animated(pipe, cases, result, took, seed, progress),
        **about(pipe, model, began),
    }


def _outside(picture: Picture, trial: Trial) -> int:
    difference = np.abs(picture.astype(int) - trial.person)[~trial.region]
    return int(difference.max(initial=0))


def _prints(cases: Sequence[Case], result, none, other, vae) -> dict[str, Any]:
    """Error of the print's structure over that without a garment, of garments that are not plain; `plain`:
    what the garment's mean colour alone would score."""
    chosen = [i for i, case in enumerate(cases) if case.patterned]
    trials = [cases[i].trial for i in chosen]
    if not chosen:
        return dict.fromkeys(
            ("print_error", "print_error_plain", "print_error_other_garment", "print_error_vae"), None
        ) | {"num_prints": 0}

    def error(pictures: Sequence[Picture]) -> float:
        return mean_over(structure_error, pictures, trials)

    without = error([none[i] for i in chosen])
    plain = [np.zeros_like(trial.truth) for trial in trials]  # any colour: structure has none
    return {
        "print_error": error([result[i] for i in chosen]) / without,
        "print_error_plain": error(plain) / without,
        "print_error_other_garment": error([other[i] for i in chosen]) / without,
        "print_error_vae": error([vae[i] for i in chosen]) / without,
        "num_prints": len(chosen),
    }


def _two_garments(pipe: Any, cases: Sequence[Case], seed: int, progress) -> dict[str, Any]:
    """A top and a lower at once, and the top first, then the lower on that picture."""
    chosen = [case.two for case in cases if case.two is not None]
    if not chosen:
        return {"garment_psnr_two": None, "garment_psnr_two_steps": None, "num_two": 0}
    both, tops, lowers = map(list, zip(*chosen, strict=True))
    at_once = try_on(pipe, both, seed=seed, progress=progress)
    first = try_on(pipe, tops, seed=seed, progress=progress)
    lowers = [replace(trial, person=y) for trial, y in zip(lowers, first, strict=True)]
    second = try_on(pipe, lowers, seed=seed, progress=progress)
    return {
        "garment_psnr_two": mean_over(psnr, at_once, both),
        "garment_psnr_two_steps": mean_over(psnr, second, both),
        "num_two": len(chosen),
    }


def _animated(
    pipe: Any, cases: Sequence[Case], result: Sequence[Picture], took: float, seed: int, progress
) -> dict[str, Any]:
    """Dressed and in another pose in one pass, and in two: `result`, which took `took` seconds, animated."""
    pairs = [case.dressed for case in cases]
    started = time.monotonic()
    one = dress_and_animate(pipe, cases, seed, progress)
    between = time.monotonic()
    tried_on = [replace(pair, reference=y) for pair, y in zip(pairs, result, strict=True)]
    two = paint(pipe, pairs, tried_on, seed, progress)
    ended = time.monotonic()
    shown = [i for i, case in enumerate(cases) if case.dressed_mask.any()]

    def garment(pictures: Sequence[Picture]) -> float | None:
        values = [psnr(pictures[i], pairs[i].target, cases[i].dressed_mask) for i in shown]
        return mean(values) if values else None

    return {
        "masked_psnr_dressed": mean_psnr(one, pairs),
        "masked_psnr_dressed_two_steps": mean_psnr(two, pairs),
        "garment_psnr_dressed": garment(one),
        "garment_psnr_dressed_two_steps": garment(two),
        "seconds_dressed": between - started,
        "seconds_dressed_two_steps": took + ended - between,
    }


# ---- pictures ----


def tryon_sheet(trials: Sequence[Trial], results: Sequence[Picture]) -> Picture:
    """Of each trial person, region, garment, result and truth."""
    cells = [
        [trial.person, tinted(trial.person, trial.region), trial.garments[0], y, trial.truth]
        for trial, y in zip(trials, results, strict=True)
    ]
    return case_sheet(cells, ["person", "region", "garment", "result", "truth"])


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
