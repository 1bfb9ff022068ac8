"""Where a garment goes on the person of a picture: pose and region, as `scd mask` shows and `scd tryon` uses
them; and whether a picture of a garment is one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from scd.cli.job import frames_of, is_of_shape, parse_canvas
from scd.pose import detect
from scd.pose.detect import Detector
from scd.pose.region import Category, garment_region
from scd.pose.silhouette import find_region
from scd.types import BODY_NAMES, FACE, Person, Picture, Pose, Region, UserError

log = logging.getLogger("scd")

# With one of these, or a face, a person stands in the picture. MediaPipe sees a body without them in 3 of 180
# flat garments of the world (scores up to 0.24), with them in all 16 people of the authors' figures (0.85).
_LIMBS = [BODY_NAMES.index(f"{side}_{name}") for side in ("right", "left") for name in ("wrist", "knee")]
_SEEN = 0.5
_ONE_COLOUR = 8  # of 255: JPEG's own noise stays below


def pose_in_file(path: Path, picture: Path, image: Picture, person: Person, canvas: str | None) -> Pose:
    """The pose of `picture` from a pose file. Raises UserError when the file is of something else."""
    poses = frames_of(path, person, parse_canvas(canvas))
    if len(poses) != 1:
        raise UserError(f"{path} has {len(poses)} frames: give the pose of this one picture")
    (height, width), (rows, columns) = poses[0].size, image.shape[:2]
    if not is_of_shape(poses[0], image):
        raise UserError(
            f"{path} is of a picture of {width}x{height} pixels, "
            f"{picture} has {columns}x{rows}: give the pose of this picture"
        )
    return poses[0]


def region_of(
    picture: Path, image: Picture, pose: Pose, categories: Iterable[str], pose_only: bool = False
) -> Region:
    """(H, W) where garments of these categories go, all together. Raises UserError when the pose does not
    show it, or the picture does not."""
    region = np.zeros(image.shape[:2], bool)
    for name in dict.fromkeys(categories):
        category = cast(Category, name)
        try:
            if pose_only:
                found = garment_region(pose, (image.shape[0], image.shape[1]), category)
            else:
                found = find_region(image, pose, category)
        except UserError as error:
            raise UserError(f"{picture}: {error}") from None
        if not found.any():
            raise UserError(
                f"{picture} shows nothing of where {category} clothes go: "
                "use a picture that does, or paint a mask (white = generate)"
            )
        region |= found
    return region


def detector_if_there(name: str) -> Detector | None:
    """None where it is not installed: looking for people in garments is no reason to stop. UserError for a
    name that is none."""
    try:
        return detect.get_detector(name)
    except UserError:
        if name not in detect.DETECTORS:
            raise
        return None


def note_garments(paths: Sequence[Path], garments: Sequence[Picture], detector: Detector | None) -> None:
    """One line for each picture of a garment that shows a person, or nothing."""
    for path, image in zip(paths, garments, strict=True):
        if np.ptp(image, axis=(0, 1)).max() < _ONE_COLOUR:
            log.warning(
                "%s is of one colour all over, so no garment can be seen in it: a white one cut out needs a "
                "ground of another colour", path,
            )  # fmt: skip
        if detector is not None and any(map(_is_seen, detector.detect(image))):
            log.warning(
                "%s shows a person: a garment alone, laid flat, works best; crop the picture to the garment",
                path,
            )


def _is_seen(pose: Pose) -> bool:
    return bool((pose.scores[FACE] > _SEEN).any() or (pose.scores[_LIMBS] > _SEEN).any())
