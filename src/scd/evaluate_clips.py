"""Evaluation on held-out clips with exact truth: the same person through every frame, without trembling."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scd import world
from scd.data.augment import as_detected
from scd.data.world import FIRST_HELD_OUT_SEED
from scd.encoders import to_bytes
from scd.evaluate import about, mean, reconstruct
from scd.inputs import same_for_frames
from scd.media import contact_sheet, write_image
from scd.metrics.image import psnr
from scd.metrics.video import jitter, motion, seam
from scd.pose.draw import draw_pose
from scd.types import Pose, PoseClip
from scd.windows import windows
from scd.world.motion import CLIPS

FIRST_SEED = FIRST_HELD_OUT_SEED + 5_000  # people that `scd evaluate world` does not use
SHEET_FRAMES = 8  # of each clip
FPS = 15.0  # as many clips of drawn people as one can afford have


@dataclass(frozen=True)
class ClipCase:
    """One held-out case: a reference picture in some posture, and a clip of the same scene."""

    reference: NDArray[np.uint8]  # (H, W, 3)
    reference_pose: Pose
    frames: NDArray[np.uint8]  # (T, H, W, 3) the truth
    poses: PoseClip  # as a detector would give them
    masks: NDArray[np.bool_]  # (T, H, W) where the person is: its pixels, where the world knows them


def held_out_clips(num: int, num_frames: int, size: int) -> list[ClipCase]:
    """Clips of the first `num` held-out people: dance, walk, wave and turn by turns, at (size, size)."""
    cases = []
    for number in range(num):
        scene = world.Scene.from_seed(FIRST_SEED + number)
        first = scene.view(0, size=size)
        views = scene.clip(CLIPS[number % len(CLIPS)], num_frames, FPS, size)
        cases.append(
            ClipCase(
                first.image, as_detected(first.pose), np.stack([v.image for v in views]),
                PoseClip.from_poses([as_detected(v.pose) for v in views], FPS),
                np.stack([v.mask for v in views]),
            )
        )  # fmt: skip
    return cases


def paint_clip(pipe: Any, case: ClipCase, poses: PoseClip | list[Pose], seed: int = 0, **options) -> NDArray:
    """Frames uint8 (T, H, W, 3) of a case's person; a list of poses paints picture by picture."""
    reference = pipe.encode_reference(case.reference, case.reference_pose)
    height, width = case.reference.shape[:2]
    options = {"generator": torch.Generator().manual_seed(seed), **options}
    out = pipe(reference, poses, height, width, output_type="np", **options)
    frames = out.images if out.frames is None else out.frames[0]
    return to_bytes(frames)


def framewise(pipe: Any, case: ClipCase, seed: int, shared: bool) -> NDArray[np.uint8]:
    """The picture model frame by frame: each with noise of its own, or all with one noise, at every step."""
    generator: Any = torch.Generator().manual_seed(seed)
    if shared:
        generator = same_for_frames([generator], len(case.poses))
    return paint_clip(pipe, case, list(case.poses), generator=generator)


def window_borders(num_frames: int, window: int, overlap: int, num_steps: int) -> set[int]:
    """Frames at which a window of the last step begins, or the first after one's end."""
    last = windows(num_frames, window, overlap, num_steps - 1)
    return {edge for w in last for edge in (w.start, w.stop) if 0 < edge < num_frames}


def seam_cases(case: ClipCase, num_frames: int, seed: int, size: int) -> list[ClipCase]:
    """A moving clip and a still one, of `num_frames`."""
    scene = world.Scene.from_seed(seed)
    views = scene.clip("dance", num_frames, FPS, size)
    poses = [as_detected(view.pose) for view in views]
    first = scene.view(0, size=size)
    of_scene = replace(case, reference=first.image, reference_pose=as_detected(first.pose))
    return [replace(of_scene, poses=PoseClip.from_poses(p, FPS)) for p in (poses, [poses[0]] * num_frames)]


def evaluate_world_video(
    pipe: Any, num: int = 8, num_frames: int = 24, seed: int = 0, sheet: Path | None = None,
    model: str = "embedded", progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """All numbers of `scd evaluate world-video`; definitions in scd.metrics.video."""
    began = time.monotonic()
    size = pipe.config.default_size
    cases = held_out_clips(num, num_frames, size)
    rows: list[dict[str, float]] = []
    painted = []
    for number, case in enumerate(cases):
        result = paint_clip(pipe, case, case.poses, seed + number)
        alone = framewise(pipe, case, seed + number, shared=False)
        painted.append(result)
        judged = {
            "jitter": result, "jitter_truth": np.stack(reconstruct(pipe, list(case.frames))),
            "jitter_framewise": alone,
            "jitter_framewise_shared": framewise(pipe, case, seed + number, shared=True),
        }  # fmt: skip
        rows.append({
            "masked_psnr": _masked_psnr(result, case), "masked_psnr_picture_model": _masked_psnr(alone, case),
            **{name: jitter(frames, case.frames, case.masks) for name, frames in judged.items()},
            "motion": motion(result, case.frames, case.masks),
        })  # fmt: skip
        if progress is not None:
            progress(1)
    window, overlap = pipe.config.default_window, pipe.config.default_overlap
    long = 3 * window - 2 * overlap
    borders = window_borders(long, window, overlap, pipe.config.default_steps)
    seams = [
        seam(paint_clip(pipe, case, case.poses, seed), borders)
        for case in seam_cases(cases[0], long, FIRST_SEED + num, size)
    ]
    if sheet is not None:
        write_image(sheet, clip_sheet(cases, painted), force=True)
    means = {name: mean(row[name] for row in rows) for name in rows[0]}
    return {
        **{name: value for name, value in means.items() if name != "motion"},
        "seam": max(seams), "motion": means["motion"], "num_clips": num, "num_frames": num_frames,
        **about(pipe, model, began),
    }  # fmt: skip


def sample_clips(pipe: Any, path: Path, size: int, num: int, num_frames: int) -> dict[str, float]:
    """What stage 2 looks at: a sheet of `num` held-out clips, and three numbers over them."""
    pipe.set_progress_bar_config(disable=True)
    cases = held_out_clips(num, num_frames, size)
    painted = [paint_clip(pipe, case, case.poses) for case in cases]
    write_image(path, clip_sheet(cases, painted), force=True)
    pairs = list(zip(painted, cases, strict=True))
    return {
        "masked_psnr": mean(_masked_psnr(y, case) for y, case in pairs),
        "jitter": mean(jitter(y, case.frames, case.masks) for y, case in pairs),
        "motion": mean(motion(y, case.frames, case.masks) for y, case in pairs),
    }


def clip_sheet(cases: Sequence[ClipCase], painted: Sequence[NDArray[np.uint8]]) -> NDArray:
    """Three rows a clip: poses, result, truth; the reference stands in front."""
    rows = []
    for case, frames in zip(cases, painted, strict=True):
        chosen = np.linspace(0, len(frames) - 1, SHEET_FRAMES).astype(int)
        drawn = [draw_pose(case.poses[int(t)], case.poses.size) for t in chosen]
        rows += [[case.reference, *drawn], [case.reference, *frames[chosen]],
                 [case.reference, *case.frames[chosen]]]  # fmt: skip
    return contact_sheet(rows, ["reference", *[f"frame {t + 1}" for t in chosen]])


def _masked_psnr(frames: NDArray[np.uint8], case: ClipCase) -> float:
    together = zip(frames, case.frames, case.masks, strict=True)
    return mean(psnr(y, x, mask) for y, x, mask in together if mask.any())
