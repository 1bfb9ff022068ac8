"""A picture that is to be changed in a part only: read as its file holds it, so that the rest can be written
again to the byte."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from scd.media.picture import as_shown, eight_bits, opened, to_srgb
from scd.media.placement import PixelBox

log = logging.getLogger("scd")

# Pillow's names of how a file lays out 16 bits per channel; it gives colours as 8 bits without a word
_SIXTEEN_BITS = re.compile(r"I;16|;16[BLN]")


@dataclass(frozen=True)
class Original:
    """A picture upright and in 8 bits, and otherwise as its file holds it: neither reduced nor flattened."""

    pixels: NDArray[np.uint8]  # (H, W, 3) RGB in the colours of `profile`
    alpha: NDArray[np.uint8] | None  # (H, W), None = opaque
    profile: bytes | None  # ICC; None = sRGB
    dpi: tuple[float, float] | None = None  # what a print shop's layout scales it by

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def whole(self) -> NDArray[np.uint8]:
        """(H, W, 3), or (H, W, 4) with its transparency, as `write_image` takes it."""
        return self.pixels if self.alpha is None else np.dstack([self.pixels, self.alpha])

    def part(self, box: PixelBox) -> Original:
        """What lies in the box; shares its memory."""
        left, top, right, bottom = box
        alpha = None if self.alpha is None else self.alpha[top:bottom, left:right]
        return Original(self.pixels[top:bottom, left:right], alpha, self.profile)

    def shown(self) -> NDArray[np.uint8]:
        """(h, w, 3) as `read_image` shows it: sRGB on white, the longer side at 4096 at most."""
        return as_shown(Image.fromarray(np.ascontiguousarray(self.whole)), self.profile)

    def in_its_colours(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture (H, W, 3) in sRGB as pixels of this one."""
        if self.profile is None:
            return image
        return np.array(ImageCms.applyTransform(Image.fromarray(image), _from_srgb(self.profile)))


def read_original(path: str | Path) -> Original:
    """The picture with all its pixels, its transparency, and colours as they are stored.

    EXIF rotation is applied and 16 bits become 8, which is logged. Grey, CMYK and palettes become RGB, in
    sRGB where they have a profile. UserError as in `read_image`.
    """
    path = Path(path)
    with opened(path) as image:
        if any(_SIXTEEN_BITS.search(str(tile)) for tile in getattr(image, "tile", ())):
            log.info("%s has 16 bits per channel: it is reduced to 8", path)
        profile, dpi = image.info.get("icc_profile"), _dpi(image)
        ImageOps.exif_transpose(image, in_place=True)
        image = eight_bits(image, path)
        if not (image.mode in ("RGB", "RGBA") and _can_be_kept(profile)):
            image, profile = to_srgb(image, profile), None
        alpha = np.array(image.getchannel("A")) if image.mode == "RGBA" else None
        return Original(np.array(image.convert("RGB")), alpha, profile, dpi)


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    """Pixels an inch, where the file says so and they can be written again."""
    try:
        across, down = map(float, image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 1 <= min(across, down) <= max(across, down) < 65536 else None


def _can_be_kept(profile: bytes | None) -> bool:
    """Whether colours can be brought into the profile: not into a scanner's, nor a broken one. sRGB needs
    none."""
    if not profile:
        return False
    try:
        if "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(BytesIO(profile))):
            return False
        _from_srgb(profile)
    except (ImageCms.PyCMSError, OSError):
        return False
    return True


def _from_srgb(profile: bytes) -> ImageCms.ImageCmsTransform:
    target = ImageCms.ImageCmsProfile(BytesIO(profile))
    return ImageCms.buildTransform(ImageCms.createProfile("sRGB"), target, "RGB", "RGB")
