"""Is the person in the pose that was asked for? A detector on the generated picture answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scd.pose.detect import enlarged
from scd.types import BODY, Pose

PCK_RADIUS = 0.1  # of the height of the true joints' box


def pck(picture: NDArray[np.uint8], truth: Pose, visible: NDArray[np.bool_], detector) -> float:
    """Share of the visible body joints that the detector finds within 0.1 of the height of the true joints'
    box.

    picture (H, W, 3); visible (128,) of the truth. The picture is enlarged to 256 px first; nobody found =
    all wrong.
    """
    height, width = picture.shape[:2]
    joints = visible[BODY] & (truth.scores[BODY] > 0)
    found = detector.detect(enlarged(picture))
    if not found or not joints.any():
        return 0.0
    aspect = np.array([width, height], np.float64)
    true = truth.joints[BODY][joints] * aspect
    # Several people are found only in a failed picture; the one that fits best is judged
    radius = PCK_RADIUS * height * np.ptp(truth.joints[BODY][truth.scores[BODY] > 0, 1])
    right = [
        (
            (np.linalg.norm(p.joints[BODY][joints] * aspect - true, axis=1) <= radius)
            & (p.scores[BODY][joints] > 0)
        ).mean()
        for p in found
    ]
    return float(max(right))
