"""The 3-D skeleton of one drawn person: proportions, joint angles, forward kinematics, and its 128 joints.

Space is in metres: x to the right of the picture, y up, z towards the camera; the ground is y = 0. A person
at yaw 0 looks along +z, so the person's own left is at +x. Pairs of limbs are stored (right, left).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

STATURE = 1.70  # all tables below are for this stature in metres and scaled by the person's own

_ARM = ("raise", "swing", "twist", "elbow", "wrist", "curl")
_LEG = ("out", "stride", "turn", "knee", "toe")
# Names of a posture's numbers, all degrees except the two shifts (metres). A posture is a flat vector, so
# postures can be mixed.
PARAMETERS = (
    "yaw", "shift_x", "shift_y", "tilt", "bow", "side", "bend", "spin", "nod", "cock", "look",
    *(f"right_{name}" for name in _ARM), *(f"left_{name}" for name in _ARM),
    *(f"right_{name}" for name in _LEG), *(f"left_{name}" for name in _LEG),
)  # fmt: skip
INDEX = {name: i for i, name in enumerate(PARAMETERS)}
ARM = {side: slice(INDEX[f"{side}_raise"], INDEX[f"{side}_raise"] + 6) for side in ("right", "left")}
LEG = {side: slice(INDEX[f"{side}_out"], INDEX[f"{side}_out"] + 5) for side in ("right", "left")}


@dataclass(frozen=True)
class Body:
    """Proportions: factors around 1 of the tables for a person of 1.70 m."""

    stature: float  # metres
    girth: float  # thickness of everything
    shoulders: float  # half distance of the shoulder joints, metres (before scaling)
    hips: float  # width of the hips
    waist: float  # width of the waist
    bust: float  # depth of the chest
    legs: float  # length of the legs
    head: float  # size of the head

    @property
    def scale(self) -> float:
        return self.stature / STATURE


def sample_body(rng: np.random.Generator) -> Body:
    """Draw proportions, from slim to stout and from narrow to broad shoulders."""
    curvy = rng.uniform()  # one axis from broad shoulders to a narrow waist and wide hips
    return Body(
        stature=rng.uniform(1.55, 1.88),
        girth=float(np.clip(rng.normal(1.0, 0.09), 0.85, 1.25)),
        shoulders=0.182 - 0.026 * curvy + rng.uniform(-0.006, 0.006),
        hips=0.96 + 0.10 * curvy,
        waist=1.04 - 0.13 * curvy + rng.uniform(-0.04, 0.06),
        bust=0.98 + 0.14 * curvy,
        legs=rng.uniform(0.96, 1.05),
        head=rng.uniform(1.05, 1.17),
    )


@dataclass(frozen=True)
class Figure:
    """A posed skeleton: what the surfaces hang on.

    R_* are (…, 3, 3) rotations whose columns are left, up, forward.
    """

    joints: np.ndarray  # (128, 3) the joints of `scd.types.Pose`
    pelvis: np.ndarray  # (3,) middle of the hip joints
    r_pelvis: np.ndarray
    r_chest: np.ndarray
    waist: np.ndarray  # (3,) where the spine bends
    neck: np.ndarray  # (3,) top of the chest
    head: np.ndarray  # (3,) middle of the skull
    r_head: np.ndarray
    arms: np.ndarray  # (2, 3, 3) shoulder, elbow, wrist per side
    r_arms: np.ndarray  # (2, 3, 3) of the upper arm
    r_fores: np.ndarray
    hands: np.ndarray  # (2, 21, 3)
    r_hands: np.ndarray
    legs: np.ndarray  # (2, 3, 3) hip, knee, ankle per side
    r_thighs: np.ndarray
    r_shins: np.ndarray
    r_feet: np.ndarray

    def moved(self, step: np.ndarray) -> Figure:
        """The same figure shifted by `step` (3,) metres."""
        places = ("joints", "pelvis", "waist", "neck", "head", "arms", "hands", "legs")
        return replace(self, **{name: getattr(self, name) + step for name in places})


def turn_x(degrees: float) -> np.ndarray:
    s, c = _sin_cos(degrees)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def turn_y(degrees: float) -> np.ndarray:
    s, c = _sin_cos(degrees)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def turn_z(degrees: float) -> np.ndarray:
    s, c = _sin_cos(degrees)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _sin_cos(degrees: float) -> tuple[float, float]:
    angle = float(degrees) * 0.017453292519943295
    return float(np.sin(angle)), float(np.cos(angle))


# The skull as rings from top to chin: height, half width, half depth, shift forward (metres around the middle
# of the skull).
SKULL = np.array(
    [
        [0.128, 0.004, 0.005, -0.012], [0.122, 0.032, 0.040, -0.012], [0.108, 0.052, 0.066, -0.012],
        [0.080, 0.068, 0.086, -0.010],
        [0.045, 0.075, 0.094, -0.007], [0.010, 0.076, 0.092, -0.004], [-0.025, 0.072, 0.086, 0.001],
        [-0.060, 0.064, 0.074, 0.010],
        [-0.090, 0.050, 0.056, 0.026], [-0.108, 0.032, 0.034, 0.042], [-0.117, 0.004, 0.006, 0.052],
    ]
)  # fmt: skip


def skull_depth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The z of the front of the skull at head coordinates (x, y), metres before scaling."""
    y = np.clip(y, SKULL[-1, 0], SKULL[0, 0])
    half, deep, shift = (np.interp(-y, -SKULL[:, 0], SKULL[:, k]) for k in (1, 2, 3))
    return shift + deep * np.sqrt(np.clip(1 - (x / half) ** 2, 0, 1))


def _face_points() -> np.ndarray:
    """The 68 iBUG points on the front of the skull, (68, 3).

    Point 0 is at the person's right ear (-x), the picture's left.
    """
    sweep = np.radians(np.linspace(-80, 80, 17))
    jaw = np.stack([0.070 * np.sin(sweep), -0.012 - 0.098 * np.cos(sweep) ** 0.9], 1)
    brow = np.array([[0.055, 0.042], [0.046, 0.053], [0.034, 0.057], [0.023, 0.056], [0.013, 0.052]])
    nose = np.array([[0, 0.024], [0, 0.010], [0, -0.004], [0, -0.017],
                     [-0.014, -0.029], [-0.007, -0.031], [0, -0.033], [0.007, -0.031],
                     [0.014, -0.029]])  # fmt: skip
    eye = np.array(
        [[0.046, 0.023], [0.037, 0.030], [0.027, 0.030], [0.018, 0.022], [0.027, 0.016], [0.037, 0.016]]
    )
    lips = np.array([[-0.025, 0.000], [-0.016, 0.006], [-0.006, 0.009], [0, 0.007], [0.006, 0.009],
                     [0.016, 0.006], [0.025, 0.000],
                     [0.016, -0.008], [0.006, -0.011], [0, -0.012], [-0.006, -0.011], [-0.016, -0.008],
                     [-0.021, 0.000], [-0.007, 0.002], [0, 0.002], [0.007, 0.002], [0.021, 0.000],
                     [0.007, -0.003], [0, -0.004], [-0.007, -0.003]])  # fmt: skip
    lips[:, 1] -= 0.060
    flip = np.array([-1.0, 1.0])
    other_eye = eye[[3, 2, 1, 0, 5, 4]]  # iBUG goes from picture left to right, then back below
    points = np.concatenate([jaw, brow * flip, brow[::-1], nose, eye * flip, other_eye, lips])
    depth = skull_depth(points[:, 0], points[:, 1])
    depth[27:31] += np.linspace(0.004, 0.026, 4)  # the ridge of the nose stands out
    depth[31:36] += (0.006, 0.012, 0.016, 0.012, 0.006)
    return np.concatenate([points, depth[:, None]], 1)


FACE_POINTS = _face_points()
# Nose tip, eyes and ears of the 18 body joints, in head coordinates.
_EYE = FACE_POINTS[42:48].mean(0)
_HEAD_JOINTS = np.array(
    [FACE_POINTS[30], _EYE * (-1, 1, 1), _EYE, [-0.078, 0.005, -0.010], [0.078, 0.005, -0.010]]
)

# A left hand hanging down, thumb forward, back of the hand outward: (out, along the fingers, towards the
# thumb), metres from the wrist.
_KNUCKLES = np.array([[0.085, 0.026], [0.090, 0.009], [0.086, -0.008], [0.078, -0.024]])
_PHALANGES = np.array(
    [[0.040, 0.024, 0.019], [0.045, 0.027, 0.020], [0.041, 0.025, 0.019], [0.032, 0.019, 0.017]]
)
_THUMB = np.array([[0.024, 0.024], [0.050, 0.040], [0.077, 0.048], [0.100, 0.050]])


def hand_points(curl: float) -> np.ndarray:
    """(21, 3) points of a left hand in its own frame (x outward, -y along the fingers, z to the thumb).

    Curl in degrees per knuckle.
    """
    points = np.zeros((21, 3))
    points[1:5, 1], points[1:5, 2] = -_THUMB[:, 0], _THUMB[:, 1]
    points[1:5, 0] = -np.array([0.006, 0.012, 0.018, 0.024]) * (0.5 + curl / 40)
    angles = np.radians(curl) * np.array([0.6, 1.5, 2.2])
    # (4, 3, 2): bends to the palm (-x)
    steps = np.cumsum(_PHALANGES[:, :, None] * np.stack([-np.sin(angles), -np.cos(angles)], 1), 1)
    spread = np.array([0.10, 0.03, -0.04, -0.11])
    for finger in range(4):
        along, across = _KNUCKLES[finger]
        block = points[5 + 4 * finger : 9 + 4 * finger]
        block[0] = 0, -along, across
        block[1:, 0] = steps[finger, :, 0]
        block[1:, 1] = -along + steps[finger, :, 1]
        block[1:, 2] = across - spread[finger] * steps[finger, :, 1] * 1.0
    return points


def stand(body: Body, posture: np.ndarray) -> Figure:
    """Forward kinematics.

    The skeleton in a posture (vector named by PARAMETERS), its lowest foot on the ground, then shifted.
    """
    p = dict(zip(PARAMETERS, posture.tolist(), strict=True))
    k = body.scale
    r_pelvis = turn_y(p["yaw"]) @ turn_z(p["tilt"]) @ turn_x(p["bow"])
    waist = r_pelvis @ (0, 0.13 * k, 0)
    r_chest = r_pelvis @ turn_y(p["spin"]) @ turn_z(p["side"]) @ turn_x(p["bend"])
    neck = waist + r_chest @ (0, 0.405 * k, -0.005 * k)
    r_head = r_chest @ turn_y(p["look"]) @ turn_z(p["cock"]) @ turn_x(p["nod"])
    head = neck + (0.4 * r_chest + 0.6 * r_head) @ (0, 0.054 * k + 0.117 * k * body.head, 0.012 * k)

    arms, legs = np.zeros((2, 3, 3)), np.zeros((2, 3, 3))
    hands = np.zeros((2, 21, 3))
    rotations: dict[str, list] = {"arm": [], "fore": [], "hand": [], "thigh": [], "shin": [], "foot": []}
    leg_length = k * body.legs
    for i, (name, sign) in enumerate((("right", -1.0), ("left", 1.0))):
        raised, swing, twist, elbow, wrist, curl = posture[ARM[name]].tolist()
        arm = r_chest @ turn_z(sign * raised) @ turn_x(-swing) @ turn_y(sign * twist)
        fore = arm @ turn_x(-elbow)
        hand = fore @ turn_z(sign * wrist)
        lift = max(raised - 60.0, 0.0) / 100.0  # a raised arm lifts its shoulder
        shoulder = waist + r_chest @ (
            sign * (body.shoulders - 0.018 * lift) * k,
            (0.345 + 0.035 * lift) * k,
            -0.005 * k,
        )
        arms[i, 0] = shoulder
        arms[i, 1] = arms[i, 0] + arm @ (0, -0.275 * k, 0)
        arms[i, 2] = arms[i, 1] + fore @ (0, -0.245 * k, 0)
        hands[i] = arms[i, 2] + k * (hand_points(curl) * (sign, 1, 1)) @ hand.T
        out, stride, turn, knee, toe = posture[LEG[name]].tolist()
        thigh = r_pelvis @ turn_z(sign * out) @ turn_x(-stride) @ turn_y(sign * turn)
        shin = thigh @ turn_x(knee)
        ahead = shin[:, 2] * (1, 0, 1) + 1e-9
        ahead = ahead / np.linalg.norm(ahead)
        up = np.array([0.0, 1.0, 0.0])
        foot = np.stack([np.cross(up, ahead), up, ahead], 1) @ turn_x(toe)
        legs[i, 0] = r_pelvis @ (sign * 0.092 * body.hips * k, 0, 0)
        legs[i, 1] = legs[i, 0] + thigh @ (0, -0.415 * leg_length, 0)
        legs[i, 2] = legs[i, 1] + shin @ (0, -0.400 * leg_length, 0)
        for key, value in zip(rotations, (arm, fore, hand, thigh, shin, foot), strict=True):
            rotations[key].append(value)

    r = {key: np.stack(value) for key, value in rotations.items()}
    toes = legs[:, 2] + r["foot"] @ (0, -0.075 * k, 0.15 * k)
    heels = legs[:, 2] + r["foot"] @ (0, -0.075 * k, -0.05 * k)
    move = np.array([p["shift_x"], p["shift_y"] - min(toes[:, 1].min(), heels[:, 1].min()), 0.0])
    waist, neck, head, pelvis = waist + move, neck + move, head + move, move
    arms, legs, hands = arms + move, legs + move, hands + move

    size = k * body.head
    joints = np.zeros((128, 3))
    joints[[0, 14, 15, 16, 17]] = head + size * _HEAD_JOINTS @ r_head.T
    joints[2:5], joints[5:8] = arms
    joints[8:11], joints[11:14] = legs
    joints[1] = (joints[2] + joints[5]) / 2
    joints[18:86] = head + size * FACE_POINTS @ r_head.T
    joints[86:107], joints[107:128] = hands[1], hands[0]
    return Figure(
        joints=joints,
        pelvis=pelvis,
        r_pelvis=r_pelvis,
        r_chest=r_chest,
        waist=waist,
        neck=neck,
        head=head,
        r_head=r_head,
        arms=arms,
        r_arms=r["arm"],
        r_fores=r["fore"],
        hands=hands,
        r_hands=r["hand"],
        legs=legs,
        r_thighs=r["thigh"],
        r_shins=r["shin"],
        r_feet=r["foot"],
    )
