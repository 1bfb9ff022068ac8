"""Evaluation on held-out truth: people, clothes, backgrounds and poses of seeds that training never sees."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scd import world
from scd.data.augment import as_detected
from scd.data.world import FIRST_HELD_OUT_SEED
from scd.encoders import require_finite, signed, to_bytes
from scd.media import contact_sheet, write_image
from scd.metrics.image import detail, psnr, ssim
from scd.metrics.person import pck
from scd.pose.draw import draw_pose
from scd.types import Pose

BATCH = 16  # pictures in one call: memory, not results, depends on it


@dataclass(frozen=True)
class Pair:
    """One held-out case: two views of one scene."""

    reference: NDArray[np.uint8]  # (H, W, 3)
    reference_pose: Pose
    target: NDArray[np.uint8]  # (H, W, 3) the truth
    target_pose: Pose  # as a detector would give it
    truth_pose: Pose
    visible: NDArray[np.bool_]  # (128,)
    mask: NDArray[np.bool_]  # (H, W) the truth's person pixels


def held_out_pairs(num: int, size: int, first_seed: int = FIRST_HELD_OUT_SEED) -> list[Pair]:
    """Views 0 (reference) and 1 (target) of `num` scenes, the first held-out ones, at (size, size)."""
    pairs = []
    for seed in range(first_seed, first_seed + num):
        scene = world.Scene.from_seed(seed)
        first, second = scene.view(0, size=size), scene.view(1, size=size)
        pairs.append(
            Pair(
                first.image,
                as_detected(first.pose),
                second.image,
                as_detected(second.pose),
                second.pose,
                second.visible,
                second.mask,
            )
        )
    return pairs


def in_batches(
    pipe: Any,
    num: int,
    call: Callable[[slice, list[torch.Generator]], NDArray[np.floating]],
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[NDArray[np.uint8]]:
    """What `call` paints of cases 0 to `num`, a batch at a time: (n, H, W, 3) in [0, 1] from their slice and
    their generators.

    Picture i's noise depends on the seed and i only.
    """
    pictures: list[NDArray[np.uint8]] = []
    for start in range(0, num, BATCH):
        part = slice(start, min(start + BATCH, num))
        generators = [torch.Generator().manual_seed(seed + i) for i in range(part.start, part.stop)]
        painted = call(part, generators)
        require_finite(painted, "what the model painted", pipe.unet.dtype)
        pictures += list(to_bytes(painted))
        if progress is not None:
            progress(len(generators))
    return pictures


def paint(
    pipe,
    pairs: Sequence[Pair],
    references: Sequence[Pair] | None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[NDArray[np.uint8]]:
    """Each pair's target pose with the reference of `references` (None: without one), at the settings the
    pipeline has by default."""

    def call(part: slice, generators: list[torch.Generator]) -> NDArray[np.floating]:
        chosen = None
        if references is not None:
            chosen = [pipe.encode_reference(p.reference, p.reference_pose) for p in references[part]]
        batch = pairs[part]
        height, width = batch[0].target.shape[:2]
        poses = [p.target_pose for p in batch]
        return pipe(chosen, poses, height, width, generator=generators, output_type="np").images

    return in_batches(pipe, len(pairs), call, seed, progress)


def mean_psnr(pictures: Iterable[NDArray[np.uint8]], pairs: Sequence[Pair]) -> float:
    """Masked PSNR, dB per picture, then the mean."""
    return mean(psnr(y, pair.target, pair.mask) for y, pair in zip(pictures, pairs, strict=True))


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


@torch.no_grad()
def reconstruct(pipe, pictures: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Pictures of one size through the VAE and back: of the truth, what no denoising network can beat."""
    pixels = signed(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
    images = [pipe.decode_latents(pipe.encode_pictures(x[None].to(pipe.device)))[0] for x in pixels]
    return [to_bytes(x.permute(1, 2, 0).cpu().numpy()) for x in images]


def evaluate_world(
    pipe,
    num: int = 64,
    seed: int = 0,
    detector=None,
    sheet: Path | None = None,
    model: str = "embedded",
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """All numbers of `scd evaluate world`; three times `num` pictures are painted. Without a detector `pck`
    and `pck_truth` are None."""
    began = time.monotonic()
    pairs = held_out_pairs(num, pipe.config.default_size)
    result = paint(pipe, pairs, pairs, seed, progress)
    no_reference = paint(pipe, pairs, None, seed, progress)
    other = paint(pipe, pairs, [*pairs[1:], pairs[0]], seed, progress)
    if sheet is not None:
        write_image(sheet, grid(pairs[:16], result[:16]), force=True)
    together = list(zip(result, pairs, strict=True))
    return {
        "masked_psnr": mean_psnr(result, pairs),
        "masked_psnr_copy": mean_psnr([p.reference for p in pairs], pairs),
        "masked_psnr_vae": mean_psnr(reconstruct(pipe, [p.target for p in pairs]), pairs),
        "masked_psnr_no_reference": mean_psnr(no_reference, pairs),
        "masked_psnr_other_reference": mean_psnr(other, pairs),
        "psnr": mean(psnr(r, p.target) for r, p in together),
        "ssim": mean(ssim(r, p.target) for r, p in together),
        "detail": mean(detail(r, p.target, p.mask) for r, p in together),
        "pck": None
        if detector is None
        else mean(pck(r, p.truth_pose, p.visible, detector) for r, p in together),
        "pck_truth": None
        if detector is None
        else mean(pck(p.target, p.truth_pose, p.visible, detector) for p in pairs),
        "num_pictures": num,
        **about(pipe, model, began),
    }


def about(pipe: Any, model: str, began: float) -> dict[str, Any]:
    """What numbers on the world were measured with; `began`: of `time.monotonic`."""
    return {
        "num_steps": pipe.config.default_steps,
        "guidance": pipe.config.default_guidance,
        "scheduler": type(pipe.scheduler).__name__,
        "world_version": world.VERSION,
        "model": model,
        "seconds": time.monotonic() - began,
    }


def grid(pairs: Sequence[Pair], results: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Of each pair reference, pose drawing, result and truth."""
    cells = [
        [p.reference, draw_pose(p.target_pose, p.target_pose.size), r, p.target]
        for p, r in zip(pairs, results, strict=True)
    ]
    return case_sheet(cells, ["reference", "pose", "result", "truth"])


def case_sheet(cases: Sequence[Sequence[NDArray[np.uint8]]], labels: list[str]) -> NDArray[np.uint8]:
    """A sheet of cases, their pictures in a row, two cases side by side."""
    rows = [[picture for case in cases[i : i + 2] for picture in case] for i in range(0, len(cases), 2)]
    return contact_sheet(rows, labels * min(2, len(cases)))


def sample_grid(
    pipe, path: Path, size: int, num: int = 32, first_seed: int = FIRST_HELD_OUT_SEED
) -> dict[str, float]:
    """What training looks at: a sheet of the first 12 of `num` held-out pairs, and three numbers over all of
    them."""
    pipe.set_progress_bar_config(disable=True)
    pairs = held_out_pairs(num, size, first_seed)
    results = paint(pipe, pairs, pairs)
    write_image(path, grid(pairs[:12], results[:12]), force=True)
    return {
        "masked_psnr": mean_psnr(results, pairs),
        "masked_psnr_copy": mean_psnr([p.reference for p in pairs], pairs),
        "psnr": mean(psnr(r, p.target) for r, p in zip(results, pairs, strict=True)),
        "detail": mean(detail(r, p.target, p.mask) for r, p in zip(results, pairs, strict=True)),
    }
