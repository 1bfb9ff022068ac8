"""The surfaces of a figure: body, hair and clothes as grids of rings, all closed tubes around the bones.

A grid is (F, K, A, 3): F copies (right, left), K rings from the body outwards (top to bottom, hip to foot),
A points around each ring, in metres. Around a ring the angle goes from the person's left (0) over the front
(90 degrees) to the right and the back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .figure import SKULL, Body, Figure

if TYPE_CHECKING:
    from .head import Hair
    from .wardrobe import Outfit

# coarse points around a ring; cubic interpolation makes the dense ones, so 24 is a smooth circle even at 512
# px
ANGLES = 24
_FINE = {
    a: np.stack([np.cos(2 * np.pi * np.arange(a) / a), np.sin(2 * np.pi * np.arange(a) / a)])
    for a in (10, 24)
}

# a trunk is a little squarer than an ellipse
_BOXY = (1 + 0.07 * (2 * _FINE[ANGLES][0] * _FINE[ANGLES][1]) ** 2)[:, None]

# Torso from the top of the neck hole down to the crotch: height over the hip joints, half width, half depth,
# shift forward (metres).
TORSO = np.array(
    [
        [0.560, 0.050, 0.048, -0.004], [0.535, 0.062, 0.056, -0.006], [0.520, 0.104, 0.066, -0.010],
        [0.503, 0.148, 0.078, -0.012],
        [0.470, 0.164, 0.092, -0.010], [0.430, 0.168, 0.104, -0.004], [0.380, 0.165, 0.114, 0.004],
        [0.320, 0.157, 0.115, 0.006],
        [0.250, 0.145, 0.106, 0.002], [0.180, 0.137, 0.102, 0.000], [0.120, 0.143, 0.106, 0.000],
        [0.060, 0.158, 0.116, -0.004],
        [0.000, 0.170, 0.124, -0.008], [-0.045, 0.170, 0.116, -0.010], [-0.085, 0.152, 0.098, -0.008],
    ]
)  # fmt: skip
_CROTCH = np.array(
    [[-0.108, 0.090, 0.076, -0.006], [-0.124, 0.045, 0.045, -0.004], [-0.130, 0.004, 0.004, 0.0]]
)

# Limbs: place along the two bones (0 joint, 1 elbow or knee, 2 wrist or ankle), half width, half depth
# (metres).
ARM = np.array(
    [
        [-0.16, 0.003, 0.003], [-0.14, 0.026, 0.030], [-0.07, 0.044, 0.049], [0.00, 0.050, 0.056],
        [0.15, 0.051, 0.058],
        [0.35, 0.047, 0.052], [0.60, 0.043, 0.047], [0.85, 0.038, 0.041], [1.00, 0.037, 0.039],
        [1.15, 0.040, 0.042],
        [1.35, 0.039, 0.041], [1.65, 0.031, 0.035], [1.90, 0.024, 0.029], [2.03, 0.022, 0.028],
    ]
)  # fmt: skip
THIGH_TO_ANKLE = np.array(
    [
        [-0.10, 0.060, 0.075], [0.00, 0.077, 0.090], [0.12, 0.083, 0.092], [0.30, 0.080, 0.086],
        [0.55, 0.070, 0.075],
        [0.80, 0.059, 0.063], [0.95, 0.055, 0.060], [1.05, 0.053, 0.058], [1.20, 0.052, 0.058],
        [1.40, 0.053, 0.060],
        [1.65, 0.044, 0.050], [1.85, 0.036, 0.042], [2.00, 0.035, 0.041], [2.10, 0.034, 0.044],
    ]
)  # fmt: skip
# Shoe from heel to toe: along the foot, half width, half height, height of the middle over the ankle joint
# (metres).
SHOE = np.array(
    [
        [-0.066, 0.004, 0.010, -0.040], [-0.062, 0.022, 0.030, -0.042], [-0.045, 0.035, 0.043, -0.036],
        [-0.010, 0.040, 0.050, -0.030],
        [0.035, 0.042, 0.042, -0.038], [0.080, 0.047, 0.032, -0.047], [0.125, 0.048, 0.026, -0.053],
        [0.160, 0.040, 0.021, -0.058],
        [0.182, 0.024, 0.014, -0.064], [0.190, 0.004, 0.006, -0.068],
    ]
)  # fmt: skip


def loft(centres: np.ndarray, across: np.ndarray, ahead: np.ndarray, angles: int = ANGLES) -> np.ndarray:
    """Ellipses (..., K, A, 3) with half axes `across` (angle 0) and `ahead` (90 degrees), all (..., K, 3)."""
    cos, sin = _FINE[angles][0][:, None], _FINE[angles][1][:, None]
    return centres[..., None, :] + across[..., None, :] * cos + ahead[..., None, :] * sin


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product over the last axis: np.cross without its checks, four times as fast on small arrays."""
    return a[..., [1, 2, 0]] * b[..., [2, 0, 1]] - a[..., [2, 0, 1]] * b[..., [1, 2, 0]]


def _smooth(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def trunk(figure: Figure, body: Body, rows: np.ndarray, extra: float | np.ndarray = 0.0) -> np.ndarray:
    """Rings of the torso for table rows (K, 4), `extra` metres thicker; bends at the waist.

    Returns (1, K, A, 3).
    """
    k = body.scale
    height, wide, deep, shift = rows.T
    hips = np.interp(height, (0.05, 0.15, 0.25, 0.50), (body.hips, body.waist, 1.0, body.shoulders / 0.172))
    chest = np.interp(height, (0.22, 0.33, 0.40, 0.46), (0, body.bust - 1, body.bust - 1, 0))
    thick = 0.5 + 0.5 * body.girth
    wide = wide * hips * thick + extra
    deep = deep * body.girth * (1 + 0.5 * chest) + extra
    shift = shift + 0.05 * chest
    weight = _smooth((height - 0.04) / 0.18)[:, None]
    local = np.stack([np.zeros_like(height), height, shift], 1) * k
    low = figure.pelvis + local @ figure.r_pelvis.T
    high = figure.waist + (local - (0, 0.13 * k, 0)) @ figure.r_chest.T
    across = (figure.r_pelvis[:, 0] * (1 - weight) + figure.r_chest[:, 0] * weight) * (wide * k)[:, None]
    ahead = (figure.r_pelvis[:, 2] * (1 - weight) + figure.r_chest[:, 2] * weight) * (deep * k)[:, None]
    cos, sin = _FINE[ANGLES][:, None, :, None] * _BOXY
    return ((low * (1 - weight) + high * weight)[:, None] + across[:, None] * cos + ahead[:, None] * sin)[
        None
    ]


def limb(
    joints: np.ndarray,
    upper: np.ndarray,
    lower: np.ndarray,
    rows: np.ndarray,
    scale: float,
    extra: np.ndarray | float = 0.0,
):
    """Rings along two bones for table rows (K, 3): joints (2, 3, 3) of both sides, rotations (2, 3, 3).

    Returns (2, K, A, 3).
    """
    place, wide, deep = rows.T
    first, second = joints[:, 1] - joints[:, 0], joints[:, 2] - joints[:, 1]
    centres = (
        joints[:, None, 0]
        + np.minimum(place, 1)[None, :, None] * first[:, None]
        + np.maximum(place - 1, 0)[None, :, None] * second[:, None]
    )
    weight = _smooth((place - 0.82) / 0.36)[None, :, None]
    along = -(upper[:, None, :, 1] * (1 - weight) + lower[:, None, :, 1] * weight)
    along = along / np.sqrt((along**2).sum(-1, keepdims=True))
    # both bones share this axis: elbows and knees bend around it
    across = np.broadcast_to(upper[:, None, :, 0], along.shape)
    ahead = cross(along, across)
    return loft(
        centres,
        across * ((wide + extra) * scale)[None, :, None],
        ahead * ((deep + extra) * scale)[None, :, None],
    )


def cut(rows: np.ndarray, start: float, stop: float, num: int) -> np.ndarray:
    """Table rows re-sampled between two places of the first column."""
    order = np.argsort(rows[:, 0])
    places = np.linspace(start, stop, num)
    return np.stack(
        [places] + [np.interp(places, rows[order, 0], rows[order, c]) for c in range(1, rows.shape[1])], 1
    )


def cover(figure: Figure, body: Body, outfit: Outfit, hair: Hair) -> dict[str, np.ndarray]:
    """All grids of a dressed figure by name, float32.

    The names and shapes depend on the body and the outfit only, never on the posture.
    """
    k, girth = body.scale, body.girth
    top, lower, shoes = outfit.top, outfit.lower, outfit.shoes
    grids: dict[str, np.ndarray] = {}
    loose = 0.004 + 0.012 * top.loose
    hem = top.hem  # height over the hip joints
    height = TORSO[:, 0]
    fit = np.where(height < 0.47, loose, loose * np.clip((0.56 - height) / 0.09, 0, 1)) + np.where(
        height < hem - 0.001, -loose, 0
    )
    # worn over the trousers: outside of what they add below their waist
    if lower.kind == "lower" and hem < lower.waist:
        under = 0.014 + 0.006 * lower.loose + 0.014 * top.loose
        fit = fit + np.maximum(under - fit, 0) * _smooth((lower.waist + 0.09 - height) / 0.09) * (
            height >= hem - 0.001
        )
    grids["torso"] = trunk(figure, body, TORSO, fit)
    arm_rows = cut(ARM, top.sleeve - 0.12, 2.03, 12) if top.sleeve > 0.05 else ARM
    grids["arms"] = limb(figure.arms, figure.r_arms, figure.r_fores, arm_rows, k * girth)
    if top.sleeve > 0.05:
        sleeve = np.concatenate([ARM[:4], cut(ARM, 0.1, top.sleeve, 4 + int(5 * top.sleeve))])
        sleeve[:, 1:] *= girth
        place = sleeve[:, 0]
        flare = loose * np.clip(0.35 + 2 * place, 0.35, 1) + 0.010 * top.loose * np.clip(place, 0, 2)
        flare = flare + 0.022 * top.sleeve_flare * np.clip(place / top.sleeve, 0, 1) ** 2
        grids["sleeves"] = limb(figure.arms, figure.r_arms, figure.r_fores, sleeve, k, flare)

    bare = lower.length
    if lower.cut == "skirt":
        grids["legs"] = limb(
            figure.legs,
            figure.r_thighs,
            figure.r_shins,
            cut(THIGH_TO_ANKLE, max(bare - 0.20, 0.0), 2.1, 14),
            k * girth,
        )
        grids["skirt"] = skirt(figure, body, lower.waist, bare, lower.flare)
    else:
        if bare < 1.9:
            grids["legs"] = limb(
                figure.legs,
                figure.r_thighs,
                figure.r_shins,
                cut(THIGH_TO_ANKLE, bare - 0.12, 2.1, 12),
                k * girth,
            )
        rows = cut(THIGH_TO_ANKLE, -0.10, bare, 6 + int(4 * bare))
        rows[:, 1:] *= girth
        place = rows[:, 0]
        flare = (
            0.004
            + 0.020 * lower.loose * np.clip(place * 2, 0, 1)
            + 0.030 * lower.flare * np.clip(place / bare, 0, 1) ** 3
        )
        grids["trousers"] = limb(figure.legs, figure.r_thighs, figure.r_shins, rows, k, flare)
        seat = np.concatenate([cut(TORSO, lower.waist, -0.085, 7), _CROTCH])
        grids["seat"] = trunk(
            figure, body, seat, np.where(seat[:, 0] > -0.1, 0.006 + 0.006 * lower.loose, 0.0)
        )

    rows = cut(THIGH_TO_ANKLE, shoes.shaft, 2.08, 7) if shoes.shaft < 2 else None
    if rows is not None:
        grids["shafts"] = limb(figure.legs, figure.r_thighs, figure.r_shins, rows, k * girth, 0.010)
    grids["shoes"] = _shoes(figure, k * (0.5 + 0.5 * girth))
    grids["palms"], grids["fingers"] = _hands(figure, k)
    grids["neck"] = _neck(figure, body)
    grids |= _head(figure, body, hair)
    return {name: grid.astype(np.float32) for name, grid in grids.items()}


def skirt(figure: Figure, body: Body, waist: float, length: float, flare: float) -> np.ndarray:
    """Rings from the waist to `length` along the legs that always hold both legs. Returns (1, K, A, 3)."""
    k = body.scale
    upper = trunk(figure, body, cut(TORSO, waist, -0.03, 6), 0.010)
    place = np.linspace(0.14, length, 8)
    bones = figure.legs
    points = bones[:, None, 0] + np.minimum(place, 1)[None, :, None] * (bones[:, 1] - bones[:, 0])[:, None]
    points = points + np.maximum(place - 1, 0)[None, :, None] * (bones[:, 2] - bones[:, 1])[:, None]
    points = (points - figure.pelvis) @ figure.r_pelvis  # in the frame of the hips
    radius = np.interp(place, THIGH_TO_ANKLE[:, 0], THIGH_TO_ANKLE[:, 2]) * body.girth * k
    swing = 0.012 * k + flare * k * 0.12 * place
    # Each ring is an ellipse whose long axis runs from leg to leg, also when one is lifted or in front: it
    # holds both discs.
    apart = points[1] - points[0]
    apart[:, 0] = np.maximum(apart[:, 0], 0.02 * k)
    long = np.sqrt((apart**2).sum(-1, keepdims=True))
    across = apart / long
    ahead = cross(np.array([[0.0, -1.0, 0.0]]), across)
    across = across * (long / 2 + (radius + swing)[:, None])
    ahead = ahead / np.sqrt((ahead**2).sum(-1, keepdims=True)) * (radius + 0.01 * k + swing)[:, None]
    turn = figure.r_pelvis.T
    lower = loft(figure.pelvis + points.mean(0) @ turn, across @ turn, ahead @ turn)[None]
    return np.concatenate([upper, lower], 1)


def _shoes(figure: Figure, k: float) -> np.ndarray:
    along, wide, high, lift = (SHOE * k).T
    ankle, foot = figure.legs[:, 2], figure.r_feet
    centres = (
        ankle[:, None]
        + along[None, :, None] * foot[:, None, :, 2]
        + lift[None, :, None] * foot[:, None, :, 1]
    )
    return loft(centres, foot[:, None, :, 0] * wide[None, :, None], foot[:, None, :, 1] * high[None, :, None])


_PALM = np.array(
    [
        [-0.02, 0.018, 0.024],
        [0.012, 0.016, 0.025],
        [0.045, 0.015, 0.036],
        [0.070, 0.013, 0.041],
        [0.090, 0.009, 0.037],
        [0.097, 0.002, 0.010],
    ]
)  # fmt: skip  (along, half thickness, half width)


def _hands(figure: Figure, k: float) -> tuple[np.ndarray, np.ndarray]:
    frame = figure.r_hands
    along, thick, wide = (_PALM * k).T
    centres = figure.hands[:, None, 0] - along[None, :, None] * frame[:, None, :, 1]
    palms = loft(
        centres, frame[:, None, :, 0] * thick[None, :, None], frame[:, None, :, 2] * wide[None, :, None]
    )
    chains = figure.hands[:, 1:].reshape(10, 4, 3)
    step = np.diff(chains, axis=1)
    ends = chains[:, -1:] + 0.35 * step[:, -1:]
    starts = chains[:, :1] - 0.2 * step[:, :1]
    chains = np.concatenate([starts, chains, ends], 1)  # (10, 6, 3)
    along = np.gradient(chains, axis=1)
    along = along / np.sqrt((along**2).sum(-1, keepdims=True))
    across = np.repeat(frame[:, :, 0], 5, 0)[:, None]
    across = across - (across * along).sum(-1, keepdims=True) * along
    across = across / np.sqrt((across**2).sum(-1, keepdims=True) + 1e-12)
    # A little thicker than life (9-10 mm half width): at 128 px a finger is then just over a pixel.
    radius = np.array([0.011, 0.0115, 0.0108, 0.0102, 0.0095, 0.0025])[None, :, None] * k
    return palms, loft(chains, across * radius, cross(along, across) * radius, 10)


def _neck(figure: Figure, body: Body) -> np.ndarray:
    k = body.scale
    t = np.linspace(0, 1, 5)[:, None]
    top = figure.head + figure.r_head @ (0, -0.05 * k, -0.012 * k)
    base = figure.neck - 0.035 * k * figure.r_chest[:, 1]
    radius = (
        np.array([0.050, 0.051, 0.052, 0.056, 0.062])[:, None]
        * k
        * (0.35 + 0.65 * body.girth)
        * (1.04 - 0.25 * (1.0 - body.waist / 1.04))
    )
    across = figure.r_head[:, 0] * (1 - t) + figure.r_chest[:, 0] * t
    ahead = figure.r_head[:, 2] * (1 - t) + figure.r_chest[:, 2] * t
    return loft(top * (1 - t) + base * t, across * radius, ahead * radius)[None]


_ANGLE = np.linspace(0.02, np.pi - 0.02, 8)
# A unit ball as (height, radius) from top to bottom
_BALL = np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], 1)
_NOSE = np.array([[0.030, 0.004, 0.006, 0.084], [0.012, 0.0075, 0.013, 0.088], [-0.006, 0.010, 0.019, 0.090],
                  [-0.019, 0.0145, 0.023, 0.090],
                  [-0.028, 0.0145, 0.021, 0.089], [-0.034, 0.011, 0.013, 0.088],
                  [-0.037, 0.003, 0.004, 0.088]])  # fmt: skip


def _head(figure: Figure, body: Body, hair: Hair) -> dict[str, np.ndarray]:
    size = body.scale * body.head
    frame = figure.r_head

    def place(rows: np.ndarray) -> np.ndarray:
        height, wide, deep, shift = (rows * size).T
        local = np.stack([np.zeros_like(height), height, shift], 1)
        return loft(figure.head + local @ frame.T, frame[:, 0] * wide[:, None], frame[:, 2] * deep[:, None])[
            None
        ]

    grids = {"skull": place(SKULL)}
    grids["nose"] = place(_NOSE)
    # Ears are balls: middle and half axes in head coordinates.
    middles = np.array([[-0.076, 0.002, -0.008], [0.076, 0.002, -0.008]]) * size
    axes = np.array([[0.011, 0.028, 0.019], [0.011, 0.028, 0.019]]) * size
    height, radius = _BALL[None, :, :1] * axes[:, None, 1:2], _BALL[None, :, 1:]
    centres = (figure.head + middles @ frame.T)[:, None] + height * frame[:, 1]
    grids["ears"] = loft(
        centres, radius * axes[:, None, :1] * frame[:, 0], radius * axes[:, None, 2:] * frame[:, 2]
    )
    if hair.rows is not None:
        grids["hair"] = place(hair.rows)
    if hair.knot is not None:  # a bun or a tail: rows of (height, half width, half depth, shift)
        grids["knot"] = place(hair.knot)
    if hair.brim:
        t = np.linspace(0, 1, 6)
        along, wide = 0.06 + 0.10 * t, 0.072 * np.sqrt(np.clip(1.02 - t**2.5, 0, 1))
        centres = figure.head + np.stack([0 * t, 0.068 - 0.012 * t, along], 1) @ frame.T * size
        grids["brim"] = loft(
            centres, frame[:, 0] * (wide * size)[:, None], frame[:, 1] * (0.008 * size * np.ones(6))[:, None]
        )[None]
    return grids
