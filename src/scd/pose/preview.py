"""What a driving clip will do, before it is done: reference, driver and retargeted skeleton side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import cv2
import numpy as np

from scd.pose.draw import draw_pose, overlay_pose
from scd.pose.skeleton import bounding_box
from scd.pose.track import Seen
from scd.types import BODY, Picture, Pose, PoseClip

BAR = 24  # pixels above the pictures, for the labels
GAP = 4  # pixels between the pictures
WHITE, GREY, GREEN, AMBER = (255, 255, 255), (150, 150, 150), (80, 220, 100), (255, 190, 60)
_FONT, _SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


def preview_frames(
    reference: Picture,
    reference_pose: Pose,
    frames: Iterable[Picture],
    seen: Sequence[Seen],
    driving: PoseClip,
    retargeted: PoseClip,
    filled: Collection[int] = (),
    height: int = 384,
) -> Iterator[Picture]:
    """One picture (H, W, 3), uint8 RGB with even sides, for each of the T driving frames.

    From left to right: the reference with its own pose; the driving frame with the pose that drives
    (`driving`, filled and smoothed) in the chosen person's box, green, or amber in the frames `filled`; the
    retargeted pose on the reference's canvas. For a second from the first frame with people on, the others
    who were `seen` there have grey boxes, and all have the numbers that --person counts by.

    `height` is that of the pictures, without the bar of labels. The frames stream: none is kept. ValueError
    when the lengths differ.
    """
    left = overlay_pose(scaled(reference, height), reference_pose, strength=0.6)
    width = round(height * retargeted.size[1] / retargeted.size[0])
    drivers = driver_frames(frames, seen, driving, filled, height)
    for t, (middle, moved) in enumerate(zip(drivers, retargeted, strict=True)):
        right = draw_pose(moved, (height, width))
        label = f"driver, frame {t} of {len(driving)}{', filled in' if t in filled else ''}"
        yield side_by_side((left, middle, right), ("reference", label, "retargeted"))


def driver_frames(
    frames: Iterable[Picture],
    seen: Sequence[Seen],
    driving: PoseClip,
    filled: Collection[int] = (),
    height: int | None = None,
) -> Iterator[Picture]:
    """The middle of the preview by itself: one picture (H, W, 3), `height` pixels high or as it is, for each
    driving frame. ValueError when the lengths differ."""
    first = next((t for t, one in enumerate(seen) if one.pose is not None and one.people), len(seen))
    last = first + max(1, round(driving.fps))
    others, number = _others(seen[first]) if first < len(seen) else ({}, 0)
    for t, (frame, pose) in enumerate(zip(frames, driving, strict=True)):
        picture = overlay_pose(scaled(frame, height or frame.shape[0]), pose)
        named = first <= t < last
        for index, other in others.items() if named else ():
            _box(picture, other, str(index), GREY)
        _box(picture, pose, str(number) if named and number else "", AMBER if t in filled else GREEN)
        yield picture


def _others(seen: Seen) -> tuple[dict[int, Pose], int]:
    """The people who were not chosen by their numbers, from 1, and the chosen one's (0 = not among them)."""
    chosen = seen.pose
    same = [chosen is not None and np.array_equal(chosen.joints, other.joints) for other in seen.people]
    others = {i: pose for i, pose in enumerate(seen.people, 1) if not same[i - 1]}
    return others, same.index(True) + 1 if any(same) else 0


def scaled(image: Picture, height: int) -> Picture:
    """The picture at another height."""
    width = max(1, round(height * image.shape[1] / image.shape[0]))
    way = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=way).astype(np.uint8, copy=False)


def _box(image: Picture, pose: Pose, number: str, colour: tuple[int, int, int]) -> None:
    """The body's box with a margin of a twentieth of its size, and the number at its upper left corner."""
    box = bounding_box(pose, BODY)
    if box is None:
        return
    height, width = image.shape[:2]
    left, top, right, bottom = np.array(box) * (width, height, width, height)
    margin = 0.05 * max(right - left, bottom - top)
    corners = np.array([left - margin, top - margin, right + margin, bottom + margin]).clip(-9999, 9999)
    left, top, right, bottom = np.rint(corners).astype(int).tolist()
    cv2.rectangle(image, (left, top), (right, bottom), colour, max(1, image.shape[0] // 256))
    if number:
        x, y = min(max(left, 0), width - 18), min(max(top, 0), height - 22)
        cv2.rectangle(image, (x, y), (x + 17, y + 21), colour, cv2.FILLED)
        cv2.putText(image, number, (x + 3, y + 17), _FONT, 0.6, (0, 0, 0), 2, cv2.LINE_AA)


def side_by_side(pictures: Sequence[Picture], labels: Sequence[str]) -> Picture:
    """Pictures of one height in a row under their labels, uint8 RGB; both sides are even, as videos want."""
    height = pictures[0].shape[0]
    width = sum(picture.shape[1] for picture in pictures) + GAP * (len(pictures) - 1)
    canvas = np.full(((BAR + height + 1) // 2 * 2, (width + 1) // 2 * 2, 3), 32, np.uint8)
    left = 0
    for picture, label in zip(pictures, labels, strict=True):
        canvas[BAR : BAR + height, left : left + picture.shape[1]] = picture
        cv2.putText(canvas, label, (left + 6, BAR - 7), _FONT, _SIZE, WHITE, 1, cv2.LINE_AA)
        left += picture.shape[1] + GAP
        cv2.rectangle(canvas, (left - GAP, 0), (left - 1, BAR), (32, 32, 32), cv2.FILLED)  # long labels end
    return canvas
