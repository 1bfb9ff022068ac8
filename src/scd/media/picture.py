"""Pictures in and out: whatever people have becomes uint8 RGB (H, W, 3); settings travel with a picture."""

from __future__ import annotations

import json
import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from scd.media.files import read_bytes, replacing
from scd.types import UserError

log = logging.getLogger("scd")

SMALLEST_SIDE = 16  # pixels; below this no person is recognisable
LARGEST_SIDE = 4096  # pixels; larger pictures are read smaller: the model works at 512 to 1024
MOST_PIXELS = 400_000_000  # 20,000 x 20,000: 2.2 GB of memory while a PNG is read (measured)
SETTINGS_KEY = "scd"

# What Pillow's readers raise on damaged files; found by damaging files of 19 kinds, 150 times each.
DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, RuntimeError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_QUALITY: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
}


def read_image(path: str | Path, ground: int = 255) -> NDArray[np.uint8]:
    """The picture (H, W, 3), uint8 RGB, as a person sees it.

    EXIF rotation is applied, transparency lies on a grey of `ground` (white; of masks, where white means
    something, black), 16 bits become 8 by scaling, colours with a profile
    become sRGB, of an animation the first frame is taken, and a picture whose longer side exceeds 4096 pixels
    is made smaller; the last two are logged. UserError when the file is missing, a folder, damaged, no
    picture, under 16 pixels or over 400 million.
    """
    path = Path(path)
    with opened(path) as image:
        note_if_reduced(path, *image.size)
        return to_rgb(image, path, ground)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The picture as Pillow opens it, for the block to decode; of an animation, which is logged, the first
    frame. UserErrors as in `read_image`, also for what the block meets."""
    data = read_bytes(path)
    try:
        with quiet_pillow(), open_picture(BytesIO(data)) as image:
            require_size(path, *image.size)
            # A phone's JPEG may carry a second picture (format MPO): that is no animation.
            if getattr(image, "is_animated", False) and image.format != "MPO":
                log.warning("%s has several frames: the first one is used", path)
            yield image
    except UnidentifiedImageError:
        hint = "use PNG, JPEG or WebP" if data else "the file is empty"
        raise UserError(f"{path} is not a picture that can be read: {hint}") from None
    except MemoryError:
        raise UserError(f"{path} does not fit into memory: make it smaller first") from None
    except DAMAGED as error:
        raise UserError(f"{path} is damaged or cut off ({error}): save or copy it again") from None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow warns of odd metadata; it has no bearing on the pixels."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        yield


def require_size(path: Path, width: int, height: int) -> None:
    """UserError when a picture of so many pixels is under 16 or over 400 million."""
    pixels = f"{width}x{height} pixels"
    if min(width, height) < SMALLEST_SIDE:
        raise UserError(
            f"{path} is too small ({pixels}): the shorter side needs at least {SMALLEST_SIDE} pixels"
        )
    if width * height > MOST_PIXELS:
        raise UserError(f"{path} is too large ({pixels}): make it smaller, {LARGEST_SIDE} pixels are enough")


def note_if_reduced(path: Path, width: int, height: int) -> None:
    """Log that the picture is read smaller than it is, if so."""
    if max(width, height) > LARGEST_SIDE:
        pixels = f"{width}x{height} pixels"
        log.warning("%s is %s: it is read with the longer side at %d", path, pixels, LARGEST_SIDE)


def reduced(width: int, height: int) -> tuple[int, int]:
    """(width, height) with the longer side at 4096 at most."""
    scale = min(1.0, LARGEST_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


_pixel_limit = threading.Lock()


def open_picture(source: BytesIO | Path) -> Image.Image:
    """Open without Pillow's limit (179 million pixels, then an exception), a module variable."""
    with _pixel_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def to_rgb(image: Image.Image, path: Path, ground: int = 255) -> NDArray[np.uint8]:
    """An opened picture as `read_image` returns it, without its notes; `image` itself is changed."""
    if max(image.size) > LARGEST_SIDE:
        # JPEG decodes at 1/2, 1/4 or 1/8; others ignore this
        image.draft(image.mode, (LARGEST_SIDE, LARGEST_SIDE))
    profile = image.info.get("icc_profile")
    ImageOps.exif_transpose(image, in_place=True)
    return as_shown(eight_bits(image, path), profile, ground)


def as_shown(image: Image.Image, profile: bytes | None, ground: int = 255) -> NDArray[np.uint8]:
    """What `eight_bits` gives as (H, W, 3) RGB: the longer side at 4096 at most, in sRGB, on white, or on
    another `ground`."""
    if max(image.size) > LARGEST_SIDE:
        image = image.resize(reduced(*image.size), Image.Resampling.LANCZOS, reducing_gap=2.0)
    image = to_srgb(image, profile)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, (ground, ground, ground, 255)), image)
    return np.array(image.convert("RGB"))


def eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """The same picture in mode L, RGB, RGBA or CMYK (which only its colour profile can convert well)."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UserError(f"{path} holds 32-bit numbers: save it with 8 or 16 bits per channel")
        # 65535 = 255 * 257: (v + 128) // 257 is v / 257 rounded.
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise UserError(f"{path} holds floating point numbers: save it with 8 or 16 bits per channel")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Phones save Display P3, print shops CMYK: without their profile the colours are pale or glaring."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(source):
                mode = "RGBA" if image.mode == "RGBA" else "RGB"
                converted = ImageCms.profileToProfile(
                    image, source, ImageCms.createProfile("sRGB"), outputMode=mode
                )
                return converted or image
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile, or one for another colour space: the colours as they are
    return image


def write_image(
    path: str | Path,
    image: NDArray[np.uint8],
    settings: Mapping[str, Any] | None = None,
    force: bool = False,
    profile: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> None:
    """Write a picture (H, W, 3), with transparency (H, W, 4), or a mask (H, W), uint8, as PNG, JPEG or WebP
    by the name's ending.

    `settings` (anything JSON can hold) travel inside a PNG, and beside the others in NAME.json
    (`out.jpg.json`); `read_settings` gives them back. `profile`: the ICC profile of colours that are not
    sRGB. `dpi`: pixels an inch (WebP has no place for it). UserError as in `replacing`, and for another
    ending.
    """
    path = Path(path)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path} has no ending that can be written: use {', '.join(_FORMATS)}")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,), (4,)):
        raise ValueError(f"a picture is uint8 (H, W, 3 or 4) or (H, W), not {image.dtype} {image.shape}")
    text = None if settings is None else json.dumps(dict(settings), indent=1, ensure_ascii=False)
    options = dict(_QUALITY[kind])
    if kind == "JPEG" and image.shape[2:] == (4,):
        raise UserError(f"{path}: JPEG holds no transparency: use a name that ends in .png or .webp")
    if profile:
        options["icc_profile"] = profile
    if dpi:
        options["dpi"] = dpi
    if text is not None and kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt(SETTINGS_KEY, text)
    with replacing(path, force) as temporary:
        try:
            Image.fromarray(image).save(temporary, kind, **options)
        except ValueError as error:  # WebP ends at 16383 pixels, JPEG at 65535
            raise UserError(f"{path} cannot be written: {error}") from None
        if kind == "PNG":
            return
        if text is None:
            forget_settings(path)
        else:
            with replacing(settings_beside(path), force) as sidecar:
                sidecar.write_text(text, encoding="utf-8")


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings that `write_image` stored with this picture. UserError when there are none."""
    path = Path(path)
    try:
        if settings_beside(path).is_file():
            text = settings_beside(path).read_text(encoding="utf-8")
        else:
            with open_picture(BytesIO(read_bytes(path))) as image:
                text = getattr(image, "text", {}).get(SETTINGS_KEY)
        settings = None if text is None else json.loads(text)
    except DAMAGED:
        settings = None
    if not isinstance(settings, dict):
        raise UserError(f"{path} carries no settings: only pictures written by scd do")
    return settings


def forget_settings(path: Path) -> None:
    """Remove what an earlier file of this name left beside it: the new one has other settings, or none."""
    beside = settings_beside(path)
    with suppress(OSError, ValueError, TypeError):
        said = set(json.loads(beside.read_text(encoding="utf-8")))
        if "kind" in said and said & {"version", "world_version"}:  # and no package's, nor OpenPose's
            beside.unlink()


def settings_beside(path: Path) -> Path:
    """The file that carries the settings of what cannot carry them itself: out.jpg -> out.jpg.json."""
    return path.with_name(path.name + ".json")
