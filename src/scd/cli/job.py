"""What one `scd animate` will do, settled before the work begins: inputs, names, what `--like` recorded."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scd import media
from scd.cli.options import Animate, ModelOptions
from scd.media.files import exists_already, require_replaceable_folder
from scd.media.picture import settings_beside
from scd.pose.files import read_poses
from scd.pose.skeleton import pose_scale
from scd.pose.track import follow
from scd.types import Person, Pose, UserError

KIND, CLIP_KIND = "animate", "animate-clip"  # of a record; `scd world` writes "world"
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
LONGEST_NAME = 220  # bytes; disks take 255, and what is written first has a longer name


@dataclass(frozen=True)
class Job:
    """Everything an `animate` needs, with nothing left to be refused but what a network would say."""

    reference: Path
    reference_pose: list[Pose] | None  # one pose, when a file gives it
    poses: list[
        tuple[Path, list[Pose] | None]
    ]  # each POSE with the frames of a pose file, None for a picture
    garments: list[Path]
    num: int  # pictures of each pose
    person: Person
    canvas: str | None
    detector: str
    names: list[Path]  # of all pictures, pose by pose
    record: Path
    sheet: Path | None
    force: bool
    model: ModelOptions
    inputs: dict[str, Any]  # paths and hashes, for the record
    expected: dict[str, Any] | None  # the model that `--like` recorded, when it is to be the same


def plan(options: Animate) -> Job:
    """Settle the job. Raises UserError for missing or changed inputs, and for results that exist."""
    like = options.like
    old = {} if like is None else read_record(like)
    with reading_record(like, "animate"):
        return _plan(options, old)


def _plan(options: Animate, old: dict[str, Any]) -> Job:
    inputs = old.get("inputs") or {}
    reference, paths, reference_pose = options.reference, list(options.poses), options.reference_pose
    if reference is None and old:
        reference = unchanged(inputs["reference"], options.like)
        if reference_pose is None and inputs["reference_pose"]:
            reference_pose = unchanged(inputs["reference_pose"], options.like)
    if not paths and old:
        paths = [unchanged(pose, options.like) for pose in inputs["poses"]]
    garments = list(options.garment) or unchanged_garments(inputs, options.like)
    if not paths and len(garments) > 1:
        raise UserError(
            f"--garment takes all that follows it, {garments[-1]} too; name the pictures first: "
            "scd animate REFERENCE POSE --garment GARMENT"
        )
    if reference is None or not paths:
        raise UserError("give a REFERENCE and a POSE, both pictures of people: scd animate REFERENCE POSE")

    person = parse_person(first_said(options.person, old.get("person"), "largest"))
    num = first_said(options.num, old.get("num"), 1)
    if num < 1:
        raise UserError(f"-n {num}: paint one picture of each pose at least")
    canvas = options.canvas or old.get("canvas")
    size = parse_canvas(canvas)
    poses = [(path, frames_of(path, person, size, True) if is_pose_file(path) else None) for path in paths]
    total = num * sum(1 if frames is None else len(frames) for _, frames in poses)

    out = picture_name(options.out, f"{reference.stem}_{paths[0].stem}.png")
    names = [out] if total == 1 else [numbered(out, i + 1, total) for i in range(total)]
    record = out.with_suffix(".json")
    sheet = out.with_name(f"{out.stem}-sheet.png") if options.sheet else None
    results = [*with_settings(names), record, *([sheet] if sheet else [])]
    require_apart(results, [reference, *paths, *garments, *([reference_pose] if reference_pose else [])])
    require_free(results, options.force)
    return Job(
        reference=reference,
        reference_pose=[first_pose(reference_pose, person, size)] if reference_pose else None,
        poses=poses,
        garments=garments,
        num=num,
        person=person,
        canvas=canvas,
        detector=first_said(options.detector, old.get("detector"), "mediapipe"),
        names=names,
        record=record,
        sheet=sheet,
        force=options.force,
        model=merged_model(options.model, old, options.like),
        inputs={
            "reference": identity_of(reference),
            "reference_pose": identity_of(reference_pose) if reference_pose else None,
            "poses": [identity_of(path) for path in paths],
            "garments": [identity_of(path) for path in garments],
        },
        expected=None if not old or options.model.other else old["model"],
    )


def merged_model(given: ModelOptions, old: Mapping[str, Any], like: Path | None) -> ModelOptions:
    """Options that were given win over recorded ones; "auto" counts as not given. Recorded LoRAs belong to
    the recorded model. Raises UserError for one that is gone or has changed."""
    if not old:
        return given
    recorded = {"scheduler": None, **old, "model": old["model"]["path"], "lora": given.lora}
    if not given.other:
        loras = old.get("lora", ())  # older records name none
        recorded["lora"] = tuple(f"{unchanged(one, like)}:{one['weight']}" for one in loras)
    unsaid = {f.name: recorded[f.name] for f in fields(given) if getattr(given, f.name) in (None, "auto", ())}
    return replace(given, **unsaid)


def first_said(*values: Any) -> Any:
    return next(value for value in values if value is not None)


# ---- inputs ----


def is_pose_file(path: Path) -> bool:
    """By its name; a folder holds one JSON a frame."""
    return path.is_dir() or path.suffix.lower() in (".npz", ".json")


def frames_of(path: Path, person: Person, canvas: tuple[int, int] | None, alone: bool = False) -> list[Pose]:
    """The chosen person in all frames of a pose file; `alone`: of a single person no number is asked. Raises
    UserError when a frame does not show them."""
    frames = read_poses(path, canvas).frames
    poses = chosen(path, _asked(person, frames, alone), frames)
    for number, (pose, frame) in enumerate(zip(poses, frames, strict=True), 1):
        if not any(one.scores.any() for one in frame):
            raise UserError(f"{path}: frame {number} of {len(frames)} shows nobody")
        if pose is None:
            which = f"frame {number} of {len(frames)}"
            raise UserError(f"{path}: {which} does not show {_whom(person)}: choose another --person")
    return [pose for pose in poses if pose is not None]


def first_pose(path: Path, person: Person, canvas: tuple[int, int] | None) -> Pose:
    """The chosen person in a pose file's first frame; the others are not asked. Raises UserError."""
    frame = read_poses(path, canvas).frames[:1]
    if not any(pose.scores.any() for people in frame for pose in people):
        raise UserError(f"{path}: its first frame shows nobody")
    (pose,) = chosen(path, _asked(person, frame, True), frame)
    if pose is None:
        raise UserError(f"{path}: its first frame does not show {_whom(person)}: choose another --person")
    return pose


def _whom(person: Person) -> str:
    return "who was chosen" if person == "largest" else f"person {person}"


def _asked(person: Person, frames: Sequence[Sequence[Pose]], alone: bool) -> Person:
    """Where nobody else is in a file, a number means nothing."""
    return "largest" if alone and max(map(len, frames), default=0) == 1 else person


def chosen(path: Path, person: Person, frames: Sequence[Sequence[Pose]]) -> list[Pose | None]:
    """The chosen person in each frame of a pose file; None = not shown.

    In our own .npz the same place is the same person, the number is that place, and "largest" is decided once
    for the whole file. Other tools' JSON lists whom they find in any order: there a person is followed.
    """
    if path.suffix.lower() != ".npz" and max(map(len, frames), default=0) > 1:
        return follow(frames, person, str(path))
    if person == "largest":
        places = range(max(map(len, frames), default=0))
        sizes = [sum(pose_scale(frame[p]) for frame in frames if p < len(frame)) for p in places]
        person = 1 + max(places, key=sizes.__getitem__, default=0)
    of_place = [frame[person - 1] if person <= len(frame) else None for frame in frames]
    return [pose if pose is not None and pose.scores.any() else None for pose in of_place]


def is_of_shape(pose: Pose, image: NDArray[np.uint8]) -> bool:
    """Whether a pose's picture has the image's aspect ratio, to two percent: large ones are read smaller."""
    (height, width), (rows, columns) = pose.size, image.shape[:2]
    return abs(height * columns / (width * rows) - 1) < 0.02


def require_same_shape(pose: Pose, image: NDArray[np.uint8], path: Path) -> None:
    """UserError for a reference's pose that is of a picture of another aspect ratio."""
    height, width = pose.size
    if not is_of_shape(pose, image):
        raise UserError(
            f"--reference-pose is of a picture of {width}x{height} pixels, "
            f"{path} has {image.shape[1]}x{image.shape[0]}"
        )


def parse_person(text: str | int) -> Person:
    if text == "largest":
        return "largest"
    if str(text).isdecimal() and int(text) >= 1:
        return int(text)
    raise UserError(f'--person {text}: say "largest", or a number from 1 on, counted from left to right')


def parse_canvas(text: str | None) -> tuple[int, int] | None:
    """ "1280x720", as people say sizes -> (height, width)."""
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UserError(f"--canvas {text}: write WIDTHxHEIGHT in pixels, as in 1280x720")
    return int(height), int(width)


def identity_of(path: Path) -> dict[str, str]:
    return {"path": str(path), "sha256": _hash(path)}


def _hash(path: Path) -> str:
    if not path.is_dir():
        return media.file_hash(path)
    parts = [f"{file.name} {media.file_hash(file)}\n" for file in sorted(path.glob("*.json"))]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def unchanged(
    identity: dict[str, str], like: Path | None, identify: Callable[[Path], dict[str, str]] = identity_of
) -> Path:
    """The input that a record names. UserError when it is gone or is another file now."""
    path = Path(identity["path"])
    if not path.exists():
        raise UserError(
            f"{path}, which {like} was made from, is not here: "
            "start from the same folder, or name it as an argument"
        )
    if identify(path)["sha256"] != identity["sha256"]:
        raise UserError(
            f"{path} has changed since {like} was made: "
            "bring the old file back, or name it as an argument to use it as it is"
        )
    return path


def unchanged_garments(inputs: Mapping[str, Any], like: Path | None) -> list[Path]:
    """The garments that a record names; older ones name none."""
    return [unchanged(garment, like) for garment in inputs.get("garments", ())]


def read_record(
    path: Path, kinds: Sequence[str] = (KIND, CLIP_KIND), verb: str = "animate"
) -> dict[str, Any]:
    """What an earlier `scd animate` (or another verb) recorded, of pictures (KIND) or of a clip (CLIP_KIND):
    from its OUT.json, or from the picture or the clip itself. A clip's record has the clip's whole name,
    OUT.mp4.json; OUT.json is understood where it can mean nothing else. Raises UserError."""
    beside = [] if path.exists() else sorted(path.parent.glob(f"{glob.escape(path.stem)}.*.json"))
    if path.suffix.lower() == ".json" and len(beside) == 1:
        path = beside[0]
    if path.suffix.lower() == ".json":
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{path} does not exist: name the OUT.json, or the picture, of an earlier `scd {verb}`"
            ) from None
        except ValueError as error:
            raise UserError(f"{path}: is no record of `scd {verb}` ({error})") from None
    else:
        record = media.read_settings(path)
    if not isinstance(record, dict) or record.get("kind") not in kinds:
        raise UserError(
            f"{path}: is no record of `scd {verb}`; name the OUT.json, or the picture, that it wrote"
        )
    return record


def write_record(path: Path, record: Mapping[str, Any], force: bool) -> None:
    with media.replacing(path, force) as temporary:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def reading_record(like: Path | None, verb: str) -> Iterator[None]:
    """Inside, what a record lacks, or holds in another shape, becomes a UserError."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if like is None:
            raise
        raise UserError(f"{like}: is no complete record of `scd {verb}` ({error!r})") from error


# ---- names ----


def picture_name(given: Path | None, default: str) -> Path:
    if given is None:
        given = Path("out") / default
    elif given.is_dir():
        given = given / default
    if given.suffix.lower() not in ENDINGS:
        raise UserError(f"{given}: a picture's name ends in {', '.join(ENDINGS)}")
    return given


def numbered(out: Path, number: int, total: int) -> Path:
    return out.with_name(f"{out.stem}-{number:0{max(2, len(str(total)))}d}{out.suffix}")


def with_settings(pictures: Sequence[Path]) -> list[Path]:
    """The names, and those of the files that carry the settings of what is no PNG: x.jpg.json."""
    lossy = [path for path in pictures if path.suffix.lower() in ENDINGS[1:]]
    return [*pictures, *map(settings_beside, lossy)]


def require_apart(results: Sequence[Path], inputs: Sequence[Path]) -> None:
    """`--force` replaces old results, and never what this very command reads."""
    read = {path.resolve() for path in inputs}
    for path in results:
        if path.resolve() in read:
            raise UserError(f"{path} is an input of this command and would be replaced: choose another name")


def require_free(paths: Sequence[Path], force: bool) -> None:
    """UserError, before any work, for a result that exists (without `force`) or cannot be written."""
    for path in paths:
        if not path.suffix:  # a clip's folder of frames
            require_replaceable_folder(path, force)
        elif path.is_dir():
            raise UserError(f"{path} is a folder: name a file in it")
        elif path.exists() and not force:
            raise exists_already(path)
        if len(os.fsencode(path.name)) > LONGEST_NAME:
            raise UserError(f"{path}: its name is too long for most disks: choose a shorter one")
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if not above.is_dir():
            raise UserError(f"{path} cannot be written: {above} is a file, not a folder")
        if not os.access(above, os.W_OK):
            raise UserError(f"{path} cannot be written: {above} may not be written to")
