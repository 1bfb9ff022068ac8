"""Long clips: overlapping windows, end-aligned, blended with weights that sum to one, starts shifted between
steps (METHOD 5).

A window never wraps around to frame 0, and all have the same length, so what the device holds does not depend
on how long a clip is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GOLDEN = 0.6180339887498949  # shifts by this part of a stride never repeat soon: no frame keeps a seam


@dataclass(frozen=True)
class Window:
    """Frames `start` to `stop` of a clip, and how much of each frame's prediction is this window's."""

    start: int
    stop: int
    weights: Tensor  # (stop - start,) in (0, 1]; over all windows of a frame they sum to one

    @property
    def frames(self) -> slice:
        return slice(self.start, self.stop)


def window_starts(num_frames: int, length: int, overlap: int, shift: int = 0) -> list[int]:
    """First frames of windows of `length` frames that cover the clip, neighbours sharing at least `overlap`.

    The first begins at frame 0 and the last ends at the clip's end; `shift` moves all that lie between.
    A clip no longer than a window has one, shorter than `length`. Raises ValueError for an overlap that
    leaves no stride.
    """
    if not 0 <= overlap < length:
        raise ValueError(f"windows of {length} frames cannot overlap by {overlap}")
    if num_frames <= length:
        return [0]
    stride, last = length - overlap, num_frames - length
    return [0, *range(shift % stride or stride, last, stride), last]


def windows(num_frames: int, length: int, overlap: int, step: int = 0) -> list[Window]:
    """The windows of one denoising step: step 0 unshifted, each later one shifted by another part of a
    stride. Weights fall towards a window's ends as raised cosines over `overlap` frames."""
    shift = int((step * GOLDEN % 1) * (length - overlap))
    starts = window_starts(num_frames, length, overlap, shift)
    length = min(length, num_frames)
    distance = torch.arange(length, dtype=torch.float64) + 1
    distance = torch.minimum(distance, distance.flip(0)).clamp(max=overlap + 1)  # frames to the nearer end
    raw = torch.sin(torch.pi / 2 * distance / (overlap + 1)) ** 2
    total = torch.zeros(num_frames, dtype=torch.float64)
    for start in starts:
        total[start : start + length] += raw
    return [Window(start, start + length, (raw / total[start : start + length]).float()) for start in starts]
