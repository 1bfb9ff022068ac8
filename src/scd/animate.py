"""From a photo and a driving clip to frames: the poses that drive, found and fitted to the reference, and the
painting of them. The command line and the demo page stand on these functions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from scd import media
from scd.backbones.motion import has_motion
from scd.pose.alignment import Alignment, alignment
from scd.pose.retarget import FaceMode, retarget
from scd.pose.smooth import fill_gaps, in_words, one_euro
from scd.pose.track import Seen
from scd.types import Pose, PoseClip

log = logging.getLogger("scd")
Picture = NDArray[np.uint8]  # (H, W, 3) RGB
PAINTED_AT_ONCE = 8  # frames of a model without motion modules


@dataclass(frozen=True)
class Drive:
    """What drives a reference through a clip."""

    seen: Sequence[Seen]  # what each driving frame shows
    driving: PoseClip  # filled and smoothed, on the driving clip's canvas
    retargeted: PoseClip  # the same motion on the reference's canvas
    filled: tuple[int, ...]  # frames without the person, from 0
    alignment: Alignment


def make_drive(
    seen: Sequence[Seen],
    fps: float,
    reference_pose: Pose,
    smooth: bool = True,
    proportions: Literal["reference", "driver"] = "reference",
    face: FaceMode = "full",
    name: str = "the driving clip",
) -> Drive:
    """Gaps filled, trembling filtered, and the motion brought to the reference's body.

    Logs, in one line each, frames that were filled and what stands against a good match. Raises UserError for
    long gaps, or when the two share no limb.
    """
    filled = fill_gaps(PoseClip.from_poses([one.pose for one in seen], fps), name_for_errors=name)
    if filled.frames:
        log.warning("%s: nobody found in %s; filled in", name, in_words(filled.frames))
    driving = one_euro(filled.clip) if smooth else filled.clip
    match = alignment(driving, reference_pose)
    if not match.enough:
        log.warning("the driver and the reference match badly (%.2f of 1): %s", match.score, match.reasons[0])
    moved = retarget(driving, reference_pose, face)
    if proportions == "driver":
        moved = driving
    return Drive(seen, driving, moved, filled.frames, match)


def placed(clip: PoseClip, placement: media.Placement) -> PoseClip:
    """A clip's poses in the frame that the model paints."""
    return PoseClip.from_poses([placement.apply_to_pose(pose) for pose in clip], clip.fps)


def paint_frames(
    pipe: Any, reference: Any, poses: PoseClip, seed: int = 0, work_folder: Path | None = None,
    on_step: Callable[[], None] | None = None,
) -> Iterator[Picture]:
    """The clip's frames in the model's size, uint8 (H, W, 3), as they are decoded.

    With motion modules all frames finish together at the last step; `work_folder` keeps what is done. A model
    without them paints frame by frame, all from one noise: logs that the clip will flicker.
    """
    generator = torch.Generator().manual_seed(seed)

    def stepped(*_: Any) -> dict:
        if on_step is not None:
            on_step()
        return {}

    if has_motion(pipe.unet) or len(poses) == 1:
        output = pipe(
            reference, poses, generator=generator, output_type="latent", work_folder=work_folder,
            callback_on_step_end=stepped,
        )  # fmt: skip
        yield from pipe.decode_frames(output.frames[0])
        return
    log.warning("this model has no motion modules: it paints frame by frame, and the clip will flicker")
    side = pipe.config.default_size // pipe.vae_scale_factor
    noise = torch.randn(1, pipe.unet.config.in_channels, side, side, generator=generator)
    for start in range(0, len(poses), PAINTED_AT_ONCE):
        part = list(poses[start : start + PAINTED_AT_ONCE])
        images = pipe(
            reference, part, latents=noise.expand(len(part), -1, -1, -1), output_type="np",
            callback_on_step_end=stepped,
        ).images  # fmt: skip
        yield from np.rint(images * 255).astype(np.uint8)


def num_steps(pipe: Any, num_frames: int) -> int:
    """How often `on_step` of `paint_frames` is called."""
    if has_motion(pipe.unet) or num_frames == 1:
        return pipe.config.default_steps
    return pipe.config.default_steps * -(-num_frames // PAINTED_AT_ONCE)
