"""Poses in files: our own npz, and the JSON of OpenPose, ControlNet's preprocessors, ComfyUI and DWPose."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from scd.media.files import natural_order, replacing
from scd.types import (
    BODY,
    FACE,
    LEFT_HAND,
    NUM_BODY,
    NUM_FACE,
    NUM_HAND,
    NUM_JOINTS,
    RIGHT_HAND,
    Pose,
    UserError,
)

FORMAT = "scd-pose-1"
FARTHEST = 100  # widths and heights of the picture: a joint beyond is no joint
LARGEST = 65535  # pixels a side, as JPEG's
CENTRED = 0.1  # of the joints to the left of the picture, and above it: 0 is its middle

# OpenPose's 25 body points without the middle of the hips and the feet are the 18 of its older model, in the
# same order.
BODY_25_TO_18 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)

# The parts of one person in OpenPose JSON: our joints, and for each accepted number of points the ones we
# take.
_JSON_PARTS: dict[str, tuple[slice, dict[int, Sequence[int]]]] = {
    "pose_keypoints_2d": (BODY, {18: range(18), 25: BODY_25_TO_18}),
    "face_keypoints_2d": (FACE, {68: range(68), 70: range(68)}),  # 68 and 69 are the pupils
    "hand_left_keypoints_2d": (LEFT_HAND, {21: range(21)}),
    "hand_right_keypoints_2d": (RIGHT_HAND, {21: range(21)}),
}

_Points = NDArray[np.float32]  # (128, 3): x, y, score; of many people (..., 128, 3)


@dataclass(frozen=True)
class PoseFile:
    """The poses of a clip, or of one picture (one frame)."""

    frames: list[list[Pose]]  # T frames with the people in each; an .npz has them in the same places
    size: tuple[int, int]  # (height, width) of the pictures in pixels
    fps: float = 0.0  # frames per second; 0 = the file does not say


def write_poses(
    path: str | Path,
    frames: Sequence[Sequence[Pose]],
    fps: float = 0.0,
    size: tuple[int, int] | None = None,
    force: bool = False,
) -> None:
    """Write T frames of poses as npz: joints (T, P, 128, 2), scores (T, P, 128), size (2,), fps, format.

    P is the largest number of people in a frame. `size` (height, width) is only needed when no frame shows
    anyone. UserError when the name does not end in .npz, the file exists and `force` is not given, or it
    cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise UserError(f"{path}: poses are written as .npz, choose a name that ends so")
    sizes = {pose.size for frame in frames for pose in frame} | ({size} if size else set())
    if len(sizes) != 1:
        raise ValueError(f"the frames of one pose file share one size, not {sorted(sizes)}")
    num_people = max((len(frame) for frame in frames), default=0)
    joints = np.zeros((len(frames), num_people, NUM_JOINTS, 2), np.float32)
    scores = np.zeros((len(frames), num_people, NUM_JOINTS), np.float32)
    for t, frame in enumerate(frames):
        for p, pose in enumerate(frame):
            joints[t, p], scores[t, p] = pose.joints, pose.scores
    with replacing(path, force) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            joints=joints,
            scores=scores,
            size=np.array(sizes.pop()),
            fps=np.array(fps),
            format=np.array(FORMAT),
        )


def read_poses(path: str | Path, size: tuple[int, int] | None = None) -> PoseFile:
    """Read a pose file, or a folder of JSON files with one frame each, in the order of the numbers in their
    names.

    `size` (height, width) is the picture's, for JSON that does not say it. A frame's last people drop out
    where all their joints are absent; absent people before others stay, so that a place in the list stays one
    person. UserError, in one line, when the file is missing, cut off, no pose file, of wrong shapes, not
    finite, or when the size is not known.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.json"), key=natural_order)
        if not files:
            raise UserError(f"{path} holds no .json pose files: name a pose file or the folder they are in")
        parts = [read_poses(file, size) for file in files]
        for file, part in zip(files, parts, strict=True):
            if part.size != parts[0].size:
                _wrong(file, f"its picture is {part.size} (height, width), the first one's {parts[0].size}")
        return PoseFile([frame for part in parts for frame in part.frames], parts[0].size)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check the name of the pose file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return _from_npz(path, data) if data.startswith(b"PK") else _from_json(path, data, size)


def _wrong(path: Path, what: str) -> NoReturn:
    raise UserError(f"{path} is not a usable pose file: {what}")


def _from_npz(path: Path, data: bytes) -> PoseFile:
    try:
        with np.load(BytesIO(data), allow_pickle=False) as archive:
            content = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError):
        _wrong(path, "it is cut off or damaged; copy or make it again")
    if "format" not in content or not {"joints", "scores", "size", "fps"} <= content.keys():
        _wrong(path, "it lacks joints, scores, size, fps or format; make it with `scd pose`")
    if str(content["format"]) != FORMAT:
        _wrong(
            path, f"its format is {str(content['format'])!r}, this version reads {FORMAT!r}; make it again"
        )
    joints, scores, size, fps = (content[name] for name in ("joints", "scores", "size", "fps"))
    if any(array.dtype.kind not in "fiu" for array in (joints, scores, size, fps)):
        _wrong(path, "its arrays are not numbers")
    if joints.ndim != 4 or joints.shape[2:] != (NUM_JOINTS, 2) or scores.shape != joints.shape[:3]:
        expected = f"joints (T, P, {NUM_JOINTS}, 2) and scores (T, P, {NUM_JOINTS})"
        _wrong(path, f"it should hold {expected}, and holds {joints.shape} and {scores.shape}")
    if size.shape != (2,) or size.min() < 1 or fps.shape != () or not 0 <= fps < np.inf:
        _wrong(path, f"its size {size.tolist()} or its frame rate {fps.tolist()} makes no sense")
    picture_size = (int(size[0]), int(size[1]))
    points = np.concatenate([joints, scores[..., None]], -1).astype(np.float32)
    joints, scores = _checked(path, points, picture_size)
    frames = [
        [Pose(*person, picture_size) for person in zip(*frame, strict=True)]
        for frame in zip(joints, scores, strict=True)
    ]
    return PoseFile([_without_trailing_absent(frame) for frame in frames], picture_size, float(fps))


def _pose(path: Path, points: _Points, size: tuple[int, int]) -> Pose:
    """A checked Pose from x, y (fractions of the picture) and score."""
    return Pose(*_checked(path, points, size), size)


def _checked(path: Path, points: _Points, size: tuple[int, int]) -> tuple[_Points, _Points]:
    """Joints (..., 2) and scores (...) of checked points (..., 3): of all people of a file at once, or of
    350 frames the checks alone take 12 ms."""
    if not np.isfinite(points).all():
        _wrong(path, "some of its numbers are NaN or infinite; make it again")
    scores = points[..., 2].clip(0, 1)
    if np.abs(points[scores > 0, :2]).max(initial=0) > FARTHEST:
        _wrong(path, f"a joint lies more than {FARTHEST} pictures outside its own; is its size right?")
    if max(size) > LARGEST:
        _wrong(path, f"its picture has {size[1]}x{size[0]} pixels, more than {LARGEST}; is its size right?")
    return np.where(scores[..., None] > 0, points[..., :2], np.float32(0)), scores


def _without_trailing_absent(frame: list[Pose]) -> list[Pose]:
    while frame and not frame[-1].scores.any():
        frame = frame[:-1]
    return frame


def _from_json(path: Path, data: bytes, size: tuple[int, int] | None) -> PoseFile:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):  # not UTF-8, or not JSON
        _wrong(path, "it is neither an scd .npz nor complete JSON; check the name, or make it again")
    entries = content if isinstance(content, list) else [content]
    if not entries:
        _wrong(path, "its list of frames is empty")
    frames: list[list[Pose]] = []
    sizes: set[tuple[int, int]] = set()
    for entry in entries:
        if not isinstance(entry, dict) or not ("people" in entry or "bodies" in entry):
            _wrong(
                path,
                'it has neither "people" (OpenPose) nor "bodies" (DWPose); use one of these or an scd .npz',
            )
        frame_size = _canvas(path, entry) or size
        people = _openpose_people(path, entry) if "people" in entry else _dwpose_people(path, entry)
        if frame_size is None:
            _wrong(
                path,
                "it does not say how large its picture was (canvas_width, canvas_height); "
                "give the size (--canvas WIDTHxHEIGHT)",
            )
        sizes.add(frame_size)
        frames.append([_pose(path, person, frame_size) for person in _as_fractions(path, people, frame_size)])
    if len(sizes) > 1:
        _wrong(path, f"its frames have different sizes: {sorted(sizes)}")
    return PoseFile(frames, sizes.pop())


def _canvas(path: Path, entry: dict[str, Any]) -> tuple[int, int] | None:
    height, width = entry.get("canvas_height"), entry.get("canvas_width")
    if height is None and width is None:
        return None
    if not (
        isinstance(height, int | float) and isinstance(width, int | float) and height >= 1 and width >= 1
    ):
        _wrong(path, f"its canvas is {width!r} by {height!r} pixels")
    if max(height, width) > LARGEST:
        _wrong(path, f"its canvas is {width!r} by {height!r} pixels")
    return int(height), int(width)


def _as_fractions(path: Path, people: list[_Points], size: tuple[int, int]) -> list[_Points]:
    """Some writers store pixels, some fractions: with all coordinates within 2, people were 2 pixels tall."""
    there = np.concatenate([np.zeros((0, 2)), *(p[p[:, 2] > 0, :2] for p in people)])
    largest = float(np.abs(there).max(initial=0))
    if largest <= 1 and len(there) and (there < 0).mean(0).min() > CENTRED:
        _wrong(path, "its coordinates go from -1 to 1; write pixels (OpenPose's --keypoint_scale 0)")
    scale = np.array([1, 1, 1] if largest <= 2 else [1 / size[1], 1 / size[0], 1], np.float32)
    return [person * scale for person in people]


def _numbers(path: Path, value: Any, what: str) -> NDArray[np.float32]:
    try:
        return np.asarray(value, np.float32)
    except (TypeError, ValueError):
        _wrong(path, f"{what} is not a list of numbers")


def _openpose_people(path: Path, entry: dict[str, Any]) -> list[_Points]:
    people = entry["people"] or []
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        _wrong(path, '"people" is not a list of people')
    result = []
    for person in people:
        points = np.zeros((NUM_JOINTS, 3), np.float32)
        for name, (part, layouts) in _JSON_PARTS.items():
            values = _numbers(path, person.get(name) or [], name)
            if not values.size:
                continue  # null or an empty list: this part was not looked for, or not found
            if values.ndim != 1 or values.size % 3 or values.size // 3 not in layouts:
                counts = " or ".join(str(3 * count) for count in layouts)
                _wrong(
                    path, f"{name} has shape {values.shape} where {counts} numbers are expected (x, y, score)"
                )
            points[part] = values.reshape(-1, 3)[list(layouts[values.size // 3])]
        result.append(points)
    return result


def _dwpose_people(path: Path, entry: dict[str, Any]) -> list[_Points]:
    """DWPose's own layout: fractions; absent points lie at -1; all left hands come before the right ones."""
    bodies = entry["bodies"]
    if not isinstance(bodies, dict):
        _wrong(path, '"bodies" is not a dictionary with "candidate" and "subset"')
    body = _numbers(path, bodies.get("candidate") or [], "bodies.candidate")
    if body.size and (body.ndim < 2 or body.shape[-1] < 2):
        _wrong(path, f"bodies.candidate has shape {body.shape}, it should be (P * {NUM_BODY}, 2)")
    body = body.reshape(-1, body.shape[-1])[:, :2] if body.size else body.reshape(0, 2)
    count = len(body) // NUM_BODY
    subset = _numbers(path, bodies.get("subset") or [], "bodies.subset")
    if len(body) % NUM_BODY or (subset.size and subset.shape != (count, NUM_BODY)):
        _wrong(
            path,
            f"bodies.candidate {body.shape} and bodies.subset {subset.shape} are not {NUM_BODY} a person",
        )
    given = bodies.get("score")
    points = np.zeros((count, NUM_JOINTS, 3), np.float32)
    points[:, BODY] = _with_scores(path, "bodies", body, given, (count, NUM_BODY))
    if subset.size:
        points[:, BODY, 2] *= subset >= 0
    hands = _with_scores(path, "hands", entry.get("hands"), entry.get("hands_score"), (2 * count, NUM_HAND))
    points[:, LEFT_HAND], points[:, RIGHT_HAND] = hands[:count], hands[count:]
    points[:, FACE] = _with_scores(
        path, "faces", entry.get("faces"), entry.get("faces_score"), (count, NUM_FACE)
    )
    return list(points)


def _with_scores(path: Path, name: str, xy: Any, scores: Any, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Points (*shape, 3): x, y, score; it is 1 unless given, 0 at negative places or without `xy`."""
    points = np.zeros((*shape, 3), np.float32)
    xy = _numbers(path, [] if xy is None else xy, name)
    if not xy.size:
        return points
    if xy.size != points[..., :2].size:
        _wrong(path, f"{name} has shape {xy.shape} where {(*shape, 2)} is expected")
    points[..., :2] = xy.reshape(*shape, 2)
    points[..., 2] = (points[..., :2] >= 0).all(-1)
    if scores is not None:
        values = _numbers(path, scores, f"{name} scores")
        if values.size != points[..., 2].size:
            _wrong(path, f"{name} has scores of shape {values.shape} where {shape} is expected")
        points[..., 2] *= values.reshape(shape)
    return points
