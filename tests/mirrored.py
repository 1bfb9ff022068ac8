"""A pose as the picture flipped from left to right shows it."""

from dataclasses import replace

import numpy as np

from scd.types import BODY_NAMES, FACE, LEFT_HAND, RIGHT_HAND, Pose

# FACE_MIRROR[i] is the point that stands where point i stood once the picture is flipped from left to right.
FACE_MIRROR = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
)  # fmt: skip
_SWAP_SIDES = {"right": "left", "left": "right"}
_BODY_MIRROR = (
    BODY_NAMES.index("_".join(_SWAP_SIDES.get(word, word) for word in name.split("_"))) for name in BODY_NAMES
)
# MIRROR[i]: the same for all 128 joints; applied twice, it gives every joint back.
MIRROR = np.array(
    [
        *_BODY_MIRROR,
        *(FACE.start + i for i in FACE_MIRROR),
        *range(RIGHT_HAND.start, RIGHT_HAND.stop),
        *range(LEFT_HAND.start, LEFT_HAND.stop),
    ]
)


def mirror(pose: Pose) -> Pose:
    """The pose of the picture flipped from left to right: x becomes 1 - x, left and right change names."""
    scores = pose.scores[MIRROR]
    joints = pose.joints[MIRROR] * np.array([-1, 1], np.float32) + np.array([1, 0], np.float32)
    return replace(pose, joints=np.where(scores[:, None] > 0, joints, np.float32(0)), scores=scores)
