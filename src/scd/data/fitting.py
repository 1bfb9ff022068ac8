"""What a pair of a try-on dataset holds, read: person, garment, region and pose, as they lie in a frame."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scd.data.pairs import TryOnPair
from scd.media import Placement, file_hash, framed, place, read_image
from scd.media.files import read_bytes, reading
from scd.media.picture import DAMAGED, quiet_pillow, reduced
from scd.pose.files import read_poses
from scd.pose.region import garment_region
from scd.pose.skeleton import bounding_box, empty_pose
from scd.region import white
from scd.types import BODY, NUM_BODY, Pose, UserError

WHITE = 128  # from here on a mask says: generate; JPEG frays the edges of masks
EXIF_ORIENTATION = 274

# Pixels that poses without a canvas were found in, (height, width)
VITON_HD_CANVAS, DRESS_CODE_CANVAS = (1024, 768), (512, 384)


@dataclass(frozen=True)
class Fitting:
    """A pair in one frame (H, W). Nothing is stretched; padding has the colour of the picture's edge."""

    person: NDArray[np.uint8]  # (H, W, 3)
    garment: NDArray[np.uint8]  # (H, W, 3)
    region: NDArray[np.bool_]  # (H, W) True = generate; never in the padding
    pose: Pose  # without joints where the dataset has none
    placement: Placement  # of the person's picture in the frame


def read_fitting(pair: TryOnPair, size: tuple[int, int]) -> Fitting:
    """The pair in a frame of `size` (height, width). Raises UserError naming the file that cannot be used."""
    person, garment = FramedPair(pair, size).pictures([0, 1])
    return Fitting(person, garment, *read_guides(pair, size))


def read_guides(pair: TryOnPair, size: tuple[int, int]) -> tuple[NDArray[np.bool_], Pose, Placement]:
    """Region, pose and placement of a `Fitting`, without its pictures. Raises UserError."""
    shape = size_of(pair)
    placement = place(shape, size)
    pose = read_pose(pair, shape)
    region = white(read_region(pair, pose, shape))
    inside = placement.apply(region, 0) > 0  # a pixel that holds some of it is in it
    return inside, placement.apply_to_pose(pose), placement


@dataclass(frozen=True)
class FramedPair:
    """The two pictures of a pair in a frame of `size` (height, width): 0 the person, 1 the garment."""

    pair: TryOnPair
    size: tuple[int, int]

    @property
    def key(self) -> list[Any]:
        """All that decides how they look. Raises UserError."""
        hashes = self.pair.content or (_hash(self.pair.person), _hash(self.pair.garment))
        return [*hashes, *self.size]

    @property
    def usable(self) -> NDArray[np.int64]:
        return np.arange(2)

    def pictures(self, frames: Sequence[int]) -> NDArray[np.uint8]:
        """(n, H, W, 3), padded with the colour of their edge. Raises UserError."""
        images = (read_image((self.pair.person, self.pair.garment)[number]) for number in frames)
        return np.stack([framed(image, self.size)[0] for image in images])


@lru_cache(maxsize=100_000)  # where no manifest knows it, once in a process
def _hash(path: Path) -> str:
    return file_hash(path)


def size_of(pair: TryOnPair) -> tuple[int, int]:
    """(height, width) of the person's picture. Raises UserError."""
    return pair.size if pair.size[0] else picture_size(pair.person)


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) as `read_image` returns it, from the file's head alone. Raises UserError."""
    with reading(path), path.open("rb") as file:
        try:
            with quiet_pillow(), Image.open(file) as image:
                width, height = image.size
                if image.getexif().get(EXIF_ORIENTATION, 1) >= 5:  # lies on its side
                    width, height = height, width
        except DAMAGED:
            raise UserError(f"{path} is not a picture that can be read: copy it again") from None
    width, height = reduced(width, height)
    return height, width


def read_region(pair: TryOnPair, pose: Pose, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) of the dataset's mask, or from the pose where it has none. Raises UserError."""
    if pair.region is None:
        with contextlib.suppress(UserError):
            region = garment_region(pose, size, pair.category)  # type: ignore[arg-type]
            if region.any():  # the place may lie beside the picture
                return region
        raise UserError(
            f"{pair.person}: has no agnostic mask, and no pose that shows where the garment goes; "
            "scd data prepare looks for poses"
        )
    mask = read_image(pair.region, ground=0)[..., 0] >= WHITE
    if mask.shape != size:
        (height, width), (wanted, across) = mask.shape, size
        if abs(height / width * across / wanted - 1) > 0.02:
            raise UserError(
                f"{pair.region}: is {width}x{height}, its picture {across}x{wanted}; a mask has its shape"
            )
        mask = np.array(Image.fromarray(mask).resize((across, wanted), Image.Resampling.NEAREST))
    if not mask.any():
        raise UserError(f"{pair.region}: is black everywhere, so there is nothing to paint; white = generate")
    return mask


def read_pose(pair: TryOnPair, size: tuple[int, int]) -> Pose:
    """The largest person of the pose file, in a picture of `size`; without joints where there is no file or
    nobody in it. Raises UserError."""
    if pair.pose is None:
        return empty_pose(size)
    pose = None if pair.pose.suffix == ".npz" else _dress_code_pose(pair.pose, size)
    if pose is None:
        people = _first_frame(pair.pose, size)
        if any(_beyond(person) for person in people):  # pictures made smaller, poses as they were
            people = _first_frame(pair.pose, VITON_HD_CANVAS)
        pose = max(people, key=_area, default=empty_pose(size))
    return replace(pose, size=size)


def _first_frame(path: Path, size: tuple[int, int]) -> list[Pose]:
    frames = read_poses(path, size).frames
    return frames[0] if frames else []


def _dress_code_pose(path: Path, size: tuple[int, int]) -> Pose | None:
    """{"keypoints": [[x, y, score, number], ...]}: 18 joints in OpenPose's order, in pixels of 384 x 512, -1
    where absent. None for another format."""
    try:
        content = json.loads(read_bytes(path))
    except ValueError:
        return None  # the other formats' reader says what is wrong
    try:
        if not isinstance(content, dict) or "keypoints" not in content:
            return None
        points = np.array(content["keypoints"], np.float32).reshape(NUM_BODY, -1)
        x, y = points[:, 0], points[:, 1]
    except (ValueError, TypeError, IndexError):
        raise UserError(f"{path} is not a usable pose file: {NUM_BODY} rows of numbers expected") from None
    score = points[:, 2] if points.shape[1] > 2 else np.ones(NUM_BODY, np.float32)
    there = (x > 0) & (y > 0) & (score > 0)
    pose = empty_pose(size)
    height, width = DRESS_CODE_CANVAS
    pose.joints[BODY] = np.where(there[:, None], np.stack([x / width, y / height], 1), 0)
    pose.scores[BODY] = np.where(there, score.clip(0, 1), 0)
    return pose


def _beyond(pose: Pose) -> bool:
    """Whether joints lie where the picture of this pose cannot have them."""
    return bool((pose.joints[pose.scores > 0] > 1.05).any())


def _area(pose: Pose) -> float:
    box = bounding_box(pose)
    return 0.0 if box is None else (box[2] - box[0]) * (box[3] - box[1])
