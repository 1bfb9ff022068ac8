"""What a training run on real data looks at: sheets of clips and pairs that it never sees."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scd.config import TrainConfig
from scd.data.fitting import read_fitting
from scd.data.real import RealPictures, open_real
from scd.data.shots import Shot
from scd.data.tryon_pictures import open_tryon
from scd.evaluate import Pair, grid, mean, paint
from scd.evaluate_clips import ClipCase, clip_sheet, paint_clip
from scd.evaluate_tryon import Trial, mean_over, region_psnr, try_on, tryon_sheet
from scd.media import write_image
from scd.metrics.image import colour_error, detail, psnr
from scd.metrics.video import jitter
from scd.types import PoseClip, UserError

log = logging.getLogger("scd")


def sample_real(pipe: Any, path: Path, config: TrainConfig) -> dict[str, float]:
    """A sheet of `sample_pictures` cases of held-out clips (of the training's, where none are held out, or
    all of them are too short), and measures over whole pictures: where the person is, only a drawn world
    knows."""
    pipe.set_progress_bar_config(disable=True)
    try:
        dataset = open_real(config.data, 0, config.seed, config.overfit, held_out=not config.overfit)
    except UserError as error:
        dataset = open_real(config.data, 0, config.seed, config.overfit)
        log.warning("%s: the sheet shows the training, nothing held out (%s)", config.data.root, error)
    if config.data.frames > 1:
        return _clips(pipe, path, dataset, config.sample_pictures)
    pairs = _readable(lambda number: _pair(dataset, number), config.sample_pictures)
    results: list[Any] = [None] * len(pairs)
    for size in sorted({pair.target.shape for pair in pairs}):  # one call paints one size
        numbers = [i for i, pair in enumerate(pairs) if pair.target.shape == size]
        alike = [pairs[i] for i in numbers]
        for i, picture in zip(numbers, paint(pipe, alike, alike), strict=True):
            results[i] = picture
    write_image(path, grid(pairs[:12], results[:12]), force=True)
    together = list(zip(results, pairs, strict=True))
    return {
        "psnr": mean(psnr(y, p.target) for y, p in together),
        "psnr_copy": mean(psnr(p.reference, p.target) for p in pairs),
        "detail": mean(detail(y, p.target, p.mask) for y, p in together),
    }


def sample_pairs(pipe: Any, path: Path, config: TrainConfig) -> dict[str, float]:
    """A sheet of `sample_pictures` paired test cases of a try-on dataset (of the training's, where it has
    none), and measures over all of them, in the region."""
    pipe.set_progress_bar_config(disable=True)
    try:
        dataset = open_tryon(config.data, 0, config.seed, config.overfit, held_out=not config.overfit)
    except UserError as error:
        dataset = open_tryon(config.data, 0, config.seed, config.overfit)
        log.warning("%s: the sheet shows the training, nothing held out (%s)", config.data.root, error)
    numbers = [i % len(dataset.pairs) for i in range(config.sample_pictures)]
    size = dataset.frames[numbers[0]]  # one sheet has one size
    fittings = _readable(lambda i: read_fitting(dataset.pairs[numbers[i]], size), len(numbers))
    trials = [
        Trial(f.person, f.pose, f.region, (f.garment,), f.person, f.region) for f in fittings
    ]  # paired: the truth is the person as it is
    results = try_on(pipe, trials)
    write_image(path, tryon_sheet(trials[:12], results[:12]), force=True)
    return {
        "region_psnr": region_psnr(results, trials),
        "color_error": mean_over(colour_error, results, trials),
    }


def _clips(pipe: Any, path: Path, dataset: RealPictures, num: int) -> dict[str, float]:
    cases = _readable(lambda number: _case(dataset, number), num)
    painted = [paint_clip(pipe, case, case.poses) for case in cases]
    write_image(path, clip_sheet(cases, painted), force=True)
    together = list(zip(painted, cases, strict=True))
    frames = [pair for y, case in together for pair in zip(y, case.frames, strict=True)]
    return {
        "psnr": mean(psnr(y, x) for y, x in frames),
        "jitter": mean(jitter(y, case.frames, case.masks) for y, case in together),
    }


def _readable(read: Callable[[int], Any], num: int) -> list[Any]:
    """Those of `num` cases that can be read: a broken file ends no run. Raises UserError when none can."""
    cases, errors = [], []
    for number in range(num):
        try:
            cases.append(read(number))
        except UserError as error:
            errors.append(error)
    if errors and not cases:
        raise errors[0]
    if errors:
        log.warning("%d of %d held-out cases are left out: %s", len(errors), num, errors[0])
    return cases


def _chosen(dataset: RealPictures, number: int) -> tuple[Shot, int, list[int]]:
    """The shot, the reference and the targets of case `number`: the same in every run and at every step."""
    shot = dataset.shots[number % len(dataset.shots)]
    references, targets = dataset.choose(shot, 1, np.random.default_rng([3, number]))
    return shot, references[0], targets


def _pair(dataset: RealPictures, number: int) -> Pair:
    shot, reference, (target, *_) = _chosen(dataset, number)
    pictures, pose = shot.pictures([reference, target]), shot.pose(target)
    everywhere = np.ones(pictures.shape[1:3], bool)
    return Pair(pictures[0], shot.pose(reference), pictures[1], pose, pose, pose.scores > 0, everywhere)


def _case(dataset: RealPictures, number: int) -> ClipCase:
    shot, reference, targets = _chosen(dataset, number)
    rate = float(shot.fps) / max(1, targets[1] - targets[0])
    poses = PoseClip.from_poses([shot.pose(t) for t in targets], rate)
    pictures = shot.pictures([reference, *targets])
    everywhere = np.ones(pictures[1:].shape[:3], bool)
    return ClipCase(pictures[0], shot.pose(reference), pictures[1:], poses, everywhere)
