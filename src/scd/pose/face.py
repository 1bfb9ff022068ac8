"""The driver's expression in the shape of the reference's face.

The 68 points carry an identity: jaw, lips and eyes have the driver's shape. In the driving frames whose face
is most like the reference's (the same turn, a similar expression) the difference between both faces is the
difference of two people. It is measured there once, and added to every frame in that frame's own head pose:
what is left of the driver is the motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scd.pose.skeleton import FACE_PARTS, SURE
from scd.types import BODY_NAMES, NUM_FACE

EYES_MOUTH = tuple(
    i for part in ("right_eye", "left_eye", "outer_mouth", "inner_mouth") for i in FACE_PARTS[part]
)
MIN_POINTS = 60  # of 68: a face turned further away says nothing of its shape
NUM_NEAREST = 8
# Root mean square distance of two aligned faces over the face's own radius. Measured: two people seen alike
# differ by 0.07 to 0.11, one person turned or nodding by 15 degrees 0.09, by 30 degrees 0.19; beyond this it
# is no longer the person that differs.
LARGEST_DIFFERENCE = 0.12
_NOSE_TIP = 30  # where the face hangs on the body's nose

# The body's own points on the head, and the points of the face that they move with.
_HEAD = {
    "right_eye": FACE_PARTS["right_eye"], "left_eye": FACE_PARTS["left_eye"],
    "right_ear": range(0, 1), "left_ear": range(16, 17),
}  # fmt: skip


@dataclass(frozen=True)
class FaceMotion:
    """What the reference's face adds to the driver's, in the driver's pixels, around the tip of the nose."""

    points: NDArray[np.float64]  # (T, 68, 2)
    joints: dict[int, NDArray[np.float64]]  # the same for eyes and ears of the body, (T, 2) each


def face_motion(
    driving: NDArray[np.float64],
    scores: NDArray[np.float32],
    reference: NDArray[np.float64],
    reference_scores: NDArray[np.float32],
) -> FaceMotion:
    """From the driver's faces (T, 68, 2) and the reference's (68, 2), in pixels, with scores in 0..1.

    Zero, that is the driver's own proportions, where the reference has no face or no driving frame shows one
    seen alike.
    """
    nothing = FaceMotion(np.zeros(driving.shape), {})
    seen = scores >= SURE
    whole = np.flatnonzero(seen.sum(1) >= MIN_POINTS)
    own = reference_scores >= SURE
    if own.sum() < MIN_POINTS or not len(whole):
        return nothing
    aligned = np.full((len(whole), NUM_FACE, 2), np.nan)  # in the reference's pixels
    difference = np.zeros(len(whole))
    for i, t in enumerate(whole):
        use = seen[t] & own
        aligned[i, use] = _similar(driving[t, use], reference[use])
        radius = np.sqrt(np.square(reference[use] - reference[use].mean(0)).sum(1).mean())
        error = np.sqrt(np.square(aligned[i, use] - reference[use]).sum(1).mean())
        difference[i] = error / max(radius, 1e-6)
    nearest = np.argsort(difference, kind="stable")[:NUM_NEAREST]
    if difference[nearest[0]] > LARGEST_DIFFERENCE:
        return nothing
    # Those as near as the nearest, nearly: a face that laughs is no measure for one that does not.
    nearest = nearest[difference[nearest] <= 1.2 * difference[nearest[0]]]
    known = ~np.isnan(aligned[nearest, :, 0]).all(0) & own
    if not known[_NOSE_TIP]:
        return nothing
    neutral = np.where(known[:, None], reference, 0)
    neutral[known] = np.nanmedian(
        aligned[nearest][:, known], 0
    )  # the driver's face, in the reference's place
    change = np.where(known[:, None], reference - neutral, 0)
    change = np.where(known[:, None], change - change[_NOSE_TIP], 0)
    moved = np.zeros(driving.shape)
    for t in whole:
        use = seen[t] & known
        moved[t] = change @ _linear(neutral[use], driving[t, use])
    joints = {BODY_NAMES.index(name): moved[:, list(part)].mean(1) for name, part in _HEAD.items()}
    return FaceMotion(moved, joints)


def _similar(points: NDArray, target: NDArray) -> NDArray[np.float64]:
    """`points` (n, 2) turned, scaled and shifted onto `target` as well as least squares can."""
    a, b = points - points.mean(0), target - target.mean(0)
    # As complex numbers a turn and a scale are one factor.
    u, v = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    w = u * (np.vdot(u, v) / max(np.vdot(u, u).real, 1e-12))
    return np.stack([w.real, w.imag], 1) + target.mean(0)


def _linear(points: NDArray, target: NDArray) -> NDArray[np.float64]:
    """The 2 x 2 matrix M for which `points @ M` (around their mean) comes nearest to `target`: the turn, nod,
    tilt and size of the head, seen from far away."""
    return np.linalg.lstsq(points - points.mean(0), target - target.mean(0), rcond=None)[0]
