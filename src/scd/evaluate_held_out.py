"""The clips that a dataset holds out, each driven by its own poses: the first frame is the reference, those
after it are the truth, as papers on TikTok and UBCFashion have it. Each number's meaning: docs/evaluation.md.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scd.animate import paint_frames
from scd.data.buckets import Buckets
from scd.data.layouts import Layout
from scd.data.shots import Shot, all_shots
from scd.evaluate import mean, reconstruct
from scd.evaluate_clips import ClipCase
from scd.media import write_clip
from scd.metrics.distribution import Distribution, VideoDistance
from scd.metrics.image import absolute_error, detail, gradient, psnr, ssim
from scd.metrics.person import pck
from scd.metrics.video import Frames, jitter, motion
from scd.pose.skeleton import SURE, bounding_box
from scd.pose.smooth import fill_gaps
from scd.types import Mask, Picture, Pose, PoseClip, UserError

log = logging.getLogger("scd")
MARGIN = 0.12  # around the joints, in their box's longer side: hair and soles lie outside them
LOOKED_AT = 8  # frames of each clip in which the detector looks for the person
AT_ONCE = 32  # frames that are decoded, or pass through the VAE, together

Measure = Callable[[Picture, Picture], float]


@dataclass(frozen=True)
class HeldOut:
    """A clip in its bucket, as training has it."""

    shot: Shot
    clip: ClipCase  # its masks are boxes around the person's joints

    def shown(self, picture: Picture) -> Picture:
        """Of a frame what shows the clip, without padding."""
        return self.shot.placement.shown(picture)


# ---- which clips ----


def held_out_clips(layout: Layout, limit: int | None = None) -> list[str]:
    """The first `limit` clips that training never sees. Raises UserError when there is none, or they were not
    prepared."""
    entries = layout.entries()
    clips = [clip for clip in layout.clips if clip in layout.held_out][:limit]
    if any(clip not in entries for clip in clips or layout.clips):
        named = layout.listed_in or layout.root
        raise UserError(f"{named}: was not prepared yet; run scd data prepare {named}")
    if not clips:
        raise UserError(
            f'{layout.root}: none of its {len(layout.clips)} clips is held out: write "split": "test" beside '
            f"some of those in {layout.manifest.name}, and train without them"
        )
    return clips


def longest_shots(layout: Layout, clips: Sequence[str], buckets: Buckets) -> list[Shot]:
    """The longest shot of each clip; clips that cannot be used are lines in the log. Raises UserError when
    none can, or their poses were not looked for."""
    entries, longest = layout.entries(), dict[str, Shot]()
    for shot in all_shots(layout, entries, clips, buckets):
        if shot.clip not in longest or len(shot.usable) > len(longest[shot.clip].usable):
            longest[shot.clip] = shot
    for clip in clips:
        if clip not in longest:
            log.warning("left out: %s: %s", clip, entries[clip].error or "shows nobody")
    if not longest:
        raise UserError(
            f"{layout.root}: none of {len(clips)} held-out clips can be used; see the lines above"
        )
    return list(longest.values())


def names_of(shots: Sequence[Shot]) -> list[str]:
    """What the folder of each one's painted frames is called: its clip's path in one word. Raises UserError
    when two would have one name."""
    names = [_name(shot) for shot in shots]
    for name, number in Counter(names).items():
        if number > 1:
            raise UserError(f"{number} clips would be written as {name}: leave --out out, or rename one")
    return names


def _name(shot: Shot) -> str:
    """Without an ending, so that `write_clip` makes a folder of PNG; within the folder it is put in."""
    path = Path(shot.clip) if shot.path.is_dir() else Path(shot.clip).with_suffix("")
    parts = [part.replace(".", "_") for part in path.parts if part not in ("..", path.anchor)]
    return "_".join(parts) or "clip"


# ---- one clip ----


def read_clip(shot: Shot, stride: int = 1, most: int | None = None) -> HeldOut:
    """A shot's first frame with the person, and every `stride`-th of those after it, `most` at most.

    Raises UserError when there are fewer than two, for long gaps (`fill_gaps`), when the person is never in
    the bucket, and when the clip cannot be read.
    """
    first, last = int(shot.usable[0]), int(shot.usable[-1])
    frames = list(range(first + stride, last + 1, stride))[:most]
    if len(frames) < 2:
        raise UserError(
            f"{shot.name}: has {len(frames)} frames after the first at --stride {stride}; two are needed"
        )
    last = int(shot.usable[np.searchsorted(shot.usable, frames[-1])])  # a gap beyond it does not matter
    seen = PoseClip.from_poses([shot.pose(t) for t in range(first, last + 1)], float(shot.fps))
    filled = list(fill_gaps(seen, name_for_errors=shot.name).clip)
    poses = PoseClip.from_poses([filled[t - first] for t in frames], float(shot.fps) / stride)
    inside = np.zeros(shot.bucket, bool)
    shot.placement.shown(inside)[:] = True
    masks = np.stack([_person(pose) & inside for pose in poses])
    if not masks.any():
        raise UserError(f"{shot.name}: the person is in none of {len(frames)} frames")
    parts = [shot.pictures(frames[i : i + AT_ONCE]) for i in range(0, len(frames), AT_ONCE)]
    (reference,) = shot.pictures([first])
    return HeldOut(shot, ClipCase(reference, shot.pose(first), np.concatenate(parts), poses, masks))


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
    pipe: Any, case: HeldOut, painted: Frames, detector: Any = None, lpips: Measure | None = None
) -> dict[str, float]:
    """All numbers of one clip; those of pictures are means over its frames, of the person over those that
    show it. `motion` is not there where the truth stands still, `detail` where it is of one colour."""
    clip = case.clip
    still = np.broadcast_to(clip.reference, clip.frames.shape)

    def whole(number: Measure, results: Iterable[Picture]) -> float:
        pairs = zip(results, clip.frames, strict=True)
        return mean(number(case.shown(y), case.shown(x)) for y, x in pairs)

    def person(number: Callable[[Picture, Picture, Mask], float], results: Iterable[Picture]) -> float:
        triples = zip(results, clip.frames, clip.masks, strict=True)
        return mean(number(y, x, mask) for y, x, mask in triples if mask.any())

    patterned = [
        mask.any() and gradient(x, mask) > 0 for x, mask in zip(clip.frames, clip.masks, strict=True)
    ]
    decoded = list(_reconstructed(pipe, clip.frames))
    row = {
        "psnr": whole(psnr, painted), "ssim": whole(ssim, painted), "l1": whole(absolute_error, painted),
        "psnr_copy": whole(psnr, still), "psnr_vae": whole(psnr, decoded),
        "person_psnr": person(psnr, painted), "person_psnr_copy": person(psnr, still),
        "person_psnr_vae": person(psnr, decoded),
        "jitter": jitter(painted, clip.frames, clip.masks),
    }  # fmt: skip
    if any(patterned):
        judged = zip(painted[patterned], clip.frames[patterned], clip.masks[patterned], strict=True)
        row["detail"] = mean(detail(*one) for one in judged)
    if jitter(still, clip.frames, clip.masks) > 0:  # the truth's own motion
        row["motion"] = motion(painted, clip.frames, clip.masks)
    if lpips is not None:
        row["lpips"] = whole(lpips, painted)
    if detector is not None:
        looked_at = np.unique(np.linspace(0, len(painted) - 1, LOOKED_AT).round().astype(int))
        poses = [_seen(clip.poses[int(t)]) for t in looked_at]
        for name, frames in (("pck", painted), ("pck_truth", clip.frames)):
            found = zip(frames[looked_at], poses, strict=True)
            row[name] = mean(pck(frame, pose, pose.scores > 0, detector) for frame, pose in found)
    return row


def _seen(pose: Pose) -> Pose:
    """Without a detector's guesses, which would also widen what counts as near."""
    return replace(pose, scores=np.where(pose.scores >= SURE, pose.scores, np.float32(0)))


def _seed(seed: int, clip: str) -> int:
    """Of a clip's noise: the same whichever other clips can be used."""
    return int(np.random.SeedSequence([seed, *os.fsencode(clip)]).generate_state(1)[0])


def _reconstructed(pipe: Any, frames: Frames) -> Iterator[Picture]:
    for start in range(0, len(frames), AT_ONCE):
        yield from reconstruct(pipe, list(frames[start : start + AT_ONCE]))


# ---- all of them ----

MEASURES = (
    "psnr", "ssim", "l1", "lpips", "person_psnr", "detail", "pck", "pck_truth", "jitter", "motion",
    "psnr_copy", "psnr_vae", "person_psnr_copy", "person_psnr_vae",
)  # fmt: skip


def evaluate_held_out(
    pipe: Any, shots: Sequence[Shot], stride: int = 1, most: int | None = None, seed: int = 0,
    out: Path | None = None, force: bool = False, detector: Any = None, lpips: Measure | None = None,
    distribution: Distribution | None = None, video: VideoDistance | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The means over the clips that could be read, None without a measure.

    Painted and true frames go to `out`/painted and `out`/truth, a folder of PNG for each clip, without
    padding. The noise of a clip depends on the seed and its name only. A clip that cannot be read is a line
    in the log. Raises UserError when none can.
    """
    rows: list[dict[str, float]] = []
    frames = 0
    names = [""] * len(shots) if out is None else names_of(shots)
    for number, (shot, name) in enumerate(zip(shots, names, strict=True)):
        if progress is not None and number:
            progress(1)
        try:
            case = read_clip(shot, stride, most)
        except UserError as error:
            log.warning("left out: %s", error)
            continue
        clip = case.clip
        reference = pipe.encode_reference(clip.reference, clip.reference_pose)
        painted = np.stack(list(paint_frames(pipe, reference, clip.poses, _seed(seed, shot.clip))))
        rows.append(measure(pipe, case, painted, detector, lpips))
        frames += len(painted)
        for real, pictures in ((False, painted), (True, clip.frames)):
            shown = np.stack([case.shown(picture) for picture in pictures])
            if out is not None:
                folder = out / ("truth" if real else "painted") / name
                write_clip(folder, iter(shown), clip.poses.fps, force=force)
            if distribution is not None:
                for picture in shown:
                    distribution.add(picture, real)
            if video is not None:
                video.add(shown, real)
    if not rows:
        raise UserError(f"none of {len(shots)} clips could be read; the lines above say why")
    values = {name: [row[name] for row in rows if name in row] for name in MEASURES}
    return {
        **{name: mean(found) if found else None for name, found in values.items()},
        **(dict.fromkeys(("fid", "kid")) if distribution is None else distribution.numbers()),
        **(dict.fromkeys(("fvd", "num_windows")) if video is None else video.numbers()),
        "num_clips": len(rows), "num_frames": frames, "num_broken": len(shots) - len(rows),
    }  # fmt: skip
