"""Drawing a pose as the network reads it: OpenPose's coloured skeleton, hands and face dots on black."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scd.pose.skeleton import BODY_COLOURS, BODY_LIMBS, HAND_BONES, HAND_COLOURS, SURE
from scd.types import BODY, FACE, LEFT_HAND, RIGHT_HAND, Pose


@dataclass(frozen=True)
class Style:
    """How thick things are, as fractions of a side of the picture, and what is drawn besides."""

    longer: bool  # of the longer side, or of the shorter
    limb: float  # width
    bone: float  # of a hand, width
    dot: float  # of the face, radius
    hand_joint: float  # radius; 0 = none
    smallest_part: float  # pixels: a hand or a face whose box is smaller says nothing and is left out
    smooth: int  # OpenCV's kind of edge


STYLES = {
    # OpenPose's drawings at 512 pixels have limbs 8 wide, hand bones 2 wide and face dots of radius 3; the
    # dots are smaller here, so that a face 15 pixels wide keeps its eyes and brows apart. Smooth edges come
    # on top: 0.7 pixel on each side
    "openpose": Style(True, 0.015, 0.004, 0.003, 0.0, 3.0, cv2.LINE_AA),
    # What DWPose (Yang et al. 2023) draws with the shorter side at 512, and Animate Anyone's family learnt
    "dwpose": Style(False, 8 / 512, 2 / 512, 3 / 512, 4 / 512, 0.0, cv2.LINE_8),
}
HAND_JOINT_COLOUR = (0, 0, 255)
LIMB_SHADE = 0.6  # limbs are darker than their joints: so were the drawings that public networks learnt from

_SHIFT = 4  # cv2 takes coordinates in 1/16 pixel
_FIXED = float(1 << _SHIFT)
_ANGLES = np.arange(12) * (2 * np.pi / 12)
# (12, 2): a limb is this circle stretched into an ellipse from joint to joint.
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], -1).astype(np.float32)
_LIMBS = np.array(BODY_LIMBS)
_LIMB_COLOURS = [tuple(round(LIMB_SHADE * c) for c in BODY_COLOURS[i]) for i in range(len(BODY_LIMBS))]


def draw_pose(
    pose: Pose | Sequence[Pose], size: tuple[int, int] | None = None, min_score: float = SURE,
    style: str = "openpose",
) -> NDArray[np.uint8]:  # fmt: skip
    """The drawing (H, W, 3), uint8 RGB, of one person or several on black, in one of STYLES.

    `size` is (H, W), by default that of the (first) pose's picture; joints below `min_score` are absent, with
    their limbs. No pose gives a black picture, and needs `size`.
    """
    poses = [pose] if isinstance(pose, Pose) else list(pose)
    if size is None:
        if not poses:
            raise ValueError("draw_pose needs `size` when there is no pose")
        size = poses[0].size
    canvas = np.zeros((*size, 3), np.uint8)
    for one in poses:
        _draw_onto(canvas, one, min_score, STYLES[style])
    return canvas


def overlay_pose(
    image: NDArray[np.uint8], pose: Pose | Sequence[Pose], strength: float = 0.8
) -> NDArray[np.uint8]:
    """A copy of the picture (H, W, 3), uint8 RGB, with the skeleton over it at `strength` in 0..1."""
    drawing = draw_pose(pose, (image.shape[0], image.shape[1]))
    # The brightest channel is the drawing's own coverage: full inside a joint, fading at its smooth edge.
    cover = strength * np.minimum(drawing.max(-1, keepdims=True) / (255 * LIMB_SHADE), 1)
    return np.rint(image * (1 - cover) + drawing * cover.clip(0, 1)).clip(0, 255).astype(np.uint8)


def _draw_onto(canvas: NDArray[np.uint8], pose: Pose, min_score: float, style: Style) -> None:
    height, width = canvas.shape[:2]
    side = max(height, width) if style.longer else min(height, width)
    present = (pose.scores >= min_score) & np.isfinite(pose.joints).all(-1)
    # The middle of the top left pixel is (0.5, 0.5) for us and (0, 0) for cv2. Joints may lie outside the
    # picture; four pictures away is far enough for any limb's direction and keeps cv2's fixed-point numbers
    # from overflowing.
    pixels = np.nan_to_num(pose.joints).clip(-4, 5) * np.array([width, height], np.float32) - np.float32(0.5)
    fixed = np.rint(pixels * _FIXED).astype(np.int32)
    half_width = max(1.0, style.limb * side) / 2
    _draw_body(canvas, pixels[BODY], fixed[BODY].tolist(), present[BODY], half_width, style.smooth)
    thickness = max(1, round(style.bone * side))
    for hand in (LEFT_HAND, RIGHT_HAND):
        if _is_large(pixels[hand], present[hand], style):
            _draw_hand(canvas, fixed[hand].tolist(), present[hand].tolist(), thickness, style.smooth)
            if style.hand_joint:
                _draw_dots(
                    canvas, fixed[hand][present[hand]], style.hand_joint * side, HAND_JOINT_COLOUR, style
                )
    if _is_large(pixels[FACE], present[FACE], style):
        _draw_dots(canvas, fixed[FACE][present[FACE]], style.dot * side, (255, 255, 255), style)


def _draw_dots(
    canvas: NDArray[np.uint8], fixed: NDArray[np.int32], radius: float, colour: tuple[int, ...], style: Style
) -> None:
    for point in fixed.tolist():
        cv2.circle(canvas, point, round(max(0.5, radius) * _FIXED), colour, cv2.FILLED, style.smooth, _SHIFT)


def _is_large(pixels: NDArray[np.float32], present: NDArray[np.bool_], style: Style) -> bool:
    seen = pixels[present]
    return len(seen) > 1 and float(np.ptp(seen, axis=0).max()) >= style.smallest_part


def _draw_body(
    canvas: NDArray[np.uint8],
    pixels: NDArray[np.float32],
    fixed: list,
    present: NDArray[np.bool_],
    half_width: float,
    smooth: int,
) -> None:
    start, stop = pixels[_LIMBS[:, 0]], pixels[_LIMBS[:, 1]]
    half = (stop - start) / 2
    length = np.maximum(np.hypot(half[:, 0], half[:, 1]), 1e-3)[:, None]
    across = np.stack([-half[:, 1], half[:, 0]], -1) / length * half_width
    outline = (start + stop)[:, None] / 2 + _CIRCLE[:, :1] * half[:, None] + _CIRCLE[:, 1:] * across[:, None]
    polygons = np.rint(outline * _FIXED).astype(np.int32)  # (limbs, 12, 2)
    for limb in np.flatnonzero(present[_LIMBS].all(1)).tolist():
        cv2.fillConvexPoly(canvas, polygons[limb], _LIMB_COLOURS[limb], smooth, _SHIFT)
    radius = round(half_width * _FIXED)
    for joint in np.flatnonzero(present).tolist():
        cv2.circle(canvas, fixed[joint], radius, BODY_COLOURS[joint], cv2.FILLED, smooth, _SHIFT)


def _draw_hand(canvas: NDArray[np.uint8], fixed: list, present: list, thickness: int, smooth: int) -> None:
    for (start, stop), colour in zip(HAND_BONES, HAND_COLOURS, strict=True):
        if present[start] and present[stop]:
            cv2.line(canvas, fixed[start], fixed[stop], colour, thickness, smooth, _SHIFT)
