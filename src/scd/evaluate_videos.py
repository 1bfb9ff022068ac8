"""Held-out clips of real people, each driven by its own poses: the first frame is the reference, those after
it are the truth, as papers on TikTok and UBCFashion have it. What each number means: docs/evaluation.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scd.animate import paint_frames
from scd.data.layouts import Layout
from scd.data.shots import Shot, all_shots
from scd.evaluate import mean, reconstruct
from scd.evaluate_clips import ClipCase
from scd.evaluate_viton_hd import Distribution
from scd.media import write_clip
from scd.metrics.image import absolute_error, detail, psnr, ssim
from scd.metrics.person import pck
from scd.metrics.video import jitter, motion
from scd.pose.skeleton import bounding_box
from scd.pose.smooth import fill_gaps
from scd.types import Mask, Picture, Pose, PoseClip, UserError

log = logging.getLogger("scd")
MARGIN = 0.12  # around the joints, in their box's longer side: hair and soles lie outside them
LOOKED_AT = 8  # frames of each clip in which the detector looks for the person
SEEN = 0.3  # a joint's score from which on it counts

Video = NDArray[np.uint8]  # (T, H, W, 3)
Pictures = Callable[[Picture, Picture], float]


@dataclass(frozen=True)
class VideoCase:
    """A clip in its bucket, as training has it."""

    shot: Shot
    clip: ClipCase  # its masks are boxes around the person's joints

    def shown(self, picture: NDArray[Any]) -> NDArray[Any]:
        """Of a frame what shows the clip, without padding."""
        return self.shot.placement.shown(picture)


def held_out_shots(layout: Layout, size: int, limit: int | None = None) -> list[Shot]:
    """The longest shot of each of the first `limit` clips that training never sees. Raises UserError when
    there is none, or they were not prepared."""
    entries = layout.entries()
    clips = [clip for clip in layout.clips if clip in layout.held_out][:limit]
    if not clips:
        raise UserError(
            f'{layout.root}: none of its {len(layout.clips)} clips is held out: write "split": "test" beside '
            f"some of those in {layout.manifest.name}, and train without them"
        )
    if any(clip not in entries for clip in clips):
        raise UserError(f"{layout.root}: was not prepared yet; run scd data prepare {layout.root}")
    longest: dict[str, Shot] = {}
    for shot in all_shots(layout, entries, clips, size):
        if shot.clip not in longest or len(shot.usable) > len(longest[shot.clip].usable):
            longest[shot.clip] = shot
    return list(longest.values())


def name_of(shot: Shot) -> str:
    """What the folder of its painted frames is called."""
    return shot.clip if shot.path.is_dir() else str(Path(shot.clip).with_suffix(""))


def read_case(shot: Shot, stride: int = 1, most: int | None = None) -> VideoCase:
    """A shot's first frame with the person, and every `stride`-th of those after it, `most` at most.

    Raises UserError when there are fewer than two, for long gaps (`fill_gaps`), and when the clip cannot be
    read.
    """
    first, last = int(shot.usable[0]), int(shot.usable[-1])
    frames = list(range(first + stride, last + 1, stride))[:most]
    if len(frames) < 2:
        raise UserError(f"{shot.name}: has {len(frames)} frames after the first; two are needed")
    seen = PoseClip.from_poses([shot.pose(t) for t in range(first, last + 1)], float(shot.fps))
    filled = list(fill_gaps(seen, name_for_errors=shot.name).clip)
    poses = PoseClip.from_poses([filled[t - first] for t in frames], float(shot.fps) / stride)
    pictures, inside = shot.pictures([first, *frames]), np.zeros(shot.bucket, bool)
    shot.placement.shown(inside)[:] = True
    masks = np.stack([_person(pose) & inside for pose in poses])
    return VideoCase(shot, ClipCase(pictures[0], shot.pose(first), pictures[1:], poses, masks))


def _person(pose: Pose) -> Mask:
    """The box around the joints, grown by MARGIN, in a mask of the pose's size."""
    height, width = pose.size
    mask = np.zeros((height, width), bool)
    if (box := bounding_box(pose)) is not None:
        left, top, right, bottom = np.array(box) * (width, height, width, height)
        more = max(2.0, MARGIN * max(right - left, bottom - top))
        rows, columns = (
            slice(max(0, int(low - more)), max(0, int(high + more) + 1))
            for low, high in ((top, bottom), (left, right))
        )
        mask[rows, columns] = True
    return mask


def measure(
    pipe: Any, case: VideoCase, painted: Video, detector: Any = None, lpips: Pictures | None = None
) -> dict[str, float]:
    """All numbers of one clip; those of pictures are means over its frames."""
    clip = case.clip
    still = np.broadcast_to(clip.reference, clip.frames.shape)

    def whole(number: Pictures, results: Iterable[Picture]) -> float:
        pairs = zip(results, clip.frames, strict=True)
        return mean(number(case.shown(y), case.shown(x)) for y, x in pairs)

    def person(number: Callable[[Picture, Picture, Mask], float], results: Iterable[Picture]) -> float:
        return mean(number(y, x, m) for y, x, m in zip(results, clip.frames, clip.masks, strict=True))

    decoded = reconstruct(pipe, list(clip.frames))
    row = {
        "psnr": whole(psnr, painted), "ssim": whole(ssim, painted), "l1": whole(absolute_error, painted),
        "psnr_copy": whole(psnr, still), "psnr_vae": whole(psnr, decoded),
        "person_psnr": person(psnr, painted), "person_psnr_copy": person(psnr, still),
        "person_psnr_vae": person(psnr, decoded), "detail": person(detail, painted),
        "jitter": jitter(painted, clip.frames, clip.masks),
        "motion": motion(painted, clip.frames, clip.masks),
    }  # fmt: skip
    if lpips is not None:
        row["lpips"] = whole(lpips, painted)
    if detector is not None:
        looked_at = np.unique(np.linspace(0, len(painted) - 1, LOOKED_AT).round().astype(int))
        for name, frames in (("pck", painted), ("pck_truth", clip.frames)):
            poses = [clip.poses[int(t)] for t in looked_at]
            row[name] = mean(
                pck(frames[t], pose, pose.scores >= SEEN, detector)
                for t, pose in zip(looked_at, poses, strict=True)
            )
    return row


def evaluate_videos(
    pipe: Any, shots: Sequence[Shot], stride: int = 1, most: int | None = None, seed: int = 0,
    out: Path | None = None, force: bool = False, detector: Any = None, lpips: Pictures | None = None,
    distribution: Distribution | None = None, progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The means over the clips that could be read; their frames go to `out`, a folder of PNG for each,
    without padding. A clip that cannot be read is a line in the log. Raises UserError when none can."""
    rows: list[dict[str, float]] = []
    frames = 0
    for number, shot in enumerate(shots):
        try:
            case = read_case(shot, stride, most)
        except UserError as error:
            log.warning("left out: %s", error)
            continue
        reference = pipe.encode_reference(case.clip.reference, case.clip.reference_pose)
        painted = np.stack(list(paint_frames(pipe, reference, case.clip.poses, seed + number)))
        rows.append(measure(pipe, case, painted, detector, lpips))
        frames += len(painted)
        if out is not None:
            write_clip(out / name_of(shot), map(case.shown, painted), case.clip.poses.fps, force=force)
        if distribution is not None:
            for real, pictures in ((False, painted), (True, case.clip.frames)):
                for picture in pictures:
                    distribution.add(case.shown(picture), real)
        if progress is not None:
            progress(1)
    if not rows:
        raise UserError(f"none of {len(shots)} clips could be read; the lines above say why")
    return {
        **{name: mean(row[name] for row in rows) for name in rows[0]},
        **{name: None for name in ("lpips", "pck", "pck_truth") if name not in rows[0]},
        **(dict.fromkeys(("fid", "kid")) if distribution is None else distribution.numbers()),
        "num_clips": len(rows), "num_frames": frames, "num_broken": len(shots) - len(rows),
    }  # fmt: skip
