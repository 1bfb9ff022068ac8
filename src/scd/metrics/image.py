"""Network-free measures of a picture against the truth."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

SSIM = "torchmetrics, RGB, data range 1, Gaussian window 11"  # what `ssim` is
LOCAL = 1 / 32  # of the picture's height: how far `structure_error` looks for the local mean


def psnr(result: NDArray[np.uint8], truth: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio in dB of one picture (H, W, 3), over the mask's pixels (H, W) when given.

    In float64: a family of public scripts subtracts uint8, wraps around, and reports 29 to 31 dB where 15 to
    20 is true. Raises ValueError for an empty mask.
    """
    error = (result.astype(np.float64) - truth.astype(np.float64)) ** 2
    if mask is not None:
        if not mask.any():
            raise ValueError("an empty mask has no PSNR")
        error = error[mask]
    # A perfect picture would be infinite and spoil every mean: 8-bit rounding's own error, 58.9 dB, is the
    # ceiling
    return float(10 * np.log10(255**2 / max(error.mean(), 1 / 12)))


def ssim(result: NDArray[np.uint8], truth: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> float:
    """Structural similarity of two pictures (H, W, 3): torchmetrics, RGB, data range 1, Gaussian window 11
    (CatVTON's protocol); with a mask (H, W) the mean of the windows around its pixels.

    Raises ValueError for an empty mask.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    a, b = (torch.from_numpy(x.astype(np.float32) / 255).permute(2, 0, 1)[None] for x in (result, truth))
    if mask is None:
        value: Any = structural_similarity_index_measure(a, b, data_range=1.0)
        return float(value)
    if not mask.any():
        raise ValueError("an empty mask has no SSIM")
    _, everywhere = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
    return float(everywhere[0].mean(0).numpy()[mask].mean())


def absolute_error(result: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Mean absolute difference of two pictures (H, W, 3), 0..255: whatever their size (DisCo's L1 depends on
    it)."""
    return float(np.abs(result.astype(np.float64) - truth).mean())


def gradient(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    """Mean absolute horizontal difference of neighbouring pixels (H, W, 3) that both lie in the mask (H, W),
    0..255."""
    difference = np.abs(np.diff(picture.astype(np.float64), axis=1)).mean(-1)
    inside = mask[:, 1:] & mask[:, :-1]
    return float(difference[inside].mean())


def detail(result: NDArray[np.uint8], truth: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    """`gradient` of the result over the truth's: 1 = as sharp, less = blurred. Beside PSNR, which alone
    rewards blur."""
    return gradient(result, mask) / gradient(truth, mask)


def colour_error(result: NDArray[np.uint8], truth: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    """Euclidean RGB distance of the two mean colours over the mask, in levels: 0 = the same, 442 = black for
    white."""
    means = [picture[mask].mean(0, dtype=np.float64) for picture in (result, truth)]
    return float(np.linalg.norm(means[0] - means[1]))


def structure_error(result: NDArray[np.uint8], truth: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    """Mean absolute difference of local structure over the mask, 0..255: of a print, not of the cloth's
    colour.

    The difference of the pictures (H, W, 3) without its local mean, a Gaussian of LOCAL picture heights
    over the mask's pixels alone. A garment in one colour scores the print's own strength, whichever colour.
    """
    sigma = LOCAL * mask.shape[0]
    inside = mask.astype(np.float64)
    difference = (result.astype(np.float64) - truth.astype(np.float64)) * inside[..., None]
    share = cv2.GaussianBlur(inside, (0, 0), sigma)
    local = cv2.GaussianBlur(difference, (0, 0), sigma)[mask] / share[mask][:, None]
    return float(np.abs(difference[mask] - local).mean())
