"""A garment wider than any pose tells: the person's silhouette widens the region, generously, where cloth
stands out of it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scd.pose.detect import native_logs_silenced
from scd.pose.region import Category, body_of, garment_region, kept_out
from scd.types import Pose, Region

STRAY = 0.01  # of the region's pixels: less cloth than this outside is the silhouette's own error
REACH = 1.0  # trunk lengths from the region: further off stands somebody else
MARGIN = 0.15  # trunk lengths around the hull: the outline of the old skirt must not be read off
ARM = 0.25  # trunk lengths around elbows and wrists: arms beside a skirt are no cloth


def find_region(image: NDArray[np.uint8], pose: Pose, category: Category) -> Region:
    """(H, W), True = generate: the pose's region, widened by the silhouette where MediaPipe is installed.

    `image` is uint8 RGB (H, W, 3). UserError as in `garment_region`.
    """
    region = garment_region(pose, (image.shape[0], image.shape[1]), category)
    silhouette = None if category == "upper" else find_silhouette(image)
    return region if silhouette is None else widened(region, silhouette, pose, category)


def find_silhouette(image: NDArray[np.uint8]) -> Region | None:
    """(H, W) the people's pixels by MediaPipe's segmentation (in its wheel, 5 ms); None where it is missing.

    On six drawn people in dresses, 256 pixels high, it covered 93 to 98 % of the true pixels.
    """
    with native_logs_silenced():
        try:
            from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation
        except ImportError:
            return None
        with SelfieSegmentation(model_selection=0) as network:  # two threads and 13 MB while it is open
            network.process(np.zeros((256, 256, 3), np.uint8))  # its threads print while they start
            found: Any = network.process(np.ascontiguousarray(image))
            return found.segmentation_mask > 0.5


def widened(region: Region, silhouette: Region, pose: Pose, category: Category) -> Region:
    """The region with the hull of what stands out of it between waist and ankles, and a margin around it.

    For skirts and dresses, which may be wider than any pose tells. A top's region stays as it is: what stands
    out of it is hair. Never smaller than `region`, and what is kept out stays out.
    """
    if category == "upper":
        return region
    size = (region.shape[0], region.shape[1])
    body = body_of(pose, size, category)
    outside = kept_out(pose, size, category)
    near = cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, 5) < REACH * body.unit
    below = _between_waist_and_ankles(body.points, body.down, size)
    stray = silhouette & ~region & ~outside & near & below & ~_arms(body.points, body.unit, size)
    if stray.sum() <= STRAY * region.sum():
        return region
    rows, columns = np.nonzero(stray | (region & below))
    hull = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.stack([columns, rows], -1).astype(np.int32)), (1,))
    free = cv2.distanceTransform(1 - hull, cv2.DIST_L2, 5) <= MARGIN * body.unit
    return region | (free & ~outside)


def _between_waist_and_ankles(points: dict, down: NDArray, size: tuple[int, int]) -> Region:
    """Pixels by how far along the trunk's direction they lie: from the hips to the lower ankle."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    along = columns * down[0] + rows * down[1]
    hips = [points[f"{side}_hip"] @ down for side in ("right", "left")]
    ankles = [points[f"{side}_ankle"] @ down for side in ("right", "left")]
    return (along > min(hips)) & (along < max(ankles))


def _arms(points: dict, unit: float, size: tuple[int, int]) -> Region:
    canvas = np.zeros(size, np.uint8)
    for side in ("right", "left"):
        elbow, wrist = points[f"{side}_elbow"], points[f"{side}_wrist"]
        hand = wrist + 0.6 * (wrist - elbow)
        for start, stop in ((elbow, wrist), (wrist, hand)):
            ends = [tuple(int(v) for v in np.rint(point).clip(-9999, 9999)) for point in (start, stop)]
            cv2.line(canvas, ends[0], ends[1], (1,), max(1, round(2 * ARM * unit)))
    return canvas > 0
