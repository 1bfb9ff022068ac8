"""From a photo and a driving clip to frames: the poses that drive, found and fitted to the reference, and the
painting of them. The command line and the demo page stand on these functions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from scd import media
from scd.backbones.motion import has_motion
from scd.data.buckets import Buckets
from scd.encoders import require_finite
from scd.pose.alignment import Alignment, alignment
from scd.pose.draw import draw_pose
from scd.pose.preview import scaled, side_by_side
from scd.pose.retarget import FaceMode, retarget, with_face
from scd.pose.smooth import fill_gaps, in_words, one_euro, part_named
from scd.pose.track import Seen
from scd.tryon import read_garments
from scd.types import Picture, Pose, PoseClip

log = logging.getLogger("scd")
PAINTED_AT_ONCE = 8  # frames of a model without motion modules
CLEARLY = 0.05  # by so much more must a later reference fit the driver than the first one, to take its place
COMPARED_HEIGHT = 256  # pixels, at least, of the pictures beside each other


@dataclass(frozen=True)
class Drive:
    """What drives a reference through a clip."""

    seen: Sequence[Seen]  # what each driving frame shows
    driving: PoseClip  # filled and smoothed, on the driving clip's canvas
    retargeted: PoseClip  # the same motion on the reference's canvas
    filled: tuple[int, ...]  # frames without the person, from 0
    alignment: Alignment
    reference: int = 0  # of several reference pictures the one whose place and proportions these are


def make_drive(
    seen: Sequence[Seen],
    fps: float,
    reference_poses: Sequence[Pose],
    smooth: bool = True,
    proportions: Literal["reference", "driver"] = "reference",
    face: FaceMode = "full",
    name: str = "the driving clip",
    start: float = 0.0,
) -> Drive:
    """Gaps filled, trembling filtered, and the motion brought to the body of the reference.

    Of several references the first gives place and proportions, unless another fits the driver clearly
    better (a portrait first, the whole person second). Logs, in one line each, which one that was, frames
    that were filled and what stands against a good match. Raises UserError for long gaps, or when the two
    share no limb. `start`: where the part of the clip `name` begins that was seen, in seconds.
    """
    clip = PoseClip.from_poses([one.pose for one in seen], fps)
    filled = fill_gaps(clip, name_for_errors=name, start=start)
    if filled.frames:
        log.warning("%s: nobody found in %s; filled in", part_named(name, start), in_words(filled.frames))
    driving = one_euro(filled.clip) if smooth else filled.clip
    matches = [alignment(driving, pose) for pose in reference_poses]
    best = max(range(len(matches)), key=lambda i: matches[i].score + CLEARLY * (i == 0))
    match = matches[best]
    if best:
        text = "reference %d fits the driver better than the first (%.2f, %.2f): its proportions are taken"
        log.info(text, best + 1, match.score, matches[0].score)
    if not match.enough:
        log.warning("the driver and the reference match badly (%.2f of 1): %s", match.score, match.reasons[0])
    if proportions == "driver":
        moved = with_face(driving, face)
    else:
        moved = retarget(driving, reference_poses[best], face)
    return Drive(seen, driving, moved, filled.frames, match, best)


@dataclass(frozen=True)
class Subject:
    """Who is painted: the reference pictures in the model's frame, and what the network keeps of them."""

    reference: Any
    pictures: list[Picture]  # (H, W, 3) each, padded with the colour of its border
    places: list[media.Placement]


def read_subject(
    pipe: Any, images: Sequence[Picture], poses: Sequence[Pose], garments: Sequence[Picture] = (),
    *, canvas: tuple[int, int],
) -> Subject:  # fmt: skip
    """Reference pictures (H, W, 3) of any size, each with its own pose, and garments that the person is to
    wear, read once: in the frame in which a canvas (height, width) is painted, as in training."""
    frame = Buckets.of(pipe.config).nearest(*canvas)
    fitted = [media.framed(image, frame) for image in images]
    moved = [place.apply_to_pose(pose) for (_, place), pose in zip(fitted, poses, strict=True)]
    pictures = [picture for picture, _ in fitted]
    reference = pipe.encode_reference(pictures, moved)
    if garments:
        reference = reference + read_garments(pipe, garments, frame)
    return Subject(reference, pictures, [place for _, place in fitted])


def place_in_model(pipe: Any, canvas: tuple[int, int]) -> media.Placement:
    """How a canvas (height, width) of poses lies in the model's frame of its aspect."""
    return media.place(canvas, Buckets.of(pipe.config).nearest(*canvas))


def paint_drive(
    pipe: Any, subject: Subject, drive: Drive, seed: int = 0, work_folder: Path | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[Picture]:  # fmt: skip
    """The clip's frames, uint8 (h, w, 3), in the aspect of the canvas that the poses lie on."""
    if len(drive.retargeted) > 1:
        note_flicker(pipe)
    place = place_in_model(pipe, drive.retargeted.size)
    poses = placed(drive.retargeted, place)
    for frame in paint_frames(pipe, subject.reference, poses, seed, work_folder, on_step):
        yield np.ascontiguousarray(place.shown(frame))


def placed(clip: PoseClip, placement: media.Placement) -> PoseClip:
    """A clip's poses in the frame that the model paints."""
    return PoseClip.from_poses([placement.apply_to_pose(pose) for pose in clip], clip.fps)


def paint_frames(
    pipe: Any,
    reference: Any,
    poses: PoseClip,
    seed: int = 0,
    work_folder: Path | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[Picture]:
    """The clip's frames in the poses' size, uint8 (H, W, 3), as they are decoded.

    With motion modules all frames finish together at the last step; `work_folder` keeps what is done. A model
    without them paints frame by frame, each from the same noise (initial and of every step), as the picture
    of that pose and seed (`note_flicker`). `on_step` hears how many steps were done, the first time with
    those that `work_folder` had. UserError for results that are no numbers.
    """

    done = 0  # steps of this call of the pipeline, those of an earlier run too

    def stepped(_pipe: Any, index: int, *_: Any) -> dict:
        nonlocal done
        if on_step is not None:
            on_step(index + 1 - done)
        done = index + 1
        return {}

    if has_motion(pipe.unet) or len(poses) == 1:
        latents = pipe(
            reference, poses, *poses.size, generator=torch.Generator().manual_seed(seed),
            output_type="latent", work_folder=work_folder, callback_on_step_end=stepped,
        ).frames[0]  # fmt: skip
        require_finite(latents, "the clip", pipe.unet.dtype)
        yield from pipe.decode_frames(latents)
        return
    for start in range(0, len(poses), PAINTED_AT_ONCE):
        part, done = list(poses[start : start + PAINTED_AT_ONCE]), 0
        latents = pipe(
            reference, part, *poses.size, generator=[torch.Generator().manual_seed(seed) for _ in part],
            output_type="latent", callback_on_step_end=stepped,
        ).images  # fmt: skip
        require_finite(latents, "the clip", pipe.unet.dtype)
        yield from pipe.decode_frames(latents.transpose(0, 1))


def note_flicker(pipe: Any) -> None:
    """One line where a clip is painted by a model without motion modules."""
    if not has_motion(pipe.unet):
        log.warning("this model has no motion modules: it paints frame by frame, and the clip will flicker")


def num_steps(pipe: Any, num_frames: int) -> int:
    """How many steps `on_step` of `paint_frames` hears of in all."""
    if has_motion(pipe.unet) or num_frames == 1:
        return pipe.config.default_steps
    return pipe.config.default_steps * -(-num_frames // PAINTED_AT_ONCE)


def compare_frames(
    reference: Picture, frames: Iterable[Picture] | None, poses: PoseClip, results: Iterable[Picture]
) -> Iterator[Picture]:
    """Reference, driving frame, pose and result side by side: one picture (H, W, 3), even sides, a frame.

    `frames` (None: there is no driving picture) and `results` stream; the shortest ends the clip. The results
    are enlarged in whole steps, so that their pixels are seen as they are, the others to their height.
    """
    drivers: Iterator[Picture | None] = iter(frames) if frames is not None else iter(lambda: None, 0)
    for driver, pose, result in zip(drivers, poses, results):  # noqa: B905
        factor = -(-COMPARED_HEIGHT // result.shape[0])
        large = result.repeat(factor, 0).repeat(factor, 1)
        height, width = large.shape[:2]
        cells = {"reference": scaled(reference, height)}
        if driver is not None:
            cells["driver"] = scaled(driver, height)
        cells |= {"pose": draw_pose(pose, (height, width)), "result": large}
        yield side_by_side(list(cells.values()), list(cells))
