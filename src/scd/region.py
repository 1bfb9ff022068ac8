"""A region, where a garment is to be painted (H, W), True = generate: read, brought to the latent grid,
shown, and pasted into its picture.

`scd.pose.region` makes one from a pose.
"""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from scd.media.original import read_original
from scd.types import Mask, Region, UserError

log = logging.getLogger("scd")

HALF = 127.5  # a soft mask generates from half on
MOST_BORDER, MOST_PICTURE = 0.6, 0.75  # a region over more of the border or the picture is probably inverted
TINT, TINT_STRENGTH = (255, 0, 120), 0.45
OUTLINE = (255, 255, 255)


def read_region(path: str | Path, size: tuple[int, int]) -> Region:
    """The user's mask for a picture of `size` (height, width): white = generate, soft edges cut at half.

    What is transparent is black, so a white shape on nothing is a mask. A mask of another size is resized
    when its aspect ratio is the picture's. UserError when it is not, or when nothing is white; a log line
    when the mask seems to be inverted. UserError as in `read_image`, too.
    """
    mask = read_original(path)
    grey = mask.pixels.mean(-1, dtype=np.float32)
    if mask.alpha is not None:
        grey *= mask.alpha / np.float32(255)
    height, width = grey.shape
    if (height, width) != tuple(size):
        # either side may have been rounded by half a pixel, of the smaller picture
        slack = max(size[0] + height, size[1] + width) / 2
        if abs(height * size[1] - width * size[0]) > slack:
            raise UserError(
                f"{path} has {width}x{height} pixels, the picture {size[1]}x{size[0]}: "
                "make the mask of the picture's size, or of its aspect ratio"
            )
        way = cv2.INTER_AREA if height > size[0] else cv2.INTER_LINEAR
        grey = cv2.resize(grey, (size[1], size[0]), interpolation=way)
    region = grey > HALF
    if not region.any():
        raise UserError(f"{path} is empty: paint white where the garment goes (white = generate)")
    border = np.concatenate([region[0], region[-1], region[1:-1, 0], region[1:-1, -1]])
    if border.mean() > MOST_BORDER or region.mean() > MOST_PICTURE:
        log.warning(
            "%s: white, which is generated, covers %.0f %% of the picture and %.0f %% of its border: "
            "is the mask inverted?", path, 100 * region.mean(), 100 * border.mean(),
        )  # fmt: skip
    return region


def latent_region(region: Region, factor: int = 8) -> Region:
    """(..., H, W) on the pixel grid -> (..., ceil(H / factor), ceil(W / factor)) on the latent grid.

    A latent is generated when any of its pixels is: no pixel of the region is ever outside in latent space.
    """
    if factor < 1:
        raise ValueError(f"a latent has one pixel a side or more, not {factor}")
    *batch, height, width = region.shape
    rows, columns = -(-height // factor), -(-width // factor)
    whole = np.zeros((*batch, rows * factor, columns * factor), bool)
    whole[..., :height, :width] = region
    return whole.reshape(*batch, rows, factor, columns, factor).any((-3, -1))


def resized(region: Region, size: tuple[int, int]) -> Region:
    """The region of a picture in another size (height, width) of it."""
    if region.shape == size:
        return region
    return cv2.resize(region.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)


def white(mask: Mask) -> NDArray[np.uint8]:
    """A mask as a picture (H, W): 255 where it is True, else 0."""
    return np.where(mask, np.uint8(255), np.uint8(0))


def paste_back(generated: NDArray, original: NDArray, region: Region, feather: int | None = None) -> NDArray:
    """The original picture (H, W, 3) with the region painted: outside exactly the original, deeper inside
    than `feather` pixels exactly what was generated, a linear ramp between.

    Both uint8, or both float. feather None: 1/64 of the height, 1 pixel or more; 0 = a hard edge. Where the
    region is narrower than four feathers the ramp is shorter, so that a strap's middle half is generated
    too. ValueError when sizes or types differ.
    """
    if generated.shape != original.shape or region.shape != generated.shape[:2]:
        shapes = f"{generated.shape}, {original.shape} and {region.shape}"
        raise ValueError(f"generated, original and region differ in size: {shapes}")
    if generated.dtype != original.dtype:
        raise ValueError(f"generated and original differ in type: {generated.dtype} and {original.dtype}")
    if feather is None:
        feather = max(1, round(len(region) / 64))
    ramp = np.clip(_half_width(region, 2 * (feather + 1)) / 2, 1, feather + 1)
    alpha = np.minimum(_depth(region) / ramp, 1)[..., None]
    mixed = alpha * generated + (1 - alpha) * original
    if generated.dtype == np.uint8:
        mixed = np.rint(mixed)
    # By choice, not by weight, outside: what was generated there may be no number
    return np.where(region[..., None], mixed, original).astype(generated.dtype)


def _depth(region: Region) -> NDArray:
    """(H, W): how far each pixel is from the nearest one outside the region; 0 outside. The picture's border
    is no edge of the region."""
    depth = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # A distance between pixels is the root of a whole number; on some processors OpenCV's 7 is 7.0000005
    return np.sqrt(np.rint(depth.astype(np.float64) ** 2)).astype(np.float32)


def _half_width(region: Region, most: float) -> NDArray:
    """(H, W): the radius of the largest disc inside the region that covers the pixel, to a quarter, `most` at
    most: of a strap half its width, also where it joins a wide part."""
    depth, widest = _depth(region), np.zeros(region.shape, np.float32)
    radii = most * 0.75 ** np.arange(np.ceil(np.log(max(most, 1)) / np.log(4 / 3)) + 1)
    for radius in radii[::-1]:
        middles = depth >= radius
        if not middles.any():
            break
        widest[_depth(~middles) < radius] = radius
    return widest


def tinted(image: NDArray[np.uint8], region: Region) -> NDArray[np.uint8]:
    """A copy of the picture (H, W, 3), uint8 RGB, with the region tinted and its outline in white."""
    shown = image.astype(np.float32)
    shown[region] = (1 - TINT_STRENGTH) * shown[region] + TINT_STRENGTH * np.array(TINT, np.float32)
    result = np.rint(shown).astype(np.uint8)
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(result, outlines, -1, OUTLINE, max(1, max(region.shape) // 512))
    return result
