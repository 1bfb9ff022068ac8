"""Pictures in and out: whatever people have becomes uint8 RGB (H, W, 3); no half-written file remains."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import struct
import threading
import uuid
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageDraw, ImageFont, ImageOps, PngImagePlugin, UnidentifiedImageError

from scd.pose.skeleton import Box, inverse_box, to_crop
from scd.types import Pose, UserError

log = logging.getLogger("scd")

SMALLEST_SIDE = 16  # pixels; below this no person is recognisable
LARGEST_SIDE = 4096  # pixels; larger pictures are read smaller: the model works at 512 to 1024
MOST_PIXELS = 400_000_000  # 20,000 x 20,000: 2.2 GB of memory while a PNG is read (measured)
SETTINGS_KEY = "scd"

# What Pillow's readers raise on damaged files; found by damaging files of 19 kinds, 150 times each.
_DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, RuntimeError,
    struct.error, zlib.error,
)  # fmt: skip

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_QUALITY: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
}


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """The picture (H, W, 3), uint8 RGB, as a person sees it.

    EXIF rotation is applied, transparency lies on white, 16 bits become 8 by scaling, colours with a profile
    become sRGB, of an animation the first frame is taken, and a picture whose longer side exceeds 4096 pixels
    is made smaller; the last two are logged. UserError when the file is missing, a folder, damaged, no
    picture, under 16 pixels or over 400 million.
    """
    path = Path(path)
    data = _read_bytes(path)
    with warnings.catch_warnings():
        # Pillow warns of odd metadata; it has no bearing on the pixels.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        try:
            with _open(data) as image:
                return _to_rgb(image, path)
        except UnidentifiedImageError:
            hint = "use PNG, JPEG or WebP" if data else "the file is empty"
            raise UserError(f"{path} is not a picture that can be read: {hint}") from None
        except MemoryError:
            raise UserError(f"{path} does not fit into memory: make it smaller first") from None
        except _DAMAGED as error:
            raise UserError(f"{path} is damaged or cut off ({error}): save or copy it again") from None


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check the name") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: name a file in it") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


_pixel_limit = threading.Lock()


def _open(data: bytes) -> Image.Image:
    """Open without Pillow's limit (179 million pixels, then an exception), a module variable."""
    with _pixel_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(BytesIO(data))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _to_rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    width, height = image.size
    pixels = f"{width}x{height} pixels"
    if min(width, height) < SMALLEST_SIDE:
        raise UserError(
            f"{path} is too small ({pixels}): the shorter side needs at least {SMALLEST_SIDE} pixels"
        )
    if width * height > MOST_PIXELS:
        raise UserError(f"{path} is too large ({pixels}): make it smaller, {LARGEST_SIDE} pixels are enough")
    # A phone's JPEG may carry a second picture (format MPO): that is no animation.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        log.warning("%s has several frames: the first one is used", path)
    if max(width, height) > LARGEST_SIDE:
        log.warning("%s is %s: it is read with the longer side at %d", path, pixels, LARGEST_SIDE)
        image.draft(
            image.mode, (LARGEST_SIDE, LARGEST_SIDE)
        )  # JPEG decodes at 1/2, 1/4 or 1/8; others ignore this
    profile = image.info.get("icc_profile")
    ImageOps.exif_transpose(image, in_place=True)
    image = _eight_bits(image, path)
    if max(image.size) > LARGEST_SIDE:
        scale = LARGEST_SIDE / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    image = _to_srgb(image, profile)
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
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


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
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


_WRITE_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EEXIST: "a file stands where its folder should be",
    errno.ENOTDIR: "a file stands where its folder should be",
}


@contextmanager
def replacing(path: str | Path, force: bool = False) -> Iterator[Path]:
    """A temporary name to write to: it becomes `path` when the block ends well, else it vanishes.

    The missing folders above are made. UserError, in one line, when `path` exists and `force` is not given,
    when it is a folder, and when the disk is full or may not be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder: name a file in it")
        if path.exists() and not force:
            raise UserError(f"{path} exists already: choose another name, or --force to replace it")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = _WRITE_ERRORS.get(error.errno or 0) or error.strerror or str(error)
        raise UserError(f"{path} cannot be written: {reason}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_image(
    path: str | Path, image: NDArray[np.uint8], settings: Mapping[str, Any] | None = None, force: bool = False
) -> None:
    """Write a picture (H, W, 3) or a mask (H, W), uint8, as PNG, JPEG or WebP by the name's ending.

    `settings` (anything JSON can hold) travel inside a PNG, and beside the others in NAME.json
    (`out.jpg.json`); `read_settings` gives them back. UserError as in `replacing`, and for another ending.
    """
    path = Path(path)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path} has no ending that can be written: use {', '.join(_FORMATS)}")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError(f"a picture is uint8 (H, W, 3) or (H, W), not {image.dtype} {image.shape}")
    text = None if settings is None else json.dumps(dict(settings), indent=1, ensure_ascii=False)
    options = dict(_QUALITY[kind])
    if text is not None and kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt(SETTINGS_KEY, text)
    with replacing(path, force) as temporary:
        try:
            Image.fromarray(image).save(temporary, kind, **options)
        except ValueError as error:  # WebP ends at 16383 pixels, JPEG at 65535
            raise UserError(f"{path} cannot be written: {error}") from None
        if text is not None and kind != "PNG":
            with replacing(_beside(path), force) as sidecar:
                sidecar.write_text(text, encoding="utf-8")


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings that `write_image` stored with this picture. UserError when there are none."""
    path = Path(path)
    text = None
    try:
        if _beside(path).is_file():
            text = _beside(path).read_text(encoding="utf-8")
        else:
            with _open(_read_bytes(path)) as image:
                text = getattr(image, "text", {}).get(SETTINGS_KEY)
        settings = None if text is None else json.loads(text)
    except _DAMAGED:
        settings = None
    if not isinstance(settings, dict):
        raise UserError(f"{path} carries no settings: only pictures written by scd do")
    return settings


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def file_hash(path: str | Path) -> str:
    """SHA-256 of the file's bytes, in hex. UserError when it cannot be read."""
    return hashlib.sha256(_read_bytes(Path(path))).hexdigest()


PixelBox = tuple[int, int, int, int]  # left, top, right, bottom in whole pixels; right and bottom are outside


@dataclass(frozen=True)
class Placement:
    """How a picture of any aspect lies in the fixed frame that the model works in; knows the way back."""

    source_size: tuple[int, int]  # (height, width) of the picture as it was read
    size: tuple[int, int]  # (height, width) of the frame
    source: PixelBox  # the part of the picture that is used
    target: PixelBox  # where that part lies in the frame; the rest is padding

    @property
    def box(self) -> Box:
        """The frame in fractions of the picture, for `to_crop`: beyond 0..1 where there is padding."""
        (height, width), (frame_height, frame_width) = self.source_size, self.size
        scale_x = (self.source[2] - self.source[0]) / (
            self.target[2] - self.target[0]
        )  # source pixels per frame pixel
        scale_y = (self.source[3] - self.source[1]) / (self.target[3] - self.target[1])
        left, top = self.source[0] - self.target[0] * scale_x, self.source[1] - self.target[1] * scale_y
        return (
            left / width,
            top / height,
            (left + frame_width * scale_x) / width,
            (top + frame_height * scale_y) / height,
        )

    def apply(self, image: NDArray[np.uint8], fill: int | Sequence[int] = 255) -> NDArray[np.uint8]:
        """The picture (H, W, 3) or (H, W) of `source_size` in the frame, with padding of colour `fill`."""
        _require_size(image, self.source_size)
        frame = np.empty((*self.size, *image.shape[2:]), np.uint8)
        frame[:] = fill
        _view(frame, self.target)[:] = _resize(_view(image, self.source), self.target)
        return frame

    def undo(self, image: NDArray[np.uint8], onto: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The frame as a picture of `source_size`; what it does not show comes from `onto`, else is black."""
        _require_size(image, self.size)
        result = np.zeros((*self.source_size, *image.shape[2:]), np.uint8) if onto is None else onto.copy()
        _require_size(result, self.source_size)
        _view(result, self.source)[:] = _resize(_view(image, self.target), self.source)
        return result

    def apply_to_pose(self, pose: Pose) -> Pose:
        """A pose of the picture as a pose of the frame."""
        return to_crop(pose, self.box, self.size)

    def undo_pose(self, pose: Pose) -> Pose:
        """A pose of the frame as a pose of the picture."""
        return to_crop(pose, inverse_box(self.box), self.source_size)


def place(
    source_size: tuple[int, int], size: tuple[int, int], mode: Literal["pad", "crop"] = "pad"
) -> Placement:
    """How a picture of `source_size` (height, width) lies in a frame of `size`, stretched by rounding only.

    "pad" shows the whole picture in the middle of the frame; "crop" fills the frame with the picture's
    middle.
    """
    (height, width), (frame_height, frame_width) = source_size, size
    if mode not in ("pad", "crop"):
        raise ValueError(f'mode is "pad" or "crop", not {mode!r}')
    if mode == "pad":
        scale = min(frame_height / height, frame_width / width)
        target = _middle(size, (height * scale, width * scale))
        return Placement(source_size, size, (0, 0, width, height), target)
    scale = max(frame_height / height, frame_width / width)
    source = _middle(source_size, (frame_height / scale, frame_width / scale))
    return Placement(source_size, size, source, (0, 0, frame_width, frame_height))


def fit(
    image: NDArray[np.uint8],
    size: tuple[int, int],
    mode: Literal["pad", "crop"] = "pad",
    fill: int | Sequence[int] = 255,
) -> tuple[NDArray[np.uint8], Placement]:
    """The picture in a frame of `size` (height, width), never stretched, and the placement that undoes it."""
    placement = place((image.shape[0], image.shape[1]), size, mode)
    return placement.apply(image, fill), placement


def _middle(outer: tuple[int, int], inner: tuple[float, float]) -> PixelBox:
    height, width = (min(max(1, round(part)), whole) for part, whole in zip(inner, outer, strict=True))
    top, left = (outer[0] - height) // 2, (outer[1] - width) // 2
    return left, top, left + width, top + height


def _view(image: NDArray[np.uint8], box: PixelBox) -> NDArray[np.uint8]:
    return image[box[1] : box[3], box[0] : box[2]]


def _resize(image: NDArray[np.uint8], box: PixelBox) -> NDArray[np.uint8]:
    width, height = box[2] - box[0], box[3] - box[1]
    if (height, width) == image.shape[:2]:
        return image
    smaller = height * width < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=method).astype(np.uint8, copy=False)


def _require_size(image: NDArray[np.uint8], size: tuple[int, int]) -> None:
    if image.shape[:2] != tuple(size):
        raise ValueError(f"this placement expects a picture of {size} (height, width), not {image.shape[:2]}")


def contact_sheet(
    rows: Sequence[Sequence[NDArray[np.uint8] | None]],
    labels: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    gap: int = 4,
) -> NDArray[np.uint8]:
    """Pictures side by side on white, (H, W, 3) uint8: `labels` above the columns, `row_labels` above rows.

    Every cell is as large as the first picture; others are fitted into it, None stays empty.
    """
    first = next((image for row in rows for image in row if image is not None), None)
    if first is None:
        raise ValueError("a contact sheet needs a picture")
    height, width = first.shape[:2]
    font = ImageFont.load_default()
    line = 14  # the default font is 10 pixels high
    head, above = (line if labels else 0), (line if row_labels else 0)
    columns = max(len(row) for row in rows)
    sheet = Image.new(
        "RGB", (columns * (width + gap) + gap, head + len(rows) * (height + above + gap) + gap), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(labels[:columns]):
        draw.text((gap + column * (width + gap), 1), label, fill="black", font=font)
    for index, row in enumerate(rows):
        top = head + gap + index * (height + above + gap)
        if index < len(row_labels):
            draw.text((gap, top), row_labels[index], fill="black", font=font)
        for column, image in enumerate(row):
            if image is not None:
                cell = fit(image, (height, width))[0]
                sheet.paste(Image.fromarray(cell).convert("RGB"), (gap + column * (width + gap), top + above))
    return np.array(sheet)
