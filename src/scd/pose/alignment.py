"""How well a driving clip and a reference fit each other, with reasons, before anybody waits for a result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scd.pose.retarget import HIPS, Body, limb_scales, retarget
from scd.pose.skeleton import SURE
from scd.types import BODY_NAMES, Pose, PoseClip, UserError

ENOUGH = 0.65  # below, a warning is due: a reference cut at the hips has 0.6, one cut at the knees 0.8

# How far down a body is seen: where it is cut, what it shows.
_CUT = ("at the chest", "at the hips", "at the knees", "nowhere")
_SHOWS = ("nothing below the chest", "hips", "legs", "legs and feet")
# Width of the shoulders over the trunk's length, signed: 0.6 to 0.75 seen from the front, less than this seen
# from the side (turned by over 60 degrees), negative from behind.
_SIDE = 0.33
_VIEWS = ("behind", "the side", "the front")
_SAME_VIEW = (1.0, 0.5, 0.2)  # what a frame is worth by how many views apart it is
_FAR_POSE = 0.15  # 1 - cosine of the nearest driving pose; standing people among each other have under 0.05


@dataclass(frozen=True)
class Alignment:
    """How well motion and reference match."""

    score: float  # 0..1; 1 = nothing stands against it
    reasons: tuple[str, ...]  # what does, gravest first, one line each; () when nothing does

    @property
    def enough(self) -> bool:
        """Whether no warning is due."""
        return self.score >= ENOUGH


def alignment(driving: PoseClip, reference: Pose) -> Alignment:
    """The product of five numbers in 0..1: shown parts of the body, side it is seen from, pose of the nearest
    frame, how much of the retargeted figure and how much of its way fits into the reference's picture."""
    try:
        scales = limb_scales(driving, reference)
    except UserError as error:
        return Alignment(0.0, (str(error),))
    body = Body.of(driving)
    own = Body.of_pose(reference)
    moved = retarget(driving, reference, "none")
    judged = [
        _parts(body, own),
        _view(body, own),
        _pose(float(scales.distance.min())),
        _inside(moved, int(_extent(own)[0])),
        _travel(moved, retarget(driving, reference, "none", keep_inside=False)),
    ]
    reasons = sorted((one for one in judged if one[1]), key=lambda one: one[0])
    return Alignment(float(np.prod([score for score, _ in judged])), tuple(text for _, text in reasons))


def _extent(body: Body) -> NDArray[np.intp]:
    """(T,): how far down each frame shows the body, an index of _SHOWS."""
    shown = [(body.scores[:, _sides(name)] >= SURE).any(1) for name in ("hip", "knee", "ankle")]
    level = np.zeros(len(body.scores), int)
    for i, here in enumerate(shown, 1):
        level[here] = i
    return level


def _sides(name: str) -> list[int]:
    return [BODY_NAMES.index(f"{side}_{name}") for side in ("right", "left")]


def _parts(body: Body, own: Body) -> tuple[float, str]:
    there = body.scores.any(1)
    driver, reference = int(np.median(_extent(body)[there])), int(_extent(own)[0])
    if reference < driver:
        text = f"the reference is cut {_CUT[reference]}, the driver shows {_SHOWS[driver]}: these are made up"
        return 1 - 0.2 * (driver - reference), text
    if driver < reference:
        text = f"the driver is cut {_CUT[driver]}, the reference shows {_SHOWS[reference]}: these get no pose"
        return 1 - 0.15 * (reference - driver), text
    return 1.0, ""


def _view(body: Body, own: Body) -> tuple[float, str]:
    views, (view,) = _views(body), _views(own)
    known = views[views >= 0]
    if view < 0 or not len(known):
        return 1.0, ""
    score = float(np.array(_SAME_VIEW)[np.abs(known - view)].mean())
    shares = [float((known == other).mean()) for other in range(len(_VIEWS))]
    others = [
        f"from {_VIEWS[other]} in {share:.0%} of its frames"
        for other, share in enumerate(shares)
        if other != view and share >= 0.1
    ]
    if score > 0.9 or not others:
        return score, ""
    return score, f"the reference is seen from {_VIEWS[view]}, the driver {' and '.join(others)}"


def _views(body: Body) -> NDArray[np.intp]:
    """(T,): index of _VIEWS, -1 where shoulders or hips are missing."""
    right, left = _sides("shoulder")
    neck = BODY_NAMES.index("neck")
    trunk = np.hypot(*(body.points[:, neck] - body.points[:, HIPS]).T)
    known = (body.scores[:, [right, left, HIPS]] >= SURE).all(1) & (trunk > 0)
    width = (body.points[:, left, 0] - body.points[:, right, 0]) / np.where(known, trunk, 1)
    return np.where(known, 1 + (width > _SIDE).astype(int) - (width < -_SIDE), -1)


def _pose(distance: float) -> tuple[float, str]:
    if distance <= _FAR_POSE:
        return 1.0, ""
    text = "no driving frame has a pose like the reference's, so its proportions are a guess"
    return max(0.5, 1 - (distance - _FAR_POSE)), text


def _inside(clip: PoseClip, extent: int) -> tuple[float, str]:
    """How many of the joints that the reference shows stay in its picture."""
    lower = [joint for name in ("hip", "knee", "ankle")[extent:] for joint in _sides(name)]
    joints = [joint for joint in range(len(BODY_NAMES)) if joint not in lower]
    seen = clip.scores[:, joints] >= SURE
    inside = ((clip.joints[:, joints] >= 0) & (clip.joints[:, joints] <= 1)).all(-1)
    share = float(inside[seen].mean()) if seen.any() else 1.0
    if share > 0.95:
        return share, ""
    return share, f"{1 - share:.0%} of the moved joints lie outside the reference's picture: leave more room"


def _travel(moved: PoseClip, whole: PoseClip) -> tuple[float, str]:
    """Whether the way to the sides had to be shortened to stay in the picture."""
    neck = moved.scores[:, 1] > 0
    if not neck.any():
        return 1.0, ""
    short, full = (float(np.ptp(clip.joints[neck, 1, 0])) for clip in (moved, whole))
    share = short / full if full > 0.05 else 1.0
    if share > 0.9:
        return 1.0, ""
    text = f"the way to the sides is cut to {share:.0%} to stay in the reference's picture: leave more room"
    return 0.7 + 0.3 * share, text
