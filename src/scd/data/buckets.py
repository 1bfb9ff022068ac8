"""Frames of any aspect in batches of one: sizes of about one area, and where a clip's person lies in one.

A clip keeps one placement for all its frames, so that the camera does not move and latents can be kept. The
part that is shown holds the whole person with hair, hands and feet, in every frame; nothing is stretched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scd.media.placement import Placement
from scd.pose.skeleton import Box, bounding_box
from scd.types import Pose

LONGEST = 2.5  # of the sides' ratios: a standing person with arms at its sides, and phones' 9 : 16, fit

# Around the box of a person's joints, in its longer side. What must be shown: hair ends 0.11 above a standing
# person's eyes, soles 0.06 below the ankles. What is shown where the frame has it: places, shadows, air.
NEEDED, WANTED = 0.12, 0.25
MOST_ENLARGED = 2.0  # where the frame has pixels enough: of a distant person the place is shown too


def multiple_of(size: int) -> int:
    """What the sides of a bucket are multiples of: Stable Diffusion's VAE and U-Net together halve them six
    times. Below 256 pixels, where only the embedded model is at home, 16: 4-pixel patches, halved twice."""
    return 64 if size >= 256 else 16


def bucket_sizes(size: int) -> list[tuple[int, int]]:
    """The (height, width) of all buckets, none with more pixels than size x size."""
    step, sizes = multiple_of(size), set()
    for width in range(step, int(size * math.sqrt(LONGEST)) + 1, step):
        height = size * size // width // step * step
        if height and max(height / width, width / height) <= LONGEST:
            sizes |= {(height, width), (width, height)}
    return sorted(sizes)


def nearest_bucket(height: float, width: float, size: int) -> tuple[int, int]:
    """The bucket whose aspect is most like height : width; of two alike the larger."""
    wanted = math.log(height / width)
    return min(
        bucket_sizes(size), key=lambda hw: (round(abs(math.log(hw[0] / hw[1]) - wanted), 6), -hw[0] * hw[1])
    )


@dataclass(frozen=True)
class Buckets:
    """Where a model is at home: in buckets of one area or, with drawn people, in its square alone."""

    size: int  # pixels: the square root of the area
    square: bool = False

    @classmethod
    def of(cls, config: Any) -> Buckets:
        """Those of a pipeline, from its configuration: photographs are trained on in buckets."""
        return cls(config.default_size, square=config.world_version is not None)

    def nearest(self, height: float, width: float) -> tuple[int, int]:
        """The (height, width) of the one whose aspect is most like height : width."""
        return (self.size, self.size) if self.square else nearest_bucket(height, width, self.size)


def person_box(poses: Iterable[Pose]) -> Box | None:
    """The box around all joints of all poses, as `around`."""
    return around(map(bounding_box, poses))


def around(boxes: Iterable[Box | None]) -> Box | None:
    """The box around all boxes, in fractions of the frame and within it: detectors also guess what lies
    outside. None when there is none."""
    sides = np.array([box for box in boxes if box is not None])
    if not len(sides):
        return None
    left, top, right, bottom = (*sides[:, :2].min(0).tolist(), *sides[:, 2:].max(0).tolist())
    left, top, right, bottom = (min(max(side, 0.0), 1.0) for side in (left, top, right, bottom))
    return left, top, right, bottom


def place_around(box: Box, frame: tuple[int, int], buckets: Buckets) -> Placement:
    """How a frame (height, width) lies in a bucket: around a box, in fractions of the frame.

    Cropped rather than padded: 12 drawn dancers in 16 : 9 frames have 13.7 % of the bucket's pixels, with the
    whole frame padded into its own best bucket 7.0 %. Padded rather than cropped where a crop would cut them.
    """
    needed, wanted = (_grown(box, frame, margin) for margin in (NEEDED, WANTED))
    bucket = buckets.nearest(wanted[3] - wanted[1], wanted[2] - wanted[0])
    # Source pixels per bucket pixel: all that is wanted, if the frame has it; at least what is needed
    fits = min(frame[0] / bucket[0], frame[1] / bucket[1])
    scale = max(min(max(_scale(wanted, bucket), 1 / MOST_ENLARGED), fits), _scale(needed, bucket))
    left, right, x0, x1 = _span(needed[0], needed[2], bucket[1] * scale, frame[1], bucket[1])
    top, bottom, y0, y1 = _span(needed[1], needed[3], bucket[0] * scale, frame[0], bucket[0])
    return Placement(frame, bucket, (left, top, right, bottom), (x0, y0, x1, y1))


def _grown(box: Box, frame: tuple[int, int], margin: float) -> tuple[float, float, float, float]:
    """The box in pixels, larger by a part of its longer side, within the frame."""
    height, width = frame
    left, top, right, bottom = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    more = margin * max(right - left, bottom - top, 1.0)
    return max(left - more, 0.0), max(top - more, 0.0), min(right + more, width), min(bottom + more, height)


def _scale(box: tuple[float, float, float, float], bucket: tuple[int, int]) -> float:
    return max((box[3] - box[1]) / bucket[0], (box[2] - box[0]) / bucket[1])


def _span(low: float, high: float, length: float, frame: int, bucket: int) -> tuple[int, int, int, int]:
    """One axis: (first, last) source pixel of a part `length` long that holds low..high, in the frame as far
    as it goes; and where in the bucket it lies."""
    if length >= frame:  # the whole frame, in the middle
        inside = min(bucket, max(1, round(bucket * frame / length)))
        start = (bucket - inside) // 2
        return 0, frame, start, start + inside
    shown = min(frame, max(1, round(length)))
    first = min(max(round((low + high - shown) / 2), 0), frame - shown)
    return first, first + shown, 0, bucket
