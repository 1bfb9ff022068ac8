"""`scd animate PHOTO DRIVING.mp4`: one person through a whole clip, with the driving clip's rate, length and
sound."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scd import __version__, media
from scd.animate import Drive, make_drive, num_steps, paint_frames, placed
from scd.cli.animate import note_drawn_people
from scd.cli.job import (
    ENDINGS,
    frames_of,
    identity_of,
    is_pose_file,
    parse_canvas,
    parse_person,
    place_of,
    require_apart,
    require_free,
)
from scd.cli.models import identity, load_pipeline
from scd.cli.options import Animate
from scd.cli.terminal import progress
from scd.media.files import VIDEOS
from scd.media.picture import settings_beside
from scd.media.placement import border_colour
from scd.pose import detect
from scd.pose.draw import draw_pose
from scd.pose.files import read_poses
from scd.pose.find import find_poses
from scd.pose.preview import preview_frames
from scd.pose.track import Seen
from scd.types import Pose, UserError

log = logging.getLogger("scd")
KIND = "animate-clip"  # of a record
WRITTEN = (".mp4", ".m4v", ".mov", ".gif", ".webp", "")  # endings of a clip's name; none = a folder of PNG
ANIMATIONS = (".gif", ".webp", ".apng")
POSE_FPS = 30.0  # of a pose file that does not say its rate


def drives_a_clip(options: Animate) -> bool:
    """Whether the poses are a clip: one DRIVING that moves, or a pose file that is to become a video."""
    if len(options.poses) != 1:
        return False
    path = options.poses[0]
    if is_pose_file(path) and not _is_frame_folder(path):
        out = options.out
        return options.preview_pose is not None or (out is not None and out.suffix.lower() in WRITTEN[:4])
    if path.suffix.lower() in ANIMATIONS:
        still = options.out is not None and options.out.suffix.lower() in ENDINGS[:3]
        return not still and _moves(path)
    return path.suffix.lower() in VIDEOS or _is_frame_folder(path)


def _is_frame_folder(path: Path) -> bool:
    if not path.is_dir() or (path / "clip.json").is_file():
        return path.is_dir()
    return not any(path.glob("*.json")) and any(p.suffix.lower() in ENDINGS for p in path.iterdir())


def _moves(path: Path) -> bool:
    try:
        return media.open_clip(path).num_frames > 1
    except UserError:
        return False  # the picture path says what is wrong


@dataclass(frozen=True)
class _Source:
    """The driving clip: read from a medium, or a pose file."""

    path: Path
    fps: float
    clip: media.ClipReader | None
    seen: list[Seen] | None  # of a pose file


def animate_clip(options: Animate) -> None:
    """Run the verb for a clip. Raises UserError."""
    (driving,) = options.poses
    if options.reference is None:
        raise UserError("give a REFERENCE, a picture of a person: scd animate REFERENCE DRIVING")
    preview = options.preview_pose
    out = options.out or Path("out") / f"{options.reference.stem}_{driving.stem}.mp4"
    if out.suffix.lower() not in WRITTEN:
        raise UserError(f"{out}: a clip's name ends in .mp4, .mov, .gif, .webp, or is a folder's")
    record_path = settings_beside(out)
    sheet = out.with_name(f"{out.stem}-sheet.png") if options.sheet else None
    results = [preview] if preview else [out, record_path, *([sheet] if sheet else [])]
    references = [options.reference, *options.more]
    require_apart(results, [*references, driving])
    require_free(results, options.force)

    person = parse_person(options.person or "largest")
    images = [media.read_image(path) for path in references]
    detector = options.detector or "mediapipe"
    reference_poses = _reference_poses(options, images, detector)
    source = _open(options, driving, person)
    seen = source.seen
    if seen is None:
        assert source.clip is not None
        with progress("finding poses", source.clip.num_frames) as advance:
            seen = find_poses(source.clip, detector, person, advance)
    drive = make_drive(
        seen, source.fps, reference_poses[0], not options.no_smooth, options.proportions, options.face,
        str(driving),
    )  # fmt: skip
    if preview is not None:
        _write_preview(preview, images[0], reference_poses[0], source, drive, options.force)
        print(preview)
        return

    pipe = load_pipeline(options.model)
    note_drawn_people(pipe, options.reference)
    size = pipe.config.default_size
    fitted = [media.fit(image, (size, size), fill=border_colour(image)) for image in images]
    reference = pipe.encode_reference(
        [frame for frame, _ in fitted],
        [place.apply_to_pose(pose) for (_, place), pose in zip(fitted, reference_poses, strict=True)],
    )
    as_reference = options.proportions == "reference"
    place = fitted[0][1] if as_reference else media.place(drive.driving.size, (size, size))
    poses = placed(drive.retargeted, place)
    seed = options.model.seed or 0
    record = {
        "kind": KIND, "version": __version__, "reference": [identity_of(path) for path in references],
        "driving": identity_of(driving), "options": _told(options), "model": identity(pipe, options.model),
        "steps": pipe.config.default_steps, "guidance": pipe.config.default_guidance, "seed": seed,
        "size": size, "frames": len(poses), "fps": source.fps, "alignment": drive.alignment.score,
    }  # fmt: skip
    work = out.with_name(out.name + ".work")
    kept: dict[int, Any] = {}
    wanted = set(np.linspace(0, len(poses) - 1, min(6, len(poses))).astype(int).tolist())

    def frames(advance: Any) -> Iterator[Any]:
        for number, frame in enumerate(paint_frames(pipe, reference, poses, seed, work, advance)):
            left, top, right, bottom = place.target
            if number in wanted:
                kept[number] = frame[top:bottom, left:right]
            yield np.ascontiguousarray(frame[top:bottom, left:right])

    sound = driving if source.clip is not None and source.clip.has_audio and not options.mute else None
    start = source.clip.start if source.clip is not None else 0.0
    with progress("painting", num_steps(pipe, len(poses))) as advance:
        rate = source.clip.rate if source.clip is not None else source.fps
        written = media.write_clip(out, frames(advance), rate, sound, start, record, options.force)
    shutil.rmtree(work, ignore_errors=True)
    print(f"{out}: {written} frames, {written / source.fps:.2f} s")
    if sheet is not None:
        left, top, right, bottom = place.target
        drawn = {n: draw_pose(poses[n], (size, size))[top:bottom, left:right] for n in kept}
        shown = fitted[0][0][top:bottom, left:right] if as_reference else fitted[0][0]
        rows = [[shown, *drawn.values()], [shown, *kept.values()]]
        media.write_image(sheet, media.contact_sheet(rows, ["reference", *[f"frame {n}" for n in kept]]),
                          record, options.force)  # fmt: skip
        print(sheet)


def _reference_poses(options: Animate, images: list[Any], detector: str) -> list[Pose]:
    """The poses of the reference pictures; a pose file may give the first's."""
    given = options.reference_pose
    person, canvas = parse_person(options.person or "largest"), parse_canvas(options.canvas)
    poses = [] if given is None else frames_of(given, person, canvas)[:1]
    names = [str(path) for path in (options.reference, *options.more)]
    with progress("finding poses", None):
        for image, name in list(zip(images, names, strict=True))[len(poses) :]:
            poses.append(detect.detect_one(image, "largest", name, detect.get_detector(detector)))
    return poses


def _open(options: Animate, driving: Path, person: Any) -> _Source:
    if is_pose_file(driving) and not _is_frame_folder(driving):
        file = read_poses(driving, parse_canvas(options.canvas))
        place, fps = place_of(person, file.frames), options.fps or file.fps or POSE_FPS
        first = round((options.start or 0) * fps)
        last = len(file.frames) if options.end is None else round(options.end * fps)
        frames = file.frames[first:last][: options.max_frames]
        if not any(place < len(frame) for frame in frames):
            raise UserError(f"{driving}: person {place + 1} is in none of its {len(frames)} frames")
        shown = [frame[place] if place < len(frame) else None for frame in frames]
        return _Source(driving, fps, None, [Seen(p if p and p.scores.any() else None) for p in shown])
    clip = media.open_clip(driving, options.start, options.end, options.fps, options.max_frames)
    return _Source(driving, clip.fps, clip, None)


def _write_preview(
    path: Path, image: Any, pose: Pose, source: _Source, drive: Drive, force: bool
) -> None:
    """Reference, driving skeleton and retargeted skeleton side by side."""
    frames = source.clip
    if frames is None:
        height, width = drive.driving.size
        frames = (np.zeros((height, width, 3), np.uint8) for _ in range(len(drive.driving)))
    shown = preview_frames(
        image, pose, frames, drive.seen, drive.driving, drive.retargeted, drive.filled
    )
    with progress("writing the preview", None):
        media.write_clip(path, shown, source.fps, force=force)


def _told(options: Animate) -> dict[str, Any]:
    """What was asked for, as JSON."""
    return json.loads(json.dumps(asdict(replace(options, poses=())), default=str))
