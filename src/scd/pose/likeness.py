"""Is it the same shot, is it the same person: place, size, clothes."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from scd.pose.skeleton import SURE, bounding_box, pose_scale
from scd.types import BODY, BODY_NAMES, Pose

# Two neighbouring frames of drawn dancers at 10 frames per second differ by at most 0.03 in colours and by 10
# in pixels, two shots of different people by at least 0.26 and 31. A false alarm costs one look at the whole
# frame; a missed cut is found out when the person is not where it was.
CUT_COLOURS = 0.2  # half the sum of absolute differences of the colour histograms, 0..1
CUT_PIXELS = 25.0  # mean absolute difference of thumbnails, 0..255
THUMBNAIL = (32, 32)

_NUM_SHADES = 4  # per channel in a histogram
_TRUNK = [BODY_NAMES.index(f"{side}_{name}") for name in ("shoulder", "hip") for side in ("right", "left")]
_THIGHS = [[BODY_NAMES.index(f"{side}_{name}") for name in ("hip", "knee")] for side in ("right", "left")]
# Weights of right shoulder, left shoulder, right hip, left hip for 7 x 7 points inside the trunk: the outer
# sixth is sleeves and background.
_INSIDE = np.linspace(1 / 6, 5 / 6, 7)
_GRID = np.array([((1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u) for v in _INSIDE for u in _INSIDE])


def thumbnail(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame (H, W, 3) as 32 x 32 pixels, for `is_cut`."""
    return cv2.resize(frame, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def is_cut(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bool:
    """Whether a new shot begins between two frames, from their thumbnails (32, 32, 3)."""
    pixels = float(np.abs(before.astype(np.int16) - after).mean())
    one, other = (histogram(picture.reshape(-1, 3)) for picture in (before, after))
    return pixels > CUT_PIXELS or float(np.abs(one - other).sum()) / 2 > CUT_COLOURS


def likeness(one: Pose, other: Pose) -> float:
    """How much two poses in one picture are in the same place and of the same size, 0..1.

    The mean of: overlap of the bodies' boxes over their union, nearness of their middles (0 where they are a
    whole person apart), ratio of their sizes. 0 when one shows nobody.
    """
    boxes = [bounding_box(pose, BODY) for pose in (one, other)]
    sizes = [pose_scale(pose) for pose in (one, other)]
    if boxes[0] is None or boxes[1] is None or min(sizes) <= 0:
        return 0.0
    height, width = one.size
    a, b = (np.array(box) * (width, height, width, height) for box in boxes)
    overlap = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - overlap
    distance = np.hypot(*(_middle(one) - _middle(other)))
    near = max(0.0, 1 - distance / max(sizes))
    return float((overlap / max(union, 1e-6) + near + min(sizes) / max(sizes)) / 3)


def clothes(frame: NDArray[np.uint8], pose: Pose) -> NDArray[np.float32] | None:
    """The colours on trunk and thighs, a histogram (64,) that sums to one; None when the trunk is not seen.

    Two of them are alike as far as their least values sum to one. Each colour is shared out among the
    neighbouring bins: a little more light moves it a little.
    """
    if (pose.scores[_TRUNK] < SURE).any():
        return None
    points = [_GRID @ pose.joints[_TRUNK]]
    for thigh in _THIGHS:
        if (pose.scores[thigh] >= SURE).all():
            points.append(
                np.outer(1 - _INSIDE, pose.joints[thigh[0]]) + np.outer(_INSIDE, pose.joints[thigh[1]])
            )
    height, width = frame.shape[:2]
    column, row = (np.concatenate(points) * (width, height)).astype(int).clip(0, (width - 1, height - 1)).T
    return histogram(frame[row, column])


def histogram(colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colours (n, 3) as a histogram (64,), four shades per channel, that sums to one."""
    place = colours.astype(np.float32) * ((_NUM_SHADES - 1) / 255)
    low = np.minimum(place.astype(int), _NUM_SHADES - 2)
    part = place - low
    bins = np.zeros(_NUM_SHADES**3, np.float32)
    for corner in product((0, 1), repeat=3):
        weight = np.where(corner, part, 1 - part).prod(1)
        index = (low + corner) @ (_NUM_SHADES**2, _NUM_SHADES, 1)
        bins += np.bincount(index, weight, len(bins)).astype(np.float32)
    return bins / max(len(colours), 1)


def _middle(pose: Pose) -> NDArray[np.float64]:
    """The middle of the trunk's joints that are seen, else of the body's, in pixels."""
    height, width = pose.size
    trunk = [joint for joint in _TRUNK if pose.scores[joint] >= SURE]
    seen = pose.joints[trunk] if trunk else pose.joints[BODY][pose.scores[BODY] >= SURE]
    return seen.mean(0) * np.array([width, height], float)
