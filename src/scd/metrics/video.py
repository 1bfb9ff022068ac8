"""Network-free measures of a clip against the truth: does it tremble, does it move, do windows show."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]  # (T, H, W, 3)
Masks = NDArray[np.bool_]  # (T, H, W)


def _change(frames: Frames) -> NDArray[np.float32]:
    return np.diff(frames.astype(np.float32), axis=0)


def _either(masks: Masks) -> Masks:
    """Where the person is in a frame or in the next: what a change between them concerns."""
    return masks[1:] | masks[:-1]


def jitter(result: Frames, truth: Frames, masks: Masks) -> float:
    """Mean of |(y[t+1] - y[t]) - (x[t+1] - x[t])| over frames and person pixels, 0..255; x is the truth.

    A still picture scores the truth's own motion; the VAE's reconstruction of the truth is the floor.
    """
    error = np.abs(_change(result) - _change(truth)).mean(-1)
    return float(error[_either(masks)].mean())


def motion(result: Frames, truth: Frames, masks: Masks) -> float:
    """Mean |y[t+1] - y[t]| over person pixels, over the truth's: below 1 = too stiff, above 1 = restless."""
    painted, true = (np.abs(_change(frames)).mean(-1)[_either(masks)].mean() for frames in (result, truth))
    return float(painted / true)


def seam(result: Frames, borders: Collection[int]) -> float:
    """(Mean |y[t+1] - y[t]| where a window of the last step begins or ends + 0.5) / (the same elsewhere +
    0.5), over whole pictures: 1 = no seam to see. `borders`: the t + 1 of those changes.

    Raises ValueError when there is no border, or nothing else.
    """
    change = np.abs(_change(result)).mean((1, 2, 3))
    at_border = np.isin(np.arange(1, len(result)), list(borders))
    if not at_border.any() or at_border.all():
        raise ValueError(f"no seam can be measured with borders {sorted(borders)} in {len(result)} frames")
    return float((change[at_border].mean() + 0.5) / (change[~at_border].mean() + 0.5))
