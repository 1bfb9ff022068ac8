"""`scd mask`: where a garment goes on the person of a picture, as a mask to look at, change and give back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scd import media
from scd.cli.job import (
    ENDINGS,
    frames_of,
    identity_of,
    parse_canvas,
    parse_person,
    require_apart,
    require_free,
)
from scd.cli.options import Mask
from scd.pose import detect
from scd.pose.region import garment_region
from scd.pose.silhouette import find_region
from scd.region import tinted
from scd.types import Pose, UserError

KIND = "mask"  # of the settings that travel in the mask


def mask(options: Mask) -> None:
    """Run the verb: write mask and preview, and print their names. UserError, also when nobody is found."""
    out = options.out or Path("out") / f"{options.picture.stem}_{options.category}.png"
    if out.suffix.lower() != ".png":
        raise UserError(f"{out}: a mask is written as .png, which loses nothing: choose a name that ends so")
    preview = options.preview
    if preview is not None and preview.suffix.lower() not in ENDINGS:
        raise UserError(f"{preview}: a picture's name ends in {', '.join(ENDINGS)}")
    if preview is not None and preview.resolve() == out.resolve():
        raise UserError(f"{preview} is the mask's name too: choose another --preview")
    results = [out, *([preview] if preview else [])]
    require_apart(results, [options.picture, *([options.pose] if options.pose else [])])
    require_free(results, options.force)
    image = media.read_image(options.picture)
    pose = _pose(options, image)
    if options.pose_only:
        region = garment_region(pose, (image.shape[0], image.shape[1]), options.category)
    else:
        region = find_region(image, pose, options.category)
    if not region.any():
        raise UserError(
            f"{options.picture} shows nothing of where {options.category} clothes go: "
            "use a picture that does, or paint a mask (white = generate)"
        )
    settings = {
        "kind": KIND, "category": options.category, "pose_only": options.pose_only,
        "person": options.person or "largest", "detector": options.detector, "canvas": options.canvas,
        "inputs": {
            "picture": identity_of(options.picture),
            "pose": identity_of(options.pose) if options.pose else None,
        },
    }  # fmt: skip
    media.write_image(out, np.where(region, np.uint8(255), np.uint8(0)), settings, options.force)
    if preview is not None:
        media.write_image(preview, tinted(image, region), settings, options.force)
    for path in results:
        print(path)


def _pose(options: Mask, image: NDArray[np.uint8]) -> Pose:
    """The chosen person's pose, from the file or looked for."""
    person = parse_person(options.person or "largest")
    if options.pose is None:
        detector = detect.get_detector(options.detector)
        return detect.detect_one(image, person, str(options.picture), detector)
    poses = frames_of(options.pose, person, parse_canvas(options.canvas))
    if len(poses) != 1:
        raise UserError(f"{options.pose} has {len(poses)} frames: give the pose of this one picture")
    (height, width), (rows, columns) = poses[0].size, image.shape[:2]
    if abs(height * columns / (width * rows) - 1) >= 0.02:  # large pictures are read smaller
        raise UserError(
            f"{options.pose} is of a picture of {width}x{height} pixels, "
            f"{options.picture} has {columns}x{rows}: give the pose of this picture"
        )
    return poses[0]
