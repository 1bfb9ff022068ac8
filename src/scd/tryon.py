"""Garments on the person of a picture: the part of it that the model is shown, the painting, and the way back
into the picture, where nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from scd import media
from scd.data.buckets import Buckets, person_box, place_around
from scd.encoders import require_finite
from scd.media.original import Original
from scd.media.placement import PixelBox, border_colour
from scd.region import paste_back, white
from scd.types import Picture, Pose, Region

# A region without a pose: a top's is 0.45 as high as its person, so the person lies in it grown by this part
# of its longer side on all sides
ALONE = 0.6
WORTH = 1.25  # a part of the picture is shown when it is so much larger there than in the whole picture
FEATHER = 64  # the seam is this part of the shown height wide, inside the region


@dataclass(frozen=True)
class Stage:
    """What the model is shown of a picture: a frame (H, W)."""

    person: Picture  # (H, W, 3) padded with the colour of the picture's edge
    region: Region  # (H, W); never in the padding
    pose: Pose | None
    placement: media.Placement  # of the picture in the frame


def set_stage(original: Original, region: Region, pose: Pose | None, buckets: Buckets) -> Stage:
    """The picture in one of the model's buckets. region (H, W) of the picture's size; the pose of the picture
    in any size."""
    placement = place_region(region, pose, buckets)
    shown = original.part(placement.source).shown()
    whole = white(region)
    return Stage(
        _alone(placement, shown.shape).apply(shown, border_colour(shown)),
        placement.apply(whole, 0) > 0,  # a pixel that holds some of it is in it
        None if pose is None else placement.apply_to_pose(pose),
        placement,
    )


def place_region(region: Region, pose: Pose | None, buckets: Buckets) -> media.Placement:
    """How a picture lies in a frame: around region and person where they would be small, else whole."""
    (height, width), (left, top, right, bottom) = region.shape, box_around(region)
    box = np.array([left / width, top / height, right / width, bottom / height])
    person = None if pose is None else person_box([pose])
    if person is None:
        more = ALONE * max(right - left, bottom - top) / np.array([width, height])
        box = np.concatenate([box[:2] - more, box[2:] + more]).clip(0, 1)
    else:
        box = np.concatenate([np.minimum(box[:2], person[:2]), np.maximum(box[2:], person[2:])])
    left, top, right, bottom = box.tolist()
    near = place_around((left, top, right, bottom), (height, width), buckets)
    whole = media.place((height, width), buckets.nearest(height, width))
    return near if _scale(whole) > WORTH * _scale(near) else whole


def read_garments(pipe: Any, pictures: Sequence[Picture], frame: tuple[int, int]) -> Any:
    """One reference of all garments: each is read alone, without a pose, and they add. `frame`: the person's
    (height, width), in which garments lie in training too."""
    return pipe.encode_reference([media.framed(picture, frame)[0] for picture in pictures])


def paint_stage(
    pipe: Any, reference: Any, stage: Stage, generator: torch.Generator | None = None,
    on_step: Callable[[], None] | None = None,
) -> Picture:  # fmt: skip
    """The frame (H, W, 3) as it is decoded: near the person's picture outside the region, not yet the same.
    UserError when it is no number."""

    def stepped(*_: Any) -> dict:
        if on_step is not None:
            on_step()
        return {}

    latents = pipe(
        reference, None if stage.pose is None else [stage.pose], person=stage.person, region=stage.region,
        generator=[generator] if generator else None, output_type="latent", callback_on_step_end=stepped,
    ).images  # fmt: skip
    require_finite(latents, "the picture", pipe.unet.dtype)
    (frame,) = pipe.decode_frames(latents.transpose(0, 1))
    return frame


def put_back(original: Original, region: Region, placement: media.Placement, frame: Picture) -> Original:
    """The original with the region (H, W) painted from a frame: outside it the very same bytes, in it the
    same transparency."""
    left, top, right, bottom = placement.source
    shown = _alone(placement, (bottom - top, right - left)).undo(frame)
    # A pixel more on all sides: the seam is measured from what lies outside
    x0, y0, x1, y1 = box_around(region)
    x0, y0, x1, y1 = max(x0 - 1, left), max(y0 - 1, top), min(x1 + 1, right), min(y1 + 1, bottom)
    painted = original.in_its_colours(np.ascontiguousarray(shown[y0 - top : y1 - top, x0 - left : x1 - left]))
    pixels = original.pixels.copy()
    feather = max(1, round((bottom - top) / FEATHER))
    pixels[y0:y1, x0:x1] = paste_back(painted, pixels[y0:y1, x0:x1], region[y0:y1, x0:x1], feather)
    return replace(original, pixels=pixels)


def _alone(placement: media.Placement, shape: tuple[int, ...]) -> media.Placement:
    """The same for the part that is used, by itself, in pixels of `shape`."""
    height, width = shape[:2]
    return media.Placement((height, width), placement.size, (0, 0, width, height), placement.target)


def box_around(region: Region) -> PixelBox:
    """Around the region. ValueError when it is empty."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    if not len(rows):
        raise ValueError("an empty region: nothing to paint")
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _scale(placement: media.Placement) -> float:
    """Pixels of the picture in one of the frame."""
    return (placement.source[3] - placement.source[1]) / (placement.target[3] - placement.target[1])
