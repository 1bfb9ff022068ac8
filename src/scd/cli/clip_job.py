"""What one `scd animate` of a clip will do: what drives it, what `--like` recorded, what the record keeps."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from scd import media
from scd.animate import Drive
from scd.cli.job import (
    CLIP_KIND,
    Person,
    chosen,
    first_pose,
    identity_of,
    is_pose_file,
    merged_model,
    parse_canvas,
    reading_record,
    require_same_shape,
    unchanged,
    unchanged_garments,
)
from scd.cli.models import settings_of
from scd.cli.options import Animate
from scd.media.files import PICTURES, RATE_FILE, VIDEOS
from scd.media.timing import Timing, exact_rate, on_grid, part_of
from scd.pose import detect
from scd.pose.files import read_poses
from scd.pose.track import Seen
from scd.types import Pose, UserError

VIDEO, STILLS = (".mp4", ".m4v", ".mov"), (".png", ".jpg", ".jpeg")
MOVES, EITHER = (*VIDEO, ".gif"), (".webp", "")  # a clip for sure; a picture or a clip, a file or a folder
WRITTEN = (*MOVES, *EITHER)  # endings of a clip's name; none = a folder of PNG
WRITTEN_IN_WORDS = ".mp4, .mov, .gif, .webp, or is a folder's"
ANIMATIONS = (".gif", ".webp", ".apng")
POSE_FPS = 30.0  # of a pose file that does not say its rate
# The options beside files and model that decide what a clip shows and sounds like
REPEATED = (
    "person", "detector", "canvas", "start", "end", "fps", "max_frames", "face", "proportions", "no_smooth",
    "mute",
)  # fmt: skip


# ---- which inputs are clips ----


def drives_a_clip(options: Animate) -> bool:
    """Whether the poses are a clip: one DRIVING that moves, or a pose file that is to become a video."""
    if len(options.poses) > 1 and (
        any(map(is_clip, options.poses)) or (options.out and options.out.suffix.lower() in MOVES)
    ):
        raise UserError(
            f"{len(options.poses)} POSEs make pictures; for a clip give one video, or a folder of its frames"
        )
    if len(options.poses) != 1:
        return False
    path, out = options.poses[0], options.out
    ending = None if out is None else out.suffix.lower()
    if path.is_dir() and not is_frame_folder(path) and not any(path.glob("*.json")):
        raise UserError(f"{path} holds neither pictures nor .json pose files: name the folder they are in")
    if is_pose_file(path) and not is_frame_folder(path):
        if options.preview_pose is not None or options.compare is not None or ending in MOVES:
            return True
        if out is None or ending not in EITHER:
            return False
        if out.is_dir() and not (out / RATE_FILE).is_file():
            return False  # pictures are put into it
        return len(read_poses(path, parse_canvas(options.canvas)).frames) > 1
    if path.suffix.lower() in ANIMATIONS and ending in (*STILLS, *MOVES):
        return ending in MOVES  # of a single frame too; a still shows the first frame's pose
    clip = is_clip(path)
    if not clip and ending in MOVES:
        if not path.exists():
            raise UserError(f"{path} does not exist: check the name")
        raise UserError(f"{path} is no video, folder of frames or pose file, and {out} is a clip")
    return clip


def is_clip(path: Path) -> bool:
    """A video, an animation that moves (a PNG can), or a folder of frames."""
    if path.suffix.lower() == ".png":
        return _png_moves(path)
    if path.suffix.lower() in ANIMATIONS:
        try:
            return media.open_clip(path).num_frames > 1
        except UserError:
            return False  # who reads it as a picture says what is wrong
    return path.suffix.lower() in VIDEOS or is_frame_folder(path)


def _png_moves(path: Path) -> bool:
    """By the chunk that an animation has before its first picture: opening every still would be slow."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return b"acTL" in file.read(1 << 16).split(b"IDAT")[0]
    return False  # who reads it as a picture says what is wrong


def is_frame_folder(path: Path) -> bool:
    """Pictures in a folder, and no pose files beside them: one .json for two pictures is something else."""
    if not path.is_dir() or (path / RATE_FILE).is_file():
        return path.is_dir()
    num_pictures = sum(p.suffix.lower() in PICTURES for p in path.iterdir())
    return num_pictures > 2 * len(list(path.glob("*.json")))


# ---- the record ----


def repeated(options: Animate, record: Mapping[str, Any]) -> Animate:
    """The options with what they do not say taken from the record. Raises UserError for inputs that are gone
    or have changed, and for a record with parts missing."""
    like = options.like
    first = options.reference
    if first is not None and not options.poses and (is_clip(first) or is_pose_file(first)):
        raise UserError(f"{first}: the first name is the REFERENCE; name it too, before another driver")
    with reading_record(like, "animate"):
        inputs, settings = record["inputs"], record["options"]
        unsaid = [n for n in REPEATED if getattr(options, n) is None or getattr(options, n) is False]
        filled = {name: settings[name] for name in unsaid}
        if options.reference is None:
            first, *more = (unchanged(one, like, identity) for one in inputs["references"])
            filled |= {"reference": first, "more": options.more or tuple(more)}
            if options.reference_pose is None and inputs["reference_pose"]:
                filled["reference_pose"] = unchanged(inputs["reference_pose"], like)
        if not options.garment:
            filled["garment"] = tuple(unchanged_garments(inputs, like))
        if not options.poses:
            filled["poses"] = (unchanged(inputs["driving"], like, identity),)
        return replace(options, **filled, model=merged_model(options.model, record, like))


def settled(options: Animate) -> Animate:
    """The options with what nobody said at its default: what a record keeps is said. Raises UserError for a
    canvas that is none, needed or not."""
    parse_canvas(options.canvas)
    return replace(
        options, person=options.person or "largest", detector=options.detector or "mediapipe",
        face=options.face or "full", proportions=options.proportions or "reference",
    )  # fmt: skip


def record_of(options: Animate, pipe: Any, model: dict[str, Any], drive: Drive) -> dict[str, Any]:
    """All that `--like` needs to paint the same clip again. Paths stay as they were given."""
    given = options.reference_pose
    return {
        "kind": CLIP_KIND,
        "inputs": {
            "references": [identity(path) for path in references(options)],
            "reference_pose": None if given is None else identity(given),
            "driving": identity(options.poses[0]),
            "garments": [identity_of(path) for path in options.garment],
        },
        "options": {name: getattr(options, name) for name in REPEATED},
        **settings_of(pipe, options.model, model),
        "frames": len(drive.retargeted), "fps": drive.retargeted.fps, "alignment": drive.alignment.score,
        "poses": poses_hash(drive),
    }  # fmt: skip


def poses_hash(drive: Drive) -> str:
    """SHA-256, in hex, of the poses that are painted: another detector finds others in the same clip."""
    poses = drive.retargeted
    return hashlib.sha256(poses.joints.tobytes() + poses.scores.tobytes()).hexdigest()


def identity(path: Path) -> dict[str, str]:
    """A file's path and hash; a folder of frames counts by its frames."""
    if is_frame_folder(path):
        return {"path": str(path), "sha256": media.content_hash(path)}
    return identity_of(path)


# ---- the inputs ----


def references(options: Animate) -> list[Path]:
    if options.reference is None:
        raise UserError("give a REFERENCE, a picture of a person: scd animate REFERENCE DRIVING")
    return [options.reference, *options.more]


@dataclass(frozen=True)
class Source:
    """The driving clip: read from a medium, or a pose file."""

    path: Path
    rate: Fraction | float  # frames per second
    clip: media.ClipReader | None
    seen: list[Seen] | None  # of a pose file
    start: float  # of the first frame that drives, in seconds from the driver's own first one

    @property
    def sound(self) -> Path | None:
        return self.path if self.clip is not None and self.clip.has_audio else None


def open_driving(options: Animate, person: Person) -> Source:
    """What drives, or the part of it that was asked for. Raises UserError."""
    (driving,) = options.poses
    if not is_pose_file(driving) or is_frame_folder(driving):
        clip = media.open_clip(driving, options.start, options.end, options.fps, options.max_frames)
        return Source(driving, clip.rate, clip, None, clip.start)
    file = read_poses(driving, parse_canvas(options.canvas))
    if not file.frames:
        raise UserError(f"{driving} holds no frames: give a pose file with one at least")
    # A file that does not say its rate has the one that is asked for
    rate = exact_rate(file.fps or POSE_FPS if options.fps is None else options.fps)
    own = exact_rate(file.fps) if file.fps else rate
    length = float(len(file.frames) / own)
    start, num = part_of(driving, length, rate, options.start, options.end, options.max_frames)
    times = [number / float(own) for number in range(len(file.frames))]
    timing = Timing(times, length, own)
    everywhere = chosen(driving, person, file.frames)  # decided once, whatever part of the file drives
    # As of the video that it may have been found in
    poses = [
        everywhere[t] for t in on_grid(zip(times, range(len(times)), strict=True), timing, start, rate, num)
    ]
    if not any(poses):
        whom = "anybody" if person == "largest" else f"person {person}"
        raise UserError(f"{driving}: none of its {len(poses)} frames shows {whom}")
    return Source(driving, rate, None, [Seen(pose) for pose in poses], start)


def reference_poses(options: Animate, images: list[Any], detector: str) -> list[Pose]:
    """The poses of the reference pictures; a pose file may give the first's. Raises UserError."""
    poses: list[Pose] = []
    if options.reference_pose is not None:
        # --person is the driver's
        poses = [first_pose(options.reference_pose, "largest", parse_canvas(options.canvas))]
        require_same_shape(poses[0], images[0], references(options)[0])
    for image, path in list(zip(images, references(options), strict=True))[len(poses) :]:
        advice = "--reference-pose FILE, or the picture cropped, chooses another"  # --person is the driver's
        poses.append(
            detect.detect_one(image, "largest", str(path), detect.get_detector(detector), advice=advice)
        )
    return poses
