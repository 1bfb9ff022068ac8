"""Retargeting: the driver's motion on the reference's body, limb by limb, on keypoints alone.

A limb is a 2-D vector from a joint to its child. Every frame's limbs are kept as they are seen,
foreshortening and all, and only multiplied by one constant of the clip for each kind of limb: the ratio of
the two bodies. The figure then stands where the reference stands, its lowest foot on the same ground. All
constants are found once; beyond them a frame's result depends on that frame alone, so nothing drifts however
long the clip is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scd.pose.face import EYES_MOUTH, FaceMotion, face_motion
from scd.pose.skeleton import SURE
from scd.types import BODY_NAMES, FACE, LEFT_HAND, NUM_JOINTS, RIGHT_HAND, Pose, PoseClip, UserError

FaceMode = Literal["none", "eyes-mouth", "full"]

HIPS = NUM_JOINTS  # index of the middle of the hips, which is no joint of a Pose

_J = {name: i for i, name in enumerate(BODY_NAMES)} | {"hips": HIPS}


def _limb(start: str, stop: str) -> tuple[int, int]:
    return _J[start], _J[stop]


def _both(start: str, stop: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """The limb on either side; "neck" and "hips" have no side."""
    right, left = (
        _limb(*(name if name in _J else f"{side}_{name}" for name in (start, stop)))
        for side in ("right", "left")
    )
    return right, left


def _points(part: slice, *pairs: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple((part.start + a, part.start + b) for a, b in pairs)


_PALM = ((0, 5), (0, 9), (0, 17))  # the wrist to three knuckles: the part of a hand that does not bend

# What is measured for each kind of limb. Both sides count as one: a body is symmetric, and one side is often
# hidden.
LIMBS: dict[str, tuple[tuple[int, int], ...]] = {
    "trunk": (_limb("neck", "hips"),),
    "thigh": _both("hip", "knee"),
    "shin": _both("knee", "ankle"),
    "shoulder": _both("neck", "shoulder"),
    "hip": _both("hips", "hip"),
    "upper_arm": _both("shoulder", "elbow"),
    "forearm": _both("elbow", "wrist"),
    "neck": (_limb("neck", "nose"),),
    "head": (
        _limb("right_eye", "left_eye"),
        _limb("right_ear", "left_ear"),
        *_points(FACE, (0, 16), (27, 8), (36, 45)),  # across the jaw, bridge of the nose to chin, eye to eye
    ),
    "hand": (*_points(LEFT_HAND, *_PALM), *_points(RIGHT_HAND, *_PALM)),
}
TORSO = ("trunk", "thigh", "shin")  # long, thick and rarely hidden: their mean is the body's own scale

_TREE: tuple[tuple[int | slice, tuple[tuple[str, str], ...]], ...] = (
    # What hangs (a joint or a part) on the first of which joints that is in the frame, by what kind of limb.
    (HIPS, (("neck", "trunk"),)),
    *((_J[f"{s}_shoulder"], (("neck", "shoulder"),)) for s in ("right", "left")),
    *((_J[f"{s}_elbow"], ((f"{s}_shoulder", "upper_arm"), ("neck", "upper_arm"))) for s in ("right", "left")),
    *(
        (_J[f"{s}_wrist"], ((f"{s}_elbow", "forearm"), (f"{s}_shoulder", "forearm")))
        for s in ("right", "left")
    ),
    *((_J[f"{s}_hip"], (("hips", "hip"), ("neck", "trunk"))) for s in ("right", "left")),
    *((_J[f"{s}_knee"], ((f"{s}_hip", "thigh"), ("hips", "thigh"))) for s in ("right", "left")),
    *((_J[f"{s}_ankle"], ((f"{s}_knee", "shin"), (f"{s}_hip", "shin"))) for s in ("right", "left")),
    (_J["nose"], (("neck", "neck"),)),
    *((_J[name], (("nose", "head"), ("neck", "head"))) for name in BODY_NAMES[14:]),
    (FACE, (("nose", "head"), ("neck", "head"))),
    (LEFT_HAND, (("left_wrist", "hand"),)),
    (RIGHT_HAND, (("right_wrist", "hand"),)),
)

NUM_NEAREST = 8  # driving frames that the first guess of the scale, and the ground, are taken from
# On 240 clips of drawn people (drivers of other proportions; references standing, and in two random postures)
# the median joint is 1.1 % of the picture's height away from the truth, 6.7 % without retargeting. Half or
# twice POSE_WIDTH or PRIOR changes that by under 1 % of it, LIMB_WIDTH by 15 to 23 %.
POSE_WIDTH = 0.2  # of the pose distance (1 - cosine): how fast a frame's say falls with its distance
LIMB_WIDTH = 0.1  # of the limb's length: the same for how well this very limb agrees with the reference's
PRIOR = 1.0  # frames that agree count against this many frames that say "as the torso"
LARGEST_CHANGE = 0.3  # of a limb's log scale from the torso's: 35 %, more than bodies differ


@dataclass(frozen=True)
class Body:
    """A clip's points in pixels, with the middle of the hips as the last one."""

    points: NDArray[np.float64]  # (T, 129, 2)
    scores: NDArray[np.float32]  # (T, 129); the middle of the hips has the lesser score of both

    @staticmethod
    def of(clip: PoseClip) -> Body:
        points = clip.joints.astype(np.float64) * (clip.size[1], clip.size[0])
        hips = [_J["right_hip"], _J["left_hip"]]
        score = clip.scores[:, hips].min(1, keepdims=True)
        middle = np.where(score[..., None] > 0, points[:, hips].mean(1, keepdims=True), 0)
        return Body(np.concatenate([points, middle], 1), np.concatenate([clip.scores, score], 1))

    @staticmethod
    def of_pose(pose: Pose) -> Body:
        """A clip of one frame."""
        return Body.of(PoseClip(pose.joints[None], pose.scores[None], pose.size, fps=1))


@dataclass(frozen=True)
class Scales:
    """How much longer the reference's limbs are than the driver's, in pixels."""

    limbs: dict[str, float]  # per kind of limb, names of LIMBS; the torso's where a limb cannot be measured
    torso: float  # the body's own: travel and jumps are multiplied by it
    nearest: NDArray[np.intp]  # (K,) driving frames that are most like the reference's pose, nearest first
    distance: NDArray[np.float64]  # (T,) 1 - cosine between a frame's limbs and the reference's; 2 = unusable


def limb_scales(driving: PoseClip, reference: Pose) -> Scales:
    """The ratio of both bodies for each kind of limb.

    A limb's length in a picture depends on how it points at the camera, so lengths are compared where the
    driver's pose is like the reference's: each frame votes with a weight that falls with the distance of the
    whole pose and of this limb, and with the joints' scores; few votes leave a limb near the torso's scale.
    UserError when the two share no limb at all.
    """
    body = Body.of(driving)
    own = Body.of_pose(reference)
    pairs = np.array([pair for limbs in LIMBS.values() for pair in limbs])
    kind = np.array([i for i, limbs in enumerate(LIMBS.values()) for _ in limbs])
    limbs, weights = _limbs(body, pairs)
    target, target_weights = (array[0] for array in _limbs(own, pairs))
    weights = weights * target_weights
    # Hands and face move on their own: the pose is the body's. Where there is none, faces must do.
    lengths, target_lengths = np.hypot(*np.moveaxis(limbs, -1, 0)), np.hypot(*target.T)
    usable = (weights > 0) & (lengths > 1e-6) & (target_lengths > 1e-6)
    weights = np.where(usable, weights, 0)
    on_body = (pairs < FACE.start) | (pairs == HIPS)
    posture = on_body.all(1) if weights[:, on_body.all(1)].any() else np.ones(len(pairs), bool)
    distance, ratio = _pose_distance(limbs, target, weights, target_weights, posture)
    if not (distance < 2).any():
        raise UserError(
            "the reference and the driving clip show no part of the body in common: use a reference picture "
            "and a driving clip that both show a person from head to hips or more"
        )
    order = np.argsort(distance, kind="stable")
    nearest = order[: max(1, min(NUM_NEAREST, int((distance < 2).sum())))]
    guess = float(np.median(ratio[nearest]))
    mismatch = ((limbs * np.exp(guess) - target) ** 2).sum(-1) / np.maximum(target_lengths, 1e-6) ** 2
    votes = weights * np.exp(-mismatch / (2 * LIMB_WIDTH**2))
    votes *= np.exp(-(distance - distance[nearest[0]]) / POSE_WIDTH)[:, None]
    logs = np.log(np.maximum(target_lengths, 1e-6) / np.maximum(lengths, 1e-6))
    total = np.array([votes[:, kind == i].sum() for i in range(len(LIMBS))])
    mean = np.array([(votes * logs)[:, kind == i].sum() for i in range(len(LIMBS))]) / np.maximum(
        total, 1e-12
    )
    trust = total / (total + PRIOR)
    torso = [i for i, name in enumerate(LIMBS) if name in TORSO]
    weight = trust[torso].sum()
    centre = float((trust[torso] * mean[torso]).sum() / weight) if weight > 1e-6 else guess
    change = (trust * (mean - centre)).clip(-LARGEST_CHANGE, LARGEST_CHANGE)
    scales = {name: float(np.exp(centre + change[i])) for i, name in enumerate(LIMBS)}
    return Scales(scales, float(np.exp(centre)), nearest, distance)


def _limbs(body: Body, pairs: NDArray) -> tuple[NDArray, NDArray]:
    """The vectors (T, L, 2) and their weights (T, L): the lesser score of both ends, 0 below SURE."""
    vectors = body.points[:, pairs[:, 1]] - body.points[:, pairs[:, 0]]
    scores = body.scores[:, pairs].min(-1)
    return vectors, np.where(scores >= SURE, scores, 0)


def _pose_distance(
    limbs: NDArray, target: NDArray, weights: NDArray, target_weights: NDArray, posture: NDArray
) -> tuple[NDArray, NDArray]:
    """Per frame: 1 - cosine between all limbs of the two poses, scaled by how much of the reference's pose
    the frame shows, and the log of the scale between the two; 2 where they share fewer than two limbs."""
    weights, limbs, target = weights[:, posture], limbs[:, posture], target[posture]
    inner = (weights * (limbs * target).sum(-1)).sum(1)
    ours = (weights * (limbs**2).sum(-1)).sum(1)
    theirs = (weights * (target**2).sum(-1)).sum(1)
    whole = (target_weights[posture] * (target**2).sum(-1)).sum()
    enough = ((weights > 0).sum(1) >= 2) & (ours > 0) & (theirs > 0)
    ours, theirs = np.where(enough, ours, 1), np.where(enough, theirs, 1)
    cosine = inner / np.sqrt(ours * theirs) * np.sqrt(np.minimum(theirs / max(whole, 1e-12), 1))
    return np.where(enough, 1 - cosine, 2.0), np.where(enough, np.log(theirs / ours) / 2, 0.0)


def retarget(
    driving: PoseClip, reference: Pose, face: FaceMode = "full", keep_inside: bool = True
) -> PoseClip:
    """The driver's motion as the reference's body would do it, on the reference's canvas.

    `driving` has T frames of any size; `reference` is the pose found in the reference picture. The result has
    the reference's size, the clip's frame rate and scores. At its start the figure stands where the reference
    stands; travel and jumps are scaled; joints may come to lie outside 0..1.

    `keep_inside` shortens the way to the sides, by one factor for the clip, where the figure would walk out
    of the reference's picture: a driver who crosses a wide picture would leave a portrait one empty.

    The points of the face that `face` keeps (`with_face`) move as the driver's do, in the shape of the
    reference's face (see `scd.pose.face`).

    UserError when the two share no limb, or `face` is something else.
    """
    scales = limb_scales(driving, reference)
    body = Body.of(driving)
    own = Body.of_pose(reference)
    motion = face_motion(body.points[:, FACE], body.scores[:, FACE], own.points[0, FACE], own.scores[0, FACE])
    points = _carried(body, scales, motion)
    width = reference.size[1] if keep_inside else np.inf
    points += _offsets(body, own, points, scales, driving.fps, width)[:, None]
    joints = points[:, :NUM_JOINTS] / (reference.size[1], reference.size[0])
    return with_face(PoseClip(joints, driving.scores, reference.size, driving.fps), face)


def with_face(clip: PoseClip, face: FaceMode) -> PoseClip:
    """The clip with as much of the face's 68 points as `face` says: all ("full"), those of eyes and mouth, or
    none. UserError when it says something else."""
    if face not in ("none", "eyes-mouth", "full"):
        raise UserError(f"--face is none, eyes-mouth or full, not {face!r}")
    keep = np.ones(NUM_JOINTS, np.float32)
    if face != "full":
        keep[FACE] = 0
        keep[FACE][list(EYES_MOUTH) if face == "eyes-mouth" else []] = 1
    scores = clip.scores * keep
    joints = np.where(scores[..., None] > 0, clip.joints, 0).astype(np.float32)
    return PoseClip(joints, scores, clip.size, clip.fps)


def _carried(body: Body, scales: Scales, motion: FaceMotion) -> NDArray[np.float64]:
    """The figure (T, 129, 2) in the reference's proportions and pixels, not yet in its place.

    A joint without any of its parents in a frame keeps its place on the driver's body, in the torso's scale.
    """
    present = body.scores > 0
    points = scales.torso * body.points
    shape = {**motion.joints, FACE.start: motion.points}
    for child, parents in _TREE:
        extra = shape.get(child.start if isinstance(child, slice) else child, 0.0)
        for name, kind in reversed(parents):  # the first parent has the last word
            parent = _J[name]
            vector = body.points[:, child] - _like(body.points[:, parent], child) + extra
            moved = _like(points[:, parent], child) + scales.limbs[kind] * vector
            points[:, child] = np.where(_like(present[:, parent, None], child), moved, points[:, child])
    return points


def _like(array: NDArray, child: int | slice) -> NDArray:
    """The parent's values (T, C), made to fit one child (T, C) or several (T, n, C)."""
    return array[:, None] if isinstance(child, slice) else array


def _offsets(
    body: Body, own: Body, points: NDArray, scales: Scales, fps: float, width: float
) -> NDArray[np.float64]:
    """How far each frame's figure is moved, (T, 2) pixels.

    Across: the hips (else the neck) begin at the reference's and travel as the driver's, scaled, and cut to
    stay within `width` pixels. Down: the lowest ankle keeps its scaled height above the ground that the
    reference stands on; without ankles, hips or neck again. A frame without these points takes the mean
    between its neighbours'.
    """
    offsets = np.zeros((len(points), 2))
    for joint in (HIPS, _J["neck"], _J["nose"]):
        seen = body.scores[:, joint] >= SURE
        if own.scores[0, joint] >= SURE and seen.any():
            break
    else:  # a face alone: any point that both have
        both = (own.scores[0] > 0) & (body.scores > 0).any(0)
        joint = int(both.argmax())
        seen = body.scores[:, joint] > 0
    path, place = body.points[:, joint], own.points[0, joint]
    # Where the driver starts is the median of a fifth of a second, not one noisy frame.
    start = np.median(path[seen][: max(1, round(0.2 * fps))], 0)
    near = scales.nearest[seen[scales.nearest]]
    level = np.median(path[near], 0)[1] if len(near) else start[1]
    travel = scales.torso * (path[:, 0] - start[0])
    travel *= _share_that_fits(travel[seen], float(place[0]), width, body, points)
    offsets[:, 0] = _filled(place[0] + travel - points[:, joint, 0], seen)
    down, known = place[1] + scales.torso * (path[:, 1] - level) - points[:, joint, 1], seen

    ankles = [_J["right_ankle"], _J["left_ankle"]]
    feet = body.scores[:, ankles] >= SURE
    stands = own.scores[0, ankles] >= SURE
    if stands.any() and feet.any(1).mean() >= 0.5:
        known = feet.any(1)
        low = np.where(feet, body.points[:, ankles, 1], -np.inf).max(1)
        ground = own.points[0, ankles, 1][stands].max()
        driver_ground = _ground(low, known, body, own, scales, fps)
        moved = np.where(feet, points[:, ankles, 1], -np.inf).max(1)
        with np.errstate(invalid="ignore"):
            down = ground - scales.torso * (driver_ground - low) - moved
    offsets[:, 1] = _filled(down, known)
    return offsets


def _share_that_fits(travel: NDArray, place: float, width: float, body: Body, points: NDArray) -> float:
    """How much of the way to the sides keeps the middle of the figure half its own width away from the edges,
    0..1."""
    seen = body.scores[:, : FACE.start] >= SURE
    x = points[:, : FACE.start, 0]
    span = (np.where(seen, x, -np.inf).max(1) - np.where(seen, x, np.inf).min(1))[seen.any(1)]
    margin = min(float(np.median(span)) / 2, 0.4 * width) if len(span) else 0.0
    room = max(place - margin, 0.0), max(width - margin - place, 0.0)
    needed = max(0.0, -travel.min()), max(0.0, travel.max())
    return min([1.0, *(have / need for have, need in zip(room, needed, strict=True) if need > have)])


def _ground(low: NDArray, known: NDArray, body: Body, own: Body, scales: Scales, fps: float) -> float:
    """The y of the ground under the driver, pixels: the lowest ankle in the frames whose legs stand most like
    the reference's and that are not in the air. (A foot put forward is lower in the picture on the same
    ground.)

    In the air: higher than the ankles are within 0.7 s before or after (the longest jump of a person lasts
    that long) by over a twentieth of the figure.
    """
    reach = max(1, round(0.7 * fps))
    size = _figure_height(body, low, known)
    floor = np.array([low[max(0, t - reach) : t + reach + 1].max() for t in range(len(low))])
    grounded = np.flatnonzero(known & (low >= floor - 0.05 * size))
    pairs = np.array([*LIMBS["hip"], *LIMBS["thigh"], *LIMBS["shin"], _limb("right_ankle", "left_ankle")])
    limbs, weights = _limbs(body, pairs)
    target, target_weights = (array[0] for array in _limbs(own, pairs))
    every = np.ones(len(pairs), bool)
    distance, _ = _pose_distance(limbs, target, weights * target_weights, target_weights, every)
    order = np.lexsort((scales.distance[grounded], distance[grounded]))
    return float(np.median(low[grounded[order][:NUM_NEAREST]]))


def _figure_height(body: Body, low: NDArray, known: NDArray) -> float:
    """From the neck to the lower ankle in the median frame, pixels; also of one who stands on their hands."""
    ok = known & (body.scores[:, _J["neck"]] >= SURE)
    return float(np.median(np.abs(low - body.points[:, _J["neck"], 1])[ok])) if ok.any() else 0.0


def _filled(values: NDArray, known: NDArray) -> NDArray[np.float64]:
    """`values` (T,) with the unknown ones on the line between the nearest known ones."""
    where = np.flatnonzero(known)
    return np.interp(np.arange(len(values)), where, values[where])
