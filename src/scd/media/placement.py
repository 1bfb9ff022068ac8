"""How a picture of any aspect lies in the frame that the model works in; several pictures on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from scd.pose.skeleton import Box, to_crop
from scd.types import Pose

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

    def shown(self, frame: NDArray[Any]) -> NDArray[Any]:
        """What of a frame (H, W, 3) or (H, W) shows the picture, without the padding: a view."""
        return _view(frame, self.target)

    def apply_to_pose(self, pose: Pose) -> Pose:
        """A pose of the picture as a pose of the frame."""
        return to_crop(pose, self.box, self.size)


def place(source_size: tuple[int, int], size: tuple[int, int]) -> Placement:
    """How a picture of `source_size` (height, width) lies whole in the middle of a frame of `size`, stretched
    by rounding only. Around a person: scd.data.buckets."""
    (height, width), (frame_height, frame_width) = source_size, size
    scale = min(frame_height / height, frame_width / width)
    target = _middle(size, (height * scale, width * scale))
    return Placement(source_size, size, (0, 0, width, height), target)


def fit(
    image: NDArray[np.uint8], size: tuple[int, int], fill: int | Sequence[int] = 255
) -> tuple[NDArray[np.uint8], Placement]:
    """The picture in a frame of `size` (height, width), never stretched, and the placement that undoes it."""
    placement = place((image.shape[0], image.shape[1]), size)
    return placement.apply(image, fill), placement


def framed(image: NDArray[np.uint8], size: tuple[int, int]) -> tuple[NDArray[np.uint8], Placement]:
    """`fit`, padded with the colour of the picture's border."""
    return fit(image, size, fill=border_colour(image))


def border_colour(image: NDArray[np.uint8]) -> list[int]:
    """The median colour of a picture's border, 0..255: padding with it makes no edge to be explained."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return [int(value) for value in np.median(border, axis=0)]


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
