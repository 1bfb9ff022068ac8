"""Finding people: one interface, `detect(image) -> poses from left to right`, and the networks behind it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from scd.pose.skeleton import SURE, bounding_box, num_present, pose_scale, with_neck
from scd.types import BODY, BODY_NAMES, FACE, LEFT_HAND, NUM_JOINTS, RIGHT_HAND, Person, Pose, UserError

log = logging.getLogger("scd")

MIN_BODY_JOINTS = 5  # fewer joints with a score of 0.3 are a shadow or a coat, not a person
MAX_PEOPLE = 8
# Smaller pictures are enlarged for MediaPipe. In 60 drawn pictures of 64 pixels it found 49 people instead of
# 48, with joints off by 1.2 % of the picture instead of 1.4; from 128 pixels on it makes no difference.
DETECTOR_SIDE = 256
GREY = 127

# MediaPipe's 33 body points, by our names; the neck is the middle of the shoulders.
MEDIAPIPE_BODY = {
    "nose": 0,
    "right_shoulder": 12, "right_elbow": 14, "right_wrist": 16,
    "left_shoulder": 11, "left_elbow": 13, "left_wrist": 15,
    "right_hip": 24, "right_knee": 26, "right_ankle": 28,
    "left_hip": 23, "left_knee": 25, "left_ankle": 27,
    "right_eye": 5, "left_eye": 2, "right_ear": 8, "left_ear": 7,
}  # fmt: skip

# MediaPipe's 468-point face mesh at the iBUG 68 points.
MEDIAPIPE_FACE = (
    127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356,  # jaw
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows
    168, 197, 5, 4, 98, 97, 2, 326, 327,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91,  # outer mouth
    78, 82, 13, 312, 308, 317, 14, 87,  # inner mouth
)  # fmt: skip

# The 133 points of COCO-WholeBody (17 body, 6 feet, 68 face, 21 + 21 hands), by our names; the feet are not
# used.
COCO_BODY = {
    "nose": 0,
    "right_shoulder": 6, "right_elbow": 8, "right_wrist": 10,
    "left_shoulder": 5, "left_elbow": 7, "left_wrist": 9,
    "right_hip": 12, "right_knee": 14, "right_ankle": 16,
    "left_hip": 11, "left_knee": 13, "left_ankle": 15,
    "right_eye": 2, "left_eye": 1, "right_ear": 4, "left_ear": 3,
}  # fmt: skip
COCO_FACE, COCO_LEFT_HAND, COCO_RIGHT_HAND = slice(23, 91), slice(91, 112), slice(112, 133)


class NobodyFound(UserError):
    """No person in the picture: what can go on without a pose may catch it."""


class Detector(Protocol):
    """What the rest of SCD asks of a pose network."""

    def detect(self, image: NDArray[np.uint8]) -> list[Pose]:
        """The people in a picture (H, W, 3), uint8 RGB, from left to right; [] when nobody is there."""
        ...


class MediaPipeDetector:
    """MediaPipe's holistic network: bodies, faces, hands; offline; 0.05 s per person on one CPU core.

    The network finds one person, of its own choice: each one found is painted grey and it is asked again. Its
    face and hand points come without scores: they get 1. Joints that it guesses outside the picture are
    absent.
    """

    def __init__(self, network: Any = None, max_people: int = MAX_PEOPLE) -> None:
        self._network = _load_holistic() if network is None else network
        self.max_people = max_people

    def detect(self, image: NDArray[np.uint8]) -> list[Pose]:
        size = (image.shape[0], image.shape[1])
        canvas = enlarged(image)
        covered = np.zeros(canvas.shape[:2], bool)
        found: list[Pose] = []
        while len(found) < self.max_people:
            with native_logs_silenced():
                pose = _from_holistic(self._network.process(canvas), size)
            if pose is None or not _is_person(pose) or _lies_in(pose, covered):
                break
            found.append(pose)
            box = _grey_box(pose, canvas.shape[0], canvas.shape[1])
            canvas[box] = GREY
            covered[box] = True
        return _left_to_right(found)


class DWPoseDetector:
    """DWPose through rtmlib: the 133-point networks that public pose data was made with.

    `model` is a callable `image BGR -> keypoints (P, 133, 2) in pixels, scores (P, 133)`; by default
    rtmlib's, which downloads its weights on first use. `mode` is rtmlib's: "lightweight", "balanced" or
    "performance".
    """

    def __init__(self, model: Any = None, mode: str = "balanced", device: str = "cpu") -> None:
        self._model = _load_rtmlib(mode, device) if model is None else model

    def detect(self, image: NDArray[np.uint8]) -> list[Pose]:
        keypoints, scores = self._model(np.ascontiguousarray(image[..., ::-1]))
        size = (image.shape[0], image.shape[1])
        pairs = zip(np.asarray(keypoints, np.float32), np.asarray(scores, np.float32), strict=True)
        # Where rtmlib finds nobody it looks at the whole picture and returns one person with low scores.
        return _left_to_right(
            [pose for pose in (_from_coco(*pair, size) for pair in pairs) if _is_person(pose)]
        )


DETECTORS: dict[str, type[Detector]] = {"mediapipe": MediaPipeDetector, "dwpose": DWPoseDetector}


def get_detector(name: str = "mediapipe") -> Detector:
    """The detector of that name, "mediapipe" or "dwpose", loaded once: it remembers nothing of a picture.
    UserError when it is unknown or not installed."""
    if name not in DETECTORS:
        raise UserError(f"there is no pose detector {name!r}: use {' or '.join(DETECTORS)}")
    return _loaded(name)


@lru_cache
def _loaded(name: str) -> Detector:
    return DETECTORS[name]()


def require_person(person: int | str) -> None:
    """UserError for what says nobody."""
    if person != "largest" and not (isinstance(person, int) and person >= 1):
        raise UserError(
            f'--person is "largest" or a number from 1 on, counted from left to right, not {person!r}'
        )


def detect_one(
    image: NDArray[np.uint8],
    person: Person = "largest",
    name_for_errors: str = "the picture",
    detector: Detector | None = None,
    under: NDArray[np.bool_] | None = None,
    *,
    alone: bool = False,
    advice: str = "--person chooses another",
) -> Pose:
    """The pose of one person in a picture (H, W, 3), uint8 RGB.

    `person` counts from 1, left to right; "largest" says in the log whom it took when there was a choice; of
    a mask that is to be painted, `under` (of the picture or of its shape), it takes who is most covered.
    `alone`: of a single person no number is asked. `advice` ends the line of a choice. UserError when nobody
    is found (NobodyFound), or not that many.
    """
    require_person(person)
    if not isinstance(image, np.ndarray):
        raise ValueError(f"a picture is uint8 (H, W, 3), as scd.media.read_image reads it; not {image!r:.80}")
    people = (detector or get_detector()).detect(image)
    if not people:
        raise NobodyFound(
            f"no person found in {name_for_errors}: use a picture that shows one from head to hips or more, "
            "or give a pose file"
        )
    if person == "largest":
        covered = [0.0 if under is None else _covered(pose, under) for pose in people]
        index = max(range(len(people)), key=lambda i: (covered[i], pose_scale(people[i])))
        if len(people) > 1:
            who = "the one under the mask" if covered[index] else "the largest"
            text = "%d people in %s: %s, number %d from the left, is used; %s"
            log.warning(text, len(people), name_for_errors, who, index + 1, advice)
        return people[index]
    if alone and len(people) == 1:
        return people[0]
    if person > len(people):
        raise UserError(
            f"{name_for_errors} shows {len(people)} person(s): --person {person} is one too many or more"
        )
    return people[person - 1]


@contextmanager
def native_logs_silenced() -> Iterator[None]:
    """Nothing written to the C stderr inside reaches the terminal.

    MediaPipe's native code ignores every log level variable (GLOG_minloglevel, TF_CPP_MIN_LOG_LEVEL: tried)
    and prints ten lines. The file descriptor belongs to the process: what another thread prints in these
    milliseconds is lost too.
    """
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # no stderr at all, as in a daemon
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _load_holistic() -> Any:
    with native_logs_silenced():
        try:
            from mediapipe.python.solutions.holistic import Holistic
        except ImportError as error:
            raise UserError(
                f"the pose detector needs MediaPipe 0.10.21 ({error}): run "
                "`pip install 'scd[pose-runtime]' && pip install --no-deps mediapipe==0.10.21` "
                "with Python 3.10 to 3.12, or give a pose file instead"
            ) from None
        # Model 1 is the only one inside the wheel; the others would be downloaded.
        network = Holistic(static_image_mode=True, model_complexity=1)
        # Its threads start, and print, after the constructor returns; the first answer waits for them.
        network.process(np.zeros((DETECTOR_SIDE, DETECTOR_SIDE, 3), np.uint8))
        return network


def _load_rtmlib(mode: str, device: str) -> Any:
    try:
        from rtmlib import Wholebody  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            "the dwpose detector needs rtmlib: run `pip install 'scd[dwpose]'`, or use the mediapipe detector"
        ) from None
    try:
        return Wholebody(mode=mode, to_openpose=False, backend="onnxruntime", device=device)
    except OSError as error:
        raise UserError(
            f"the dwpose weights cannot be loaded ({error}): check the connection, try again"
        ) from None


def enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy whose shorter side has at least 256 pixels."""
    height, width = image.shape[:2]
    scale = DETECTOR_SIDE / min(height, width)
    if scale <= 1:
        return image.copy()
    size = (round(width * scale), round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def _from_holistic(result: Any, size: tuple[int, int]) -> Pose | None:
    """MediaPipe's answer as a Pose: landmarks are fractions of the picture, visibility is the score."""
    if result.pose_landmarks is None:
        return None
    joints, scores = np.zeros((NUM_JOINTS, 2), np.float32), np.zeros(NUM_JOINTS, np.float32)
    body = result.pose_landmarks.landmark
    for name, index in MEDIAPIPE_BODY.items():
        joint = BODY_NAMES.index(name)
        joints[joint], scores[joint] = (body[index].x, body[index].y), body[index].visibility
    for part, landmarks, indices in (
        (FACE, result.face_landmarks, MEDIAPIPE_FACE),
        (LEFT_HAND, result.left_hand_landmarks, range(21)),
        (RIGHT_HAND, result.right_hand_landmarks, range(21)),
    ):
        if landmarks is not None:
            joints[part] = [(landmarks.landmark[i].x, landmarks.landmark[i].y) for i in indices]
            scores[part] = 1
    return _finished(joints, scores, size)


def _from_coco(keypoints: NDArray[np.float32], scores: NDArray[np.float32], size: tuple[int, int]) -> Pose:
    """One person of COCO-WholeBody, keypoints (133, 2) in pixels and scores (133,), as a Pose."""
    joints, ours = np.zeros((NUM_JOINTS, 2), np.float32), np.zeros(NUM_JOINTS, np.float32)
    body = [BODY_NAMES.index(name) for name in COCO_BODY]
    theirs = list(COCO_BODY.values())
    joints[body], ours[body] = keypoints[theirs], scores[theirs]
    parts = ((FACE, COCO_FACE), (LEFT_HAND, COCO_LEFT_HAND), (RIGHT_HAND, COCO_RIGHT_HAND))
    for part, coco in parts:
        joints[part], ours[part] = keypoints[coco], scores[coco]
    return _finished(joints / np.array([size[1], size[0]], np.float32), ours, size)


def _finished(joints: NDArray[np.float32], scores: NDArray[np.float32], size: tuple[int, int]) -> Pose:
    """Joints outside the picture become absent, scores lie in 0..1, and the neck comes in."""
    inside = ((joints >= 0) & (joints <= 1)).all(1)
    scores = np.where(inside, scores.clip(0, 1), 0).astype(np.float32)
    joints = np.where(scores[:, None] > 0, joints, 0).astype(np.float32)
    return Pose(*with_neck(joints, scores), size)


def _is_person(pose: Pose) -> bool:
    return num_present(pose, BODY) >= MIN_BODY_JOINTS


def _covered(pose: Pose, mask: NDArray[np.bool_]) -> float:
    """The share of a person's found body joints that lie in the mask (H, W)."""
    x, y = (pose.joints[BODY][pose.scores[BODY] > 0] * mask.shape[::-1]).astype(int).T
    inside = (x >= 0) & (x < mask.shape[1]) & (y >= 0) & (y < mask.shape[0])
    return float(mask[y[inside], x[inside]].sum() / max(len(x), 1))


def _lies_in(pose: Pose, covered: NDArray[np.bool_]) -> bool:
    """Whether most of the body lies where people were painted over: then it is a guess about one of them."""
    seen = pose.joints[BODY][pose.scores[BODY] >= SURE]
    height, width = covered.shape
    pixels = (seen * [width - 1, height - 1]).astype(int)
    return bool(covered[pixels[:, 1], pixels[:, 0]].mean() > 0.5)


def _grey_box(pose: Pose, height: int, width: int) -> tuple[slice, slice]:
    """The person's box with a tenth of its size around it: hair, feet and sleeves lie outside the joints."""
    left, top, right, bottom = bounding_box(pose) or (0.0, 0.0, 1.0, 1.0)
    margin_x, margin_y = (right - left) / 10, (bottom - top) / 10
    rows = slice(max(0, int((top - margin_y) * height)), int((bottom + margin_y) * height) + 1)
    columns = slice(max(0, int((left - margin_x) * width)), int((right + margin_x) * width) + 1)
    return rows, columns


def _left_to_right(poses: list[Pose]) -> list[Pose]:
    def middle(pose: Pose) -> float:
        box = bounding_box(pose, BODY)
        return 0.0 if box is None else (box[0] + box[2]) / 2

    return sorted(poses, key=middle)
