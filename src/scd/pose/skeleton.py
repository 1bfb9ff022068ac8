"""The skeleton: which joints form a limb, in which colour, and how a pose follows its picture's frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from scd.types import BODY, BODY_NAMES, NUM_JOINTS, Pose

NECK = BODY_NAMES.index("neck")
RIGHT_SHOULDER, LEFT_SHOULDER = BODY_NAMES.index("right_shoulder"), BODY_NAMES.index("left_shoulder")

# Joints with lower scores count as absent: not drawn, not measured, filled where they are away for a moment.
# Detectors guess what is hidden.
SURE = 0.3

# OpenPose's 18 colours (RGB), one per body joint; the first 17 are also the limbs' colours.
BODY_COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
    (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
    (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip

# Pairs of body joints in OpenPose's order, which is also the order of drawing: limb i has colour i.
BODY_LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7),  # shoulders, arms
    (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),  # trunk, legs
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),  # head
)  # fmt: skip

# Pairs of the 21 points of one hand: the wrist (0), then four points per finger from the thumb on.
HAND_BONES = tuple(
    (4 * finger + joint if joint else 0, 4 * finger + joint + 1) for finger in range(5) for joint in range(4)
)


def _hue(fraction: float) -> tuple[int, int, int]:
    """The fully saturated colour at `fraction` of the colour circle, as RGB bytes."""
    red, green, blue = (
        round(255 * min(max(abs((6 * fraction + shift) % 6 - 3) - 1, 0.0), 1.0)) for shift in (0, 4, 2)
    )
    return red, green, blue


HAND_COLOURS = tuple(_hue(bone / len(HAND_BONES)) for bone in range(len(HAND_BONES)))

# The iBUG 68 points of the face, by part. "Right" is the person's own, which stands on the left in the
# picture.
FACE_PARTS = {
    "jaw": range(0, 17),
    "right_brow": range(17, 22),
    "left_brow": range(22, 27),
    "nose_bridge": range(27, 31),
    "nose_base": range(31, 36),
    "right_eye": range(36, 42),
    "left_eye": range(42, 48),
    "outer_mouth": range(48, 60),
    "inner_mouth": range(60, 68),
}

# Left, top, right, bottom as fractions of the picture; may reach beyond 0..1.
Box = tuple[float, float, float, float]


def empty_pose(size: tuple[int, int]) -> Pose:
    """A pose with no joint present, for a picture of `size` (height, width)."""
    return Pose(np.zeros((NUM_JOINTS, 2), np.float32), np.zeros(NUM_JOINTS, np.float32), size)


def bounding_box(pose: Pose, part: slice = slice(None), min_score: float = SURE) -> Box | None:
    """The box around the joints of `part` whose score reaches `min_score`; None when there is none."""
    seen = pose.joints[part][pose.scores[part] >= min_score]
    if not len(seen):
        return None
    (left, top), (right, bottom) = seen.min(0).tolist(), seen.max(0).tolist()
    return left, top, right, bottom


def with_neck(joints: NDArray[np.float32], scores: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
    """Copies of joints (128, 2) and scores (128,) whose neck is the middle of the shoulders.

    Its score is the lesser one of theirs, so that a missing shoulder makes the neck missing.
    """
    joints, scores = joints.copy(), scores.copy()
    shoulders = [RIGHT_SHOULDER, LEFT_SHOULDER]
    scores[NECK] = scores[shoulders].min()
    joints[NECK] = joints[shoulders].mean(0) if scores[NECK] > 0 else 0
    return joints, scores


def to_crop(pose: Pose, box: Box, size: tuple[int, int]) -> Pose:
    """The pose as seen in the part `box` of its picture, scaled to `size` (height, width).

    A box that reaches beyond 0..1 enlarges the picture's frame. Joints outside the new frame stay, outside
    0..1: a limb that leaves the picture is still drawn up to its edge. `to_crop(to_crop(pose, box, size),
    inverse_box(box), pose.size)` is the pose again.
    """
    left, top, right, bottom = box
    if not (right > left and bottom > top):
        raise ValueError(f"an empty box: left {left}, top {top}, right {right}, bottom {bottom}")
    joints = (pose.joints - np.array([left, top], np.float32)) / np.array(
        [right - left, bottom - top], np.float32
    )
    return replace(pose, joints=np.where(pose.scores[:, None] > 0, joints, np.float32(0)), size=size)


def inverse_box(box: Box) -> Box:
    """The whole picture, measured in fractions of its part `box`."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return -left / width, -top / height, (1 - left) / width, (1 - top) / height


def pose_scale(pose: Pose) -> float:
    """The longer side of the body's box in pixels: how large this person is. 0 when nobody is there."""
    box = bounding_box(pose, BODY)
    if box is None:
        return 0.0
    height, width = pose.size
    return max((box[2] - box[0]) * width, (box[3] - box[1]) * height)


def num_present(pose: Pose, part: slice = BODY) -> int:
    """How many joints of `part` are sure."""
    return int((pose.scores[part] >= SURE).sum())
