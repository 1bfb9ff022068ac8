"""Where a garment is to be painted, from the pose alone: what it does not see, it cannot leak.

Torso, arms and legs are convex hulls of discs around the joints, wide enough for the old garment and for any
new one of the category; face, hands and feet are kept out, as in the public datasets' masks. All measures
are in trunk lengths (neck to the middle of the hips), 0.48 m on a person of 1.70 m.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from scd.pose.skeleton import FACE_PARTS, HAND_BONES
from scd.types import BODY_NAMES, FACE, LEFT_HAND, RIGHT_HAND, Pose, Region, UserError

Category = Literal["upper", "lower", "dress"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
Point = NDArray[np.float64]  # (2,) x, y in pixels

THERE = 0.1  # from this score on a joint widens the region: MediaPipe gives hidden sleeves 0.1 to 0.3
SEEN = 0.5  # only above this score a part is kept out: a hand behind the back must not cut a hole

# The longest that limbs get, in trunk lengths. Foreshortening only shortens, so the body's unit is the
# largest length over its ratio; a person from the side still has legs, a bowed one arms.
LONGEST = {
    ("right_shoulder", "left_shoulder"): 0.80,
    **{(f"{side}_shoulder", f"{side}_elbow"): 0.64 for side in ("right", "left")},
    **{(f"{side}_elbow", f"{side}_wrist"): 0.58 for side in ("right", "left")},
    **{(f"{side}_hip", f"{side}_knee"): 0.96 for side in ("right", "left")},
    **{(f"{side}_knee", f"{side}_ankle"): 0.94 for side in ("right", "left")},
}  # fmt: skip

# Radii of the discs.
SHOULDER, ELBOW, WRIST, COLLAR = 0.22, 0.24, 0.22, 0.26
HIP, HEM = 0.34, 0.32  # a top ends HEM below the hips at most
WAIST = 0.42  # lower garments begin so far above the hips
THIGH, KNEE, ANKLE = 0.34, 0.32, 0.28
SKIRT = 0.52  # around both knees at once: a flared skirt stands so far off; trousers get the same
FINGER, PALM, FOREARM = 0.03, 0.03, 0.05  # tight: around a hand or an arm the garment goes on
FOOT = 0.16
JAW, HEAD = 0.02, 0.27
PAST = 0.05  # a cuff may lie so far past the wrist or the ankle


def garment_region(pose: Pose, size: tuple[int, int], category: Category) -> Region:
    """Where a garment of the category goes on the person of `pose`, in a picture of `size` (height, width).

    Joints that the pose lacks are taken from their neighbours; what lies outside the picture does not count.
    UserError when the category is unknown, or when the pose lacks the shoulders (upper, dress), or the hips
    (lower) and they cannot lie in the picture either.
    """
    if category not in CATEGORIES:
        raise UserError(f"there is no category {category!r}: use {', '.join(CATEGORIES)}")
    body = body_of(pose, size, category)
    canvas = np.zeros(size, np.uint8)
    if category != "lower":
        _paint_upper(canvas, body)
    if category != "upper":
        _paint_lower(canvas, body)
    canvas[kept_out(pose, size, category)] = 0
    return canvas > 0


@dataclass(frozen=True)
class BodyPoints:
    """Shoulders, elbows, wrists, hips, knees and ankles in pixels, seen or supplied, and their measure."""

    points: dict[str, Point]
    unit: float  # pixels of a trunk length
    down: Point  # (2,) of length 1, from the neck to the hips


def body_of(pose: Pose, size: tuple[int, int], category: Category) -> BodyPoints:
    """The pose's joints with what is missing supplied. UserError as in `garment_region`."""
    known = _known(pose, size)
    anchor = "hip" if category == "lower" else "shoulder"
    unit = _unit(known)
    shows = {name.split("_")[-1] for name in known}
    if unit < 1 or not (anchor in shows or (anchor == "hip" and "shoulder" in shows)):
        raise _lacks(anchor, category)
    points = dict(known)
    for name in ("shoulder", "hip"):
        _supply_other_side(points, name, unit, size)
    down = np.array([0.0, 1.0])
    if "right_shoulder" in points and "right_hip" in points:
        trunk = _middle(points, "hip") - _middle(points, "shoulder")
        down = trunk / max(float(np.hypot(*trunk)), 1e-6)
    for side in ("right", "left"):
        points.setdefault(f"{side}_shoulder", points.get(f"{side}_hip", np.zeros(2)) - unit * down)
        points.setdefault(f"{side}_hip", points[f"{side}_shoulder"] + unit * down)
        _supply_limb(points, [f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist"], 0.56 * unit, down)
        _supply_limb(points, [f"{side}_hip", f"{side}_knee", f"{side}_ankle"], 0.88 * unit, down)
    if min(points["right_hip"][1], points["left_hip"][1]) > size[0] and category == "lower":
        raise _lacks(anchor, category)  # supplied from the shoulders, and below the picture
    return BodyPoints(points, unit, down)


def _lacks(anchor: str, category: Category) -> UserError:
    return UserError(
        f"the pose shows no {anchor}s, so there is no region for {category} clothes: "
        "use a picture that shows them, or paint a mask for `scd tryon --region mask.png` (white = generate)"
    )


def kept_out(pose: Pose, size: tuple[int, int], category: Category) -> Region:
    """(H, W) what stays as it is: the face and the hands; for lower garments and dresses the feet; for lower
    garments the forearms that hang before them."""
    known, seen = _known(pose, size), _known(pose, size, SEEN)
    unit = _unit(known)
    canvas = np.zeros(size, np.uint8)
    pixels = pose.joints.astype(float) * (size[1], size[0])
    _paint_head(canvas, pose, pixels, known, unit)
    for side, hand in (("right", RIGHT_HAND), ("left", LEFT_HAND)):
        found = _paint_hand(canvas, pixels[hand], pose.scores[hand], unit)
        elbow, wrist = seen.get(f"{side}_elbow"), seen.get(f"{side}_wrist")
        if elbow is not None and wrist is not None:
            along, radius = _along(elbow, wrist) * unit, FOREARM * unit
            if not found:  # the detector gives no points: a hand straight on from the wrist
                _hull(canvas, [(wrist + 0.12 * along, radius), (wrist + 0.32 * along, radius)])
            if category == "lower":
                _hull(canvas, [(elbow, radius), (wrist, radius)])
        knee, ankle = known.get(f"{side}_knee"), known.get(f"{side}_ankle")
        if category != "upper" and knee is not None and ankle is not None:
            along = _along(knee, ankle)
            beyond = _bar(ankle + PAST * unit * along, along, FOOT * unit)
            _hull(canvas, [*beyond, (ankle + 0.3 * unit * along, FOOT * unit)])
    return canvas > 0


# ---- the parts ----


def _paint_upper(canvas: NDArray[np.uint8], body: BodyPoints) -> None:
    p, unit, down = body.points, body.unit, body.down
    hips = [p["right_hip"], p["left_hip"]]
    shoulders = [(p["right_shoulder"], SHOULDER * unit), (p["left_shoulder"], SHOULDER * unit)]
    hem = [end for hip in hips for end in _bar(hip + HEM * unit * down, down, HIP * unit)]
    _hull(canvas, [*shoulders, *((hip, HIP * unit) for hip in hips), *hem])
    _hull(canvas, [*shoulders, (_middle(p, "shoulder") - 0.1 * unit * down, COLLAR * unit)])
    for side in ("right", "left"):
        shoulder, elbow, wrist = (p[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
        _hull(canvas, [(shoulder, SHOULDER * unit), (elbow, ELBOW * unit)])
        along = _along(elbow, wrist)
        _hull(canvas, [(elbow, ELBOW * unit), *_bar(wrist + PAST * unit * along, along, WRIST * unit)])


def _paint_lower(canvas: NDArray[np.uint8], body: BodyPoints) -> None:
    """Hips and legs, and one hull around both for skirts: it tells nothing of what is worn."""
    p, unit, down = body.points, body.unit, body.down
    waist, skirt = [], []
    for side in ("right", "left"):
        hip, knee, ankle = (p[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
        along = _along(knee, ankle)
        waist += _bar(hip - WAIST * unit * down, down, HIP * unit)
        ankle_bar = _bar(ankle + PAST * unit * along, along, ANKLE * unit)
        _hull(canvas, [(hip, THIGH * unit), (knee, KNEE * unit)])
        _hull(canvas, [(knee, KNEE * unit), *ankle_bar])
        skirt += [(hip, THIGH * unit), (knee, SKIRT * unit), *ankle_bar]
    _hull(canvas, [*waist, *skirt])


def _paint_head(
    canvas: NDArray[np.uint8], pose: Pose, pixels: NDArray, known: dict[str, Point], unit: float
) -> None:
    """The face from its 68 points up to the hair line, with the ears; without them a disc around the head.

    Not the neck: collars reach up to the chin, and VITON-HD's masks cover it too.
    """
    joints = [known[name] for name in BODY_NAMES if name in known and name.endswith(("nose", "eye", "ear"))]
    face = pixels[FACE]
    if (pose.scores[FACE] >= THERE).all():
        brows = face[[*FACE_PARTS["right_brow"], *FACE_PARTS["left_brow"]]]
        chin = face[FACE_PARTS["jaw"][8]]
        top = brows + 0.42 * (brows.mean(0) - chin)
        _hull(canvas, [(point, JAW * unit) for point in (*face, *top, *joints)])
    elif joints:
        _hull(canvas, [(np.mean(joints, 0), HEAD * unit)])


def _paint_hand(canvas: NDArray[np.uint8], points: NDArray, scores: NDArray, unit: float) -> bool:
    """The bones of a hand, thick as fingers, and its palm; False when the hand is not seen."""
    seen = scores > SEEN
    if seen.sum() < 3:
        return False
    for start, stop in HAND_BONES:
        if scores[start] >= THERE and scores[stop] >= THERE and (seen[start] or seen[stop]):
            _hull(canvas, [(points[start], FINGER * unit), (points[stop], FINGER * unit)])
    palm = [i for i in (0, 1, 5, 9, 13, 17) if scores[i] >= THERE]
    if seen[palm].any():
        _hull(canvas, [(points[i], PALM * unit) for i in palm])
    return True


# ---- points ----


def _known(pose: Pose, size: tuple[int, int], least: float = THERE) -> dict[str, Point]:
    """The body's joints by name, in pixels: those with a score of `least`, above 0.5 for SEEN."""
    there = pose.scores > least if least == SEEN else pose.scores >= least
    pixels = pose.joints.astype(float) * (size[1], size[0])
    return {name: pixels[i] for i, name in enumerate(BODY_NAMES) if there[i]}


def _unit(known: dict[str, Point]) -> float:
    """Pixels of a trunk length; 0 when no two neighbours are known."""
    lengths = [0.0]
    lengths += [
        float(np.hypot(*(known[a] - known[b]))) / ratio
        for (a, b), ratio in LONGEST.items()
        if a in known and b in known
    ]
    if all(f"{side}_{name}" in known for side in ("right", "left") for name in ("shoulder", "hip")):
        lengths.append(float(np.hypot(*(_middle(known, "hip") - _middle(known, "shoulder")))))
    return max(lengths)


def _middle(points: dict[str, Point], name: str) -> Point:
    return (points[f"right_{name}"] + points[f"left_{name}"]) / 2


def _supply_other_side(points: dict[str, Point], name: str, unit: float, size: tuple[int, int]) -> None:
    """One of a pair is missing: it stands on the other side of the body, or where the picture ends."""
    middle = [points[joint][0] for joint in _MIDDLE if joint in points and not joint.endswith(name)]
    for side, other in (("right", "left"), ("left", "right")):
        there = points.get(f"{other}_{name}")
        if f"{side}_{name}" not in points and there is not None:
            beyond = np.mean(middle) > there[0] if middle else there[0] > size[1] / 2
            width = (0.7 if name == "shoulder" else 0.4) * unit
            points[f"{side}_{name}"] = there + np.array([width if beyond else -width, 0.0])


_MIDDLE = ("nose", "right_shoulder", "left_shoulder", "right_hip", "left_hip")


def _supply_limb(points: dict[str, Point], names: list[str], length: float, down: Point) -> None:
    """A missing middle or end joint: straight on from the joint before, hanging along the trunk at first."""
    root, middle, end = names
    if middle not in points and end in points:
        points[middle] = (points[root] + points[end]) / 2
    points.setdefault(middle, points[root] + length * down)
    points.setdefault(end, points[middle] + length * _along(points[root], points[middle]))


def _along(start: Point, stop: Point) -> Point:
    """The direction from start to stop, of length 1; downwards where they are one point."""
    way = stop - start
    length = float(np.hypot(*way))
    return way / length if length > 1e-6 else np.array([0.0, 1.0])


def _bar(middle: Point, along: Point, half: float) -> list[tuple[Point, float]]:
    """The flat end of a limb: two points across it."""
    across = np.array([-along[1], along[0]])
    return [(middle - half * across, 0.0), (middle + half * across, 0.0)]


_CIRCLE = np.stack([np.cos(np.arange(24) * np.pi / 12), np.sin(np.arange(24) * np.pi / 12)], -1)


def _hull(canvas: NDArray[np.uint8], discs: list[tuple[Point, float]]) -> None:
    """Fill the convex hull of discs (centre, radius in pixels), clipped far outside the picture."""
    height, width = canvas.shape
    outline = np.concatenate([centre + radius * _CIRCLE for centre, radius in discs])
    outline = outline.clip((-4 * width, -4 * height), (5 * width, 5 * height)) - 0.5
    cv2.fillConvexPoly(canvas, cv2.convexHull(np.rint(outline * 16).astype(np.int32)), (255,), cv2.LINE_8, 4)
