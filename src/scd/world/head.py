"""Faces and hair: what is painted on the skull, and the volumes on top of it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .figure import FACE_POINTS, SKULL
from .wardrobe import Colour, choose, sample_colour

STYLES = {
    "short": 5,
    "crop": 2,
    "bob": 3,
    "long": 4,
    "bun": 2.5,
    "tail": 2.5,
    "afro": 1.5,
    "bald": 1,
    "cap": 2,
}
# Skin and hair from light to dark; drawn between neighbours.
_SKINS = np.array(
    [
        [250, 220, 200],
        [241, 196, 166],
        [224, 172, 130],
        [198, 140, 96],
        [150, 98, 62],
        [104, 66, 44],
        [72, 46, 34],
    ],
    float,
)
_HAIRS = np.array(
    [
        [28, 24, 24],
        [60, 38, 26],
        [110, 66, 36],
        [160, 84, 40],
        [206, 158, 84],
        [238, 214, 150],
        [170, 170, 172],
    ],
    float,
)


@dataclass(frozen=True, eq=False)
class Hair:
    """Hair or a cap.

    Rings in head coordinates (height, half width, half depth, shift), and where they end towards the face.
    """

    colour: Colour
    hat: Colour | None = None
    rows: np.ndarray | None = None
    knot: np.ndarray | None = None
    brim: bool = False
    line: tuple[tuple[float, float], ...] = ()  # (degrees from the front, lower edge in metres)


@dataclass(frozen=True)
class Face:
    skin: Colour
    lips: Colour
    iris: Colour
    brow: Colour
    smile: float  # -0.3 .. 1
    glasses: bool
    beard: Colour | None
    blush: float


def sample_face(rng: np.random.Generator, hair: Colour) -> Face:
    place = rng.uniform(0, len(_SKINS) - 1.001)
    skin = _between(_SKINS, place)
    lips = tuple(np.clip(np.array(skin) * (0.86, 0.55, 0.55) + (18, 0, 6), 0, 255))
    iris = ((70, 45, 30), (60, 110, 160), (70, 120, 70), (40, 30, 28))[int(rng.integers(4))]
    brow = tuple(np.minimum(np.array(hair) * 0.75, np.array(skin) * 0.55))
    beard = tuple(np.array(hair) * 0.9) if rng.uniform() < 0.13 else None
    smile, glasses, blush = rng.uniform(0.1, 1.3), rng.uniform() < 0.15, rng.uniform(0, 0.35)
    look = (float(smile), bool(glasses), beard, float(blush))
    return Face(skin, lips, iris, brow, *look)  # type: ignore[arg-type]


def _between(table: np.ndarray, place: float) -> Colour:
    low = int(place)
    mixed = table[low] * (1 - place + low) + table[low + 1] * (place - low)
    return tuple(mixed.tolist())  # type: ignore[return-value]


_LINES = {  # where hair ends: degrees from the front -> height
    "short": (
        (0, 0.072),
        (40, 0.066),
        (62, 0.045),
        (72, -0.010),
        (84, -0.022),
        (100, -0.03),
        (130, -0.075),
        (180, -0.085),
    ),
    "crop": (
        (0, 0.080),
        (45, 0.072),
        (65, 0.050),
        (74, 0.000),
        (85, -0.005),
        (100, -0.01),
        (130, -0.05),
        (180, -0.06),
    ),
    "bob": ((0, 0.055), (40, 0.052), (55, 0.035), (60, -0.060), (66, -0.115), (90, -0.125), (180, -0.125)),
    "long": ((0, 0.070), (38, 0.060), (55, 0.030), (62, -0.080), (70, -0.24), (90, -0.29), (180, -0.30)),
    "bun": (
        (0, 0.076),
        (40, 0.068),
        (62, 0.045),
        (74, 0.000),
        (86, -0.01),
        (100, -0.02),
        (130, -0.07),
        (180, -0.08),
    ),
    "afro": ((0, 0.070), (40, 0.066), (60, 0.040), (70, -0.030), (90, -0.05), (130, -0.09), (180, -0.10)),
    "cap": ((0, 0.062), (60, 0.058), (90, 0.040), (180, 0.000)),
}
_LINES["tail"] = _LINES["bun"]


def sample_hair(rng: np.random.Generator) -> Hair:
    """Draw a hair style and its colour; one person in twelve has dyed hair."""
    style = choose(rng, STYLES)
    colour = (
        sample_colour(rng) if rng.uniform() < 0.08 else _between(_HAIRS, rng.uniform(0, len(_HAIRS) - 1.001))
    )
    hat = sample_colour(rng)
    if style == "bald":
        return Hair(colour)
    thick = {"crop": 0.005, "afro": 0.040, "cap": 0.011, "bun": 0.009, "tail": 0.009}.get(
        style, float(rng.uniform(0.012, 0.020))
    )
    rows = SKULL[:8].copy()
    rows[:, 0] += np.interp(rows[:, 0], (0.0, 0.12), (0, 0.9 * thick))
    rows[:, 1] += thick
    rows[:, 2] += 0.8 * thick
    rows[:, 3] -= 0.35 * thick
    rows[0] += (0.35 * thick, -thick, -0.8 * thick, 0)  # a round crown
    if style == "afro":
        rows[-2:, 1:3] *= (0.86, 0.86)
    end = {"short": -0.09, "afro": -0.11}.get(style)
    if style in ("bob", "long"):
        rows = rows[:6]
        low = np.linspace(-0.05, -0.128 if style == "bob" else -0.31, 5)
        slope = np.linspace(0, 1, 5)
        wide = rows[-1, 1] + (0.008 if style == "bob" else 0.014) * slope
        deep = 0.088 - (0.006 if style == "bob" else 0.022) * slope
        shift = -0.010 - (0.004 if style == "bob" else 0.040) * slope
        rows = np.concatenate([rows, np.stack([low, wide, deep, shift], 1)])
    elif end is not None:
        rows = np.concatenate([rows, [[end, 0.058 + thick * 0.6, 0.062 + thick * 0.6, -0.012]]])
    knot = None
    t = np.linspace(0.02, np.pi - 0.02, 8)
    if style == "bun":
        high, back, size = ((0.150, -0.035, 0.046), (0.085, -0.112, 0.044))[int(rng.integers(2))]
        knot = np.stack(
            [high + size * 0.9 * np.cos(t), size * np.sin(t), size * np.sin(t), np.full(8, back)], 1
        )
    elif style == "tail":
        fall = np.array([0.085, 0.080, 0.050, 0.0, -0.06, -0.13, -0.19, -0.215])
        knot = np.stack(
            [
                fall,
                np.array([0.004, 0.022, 0.034, 0.036, 0.036, 0.032, 0.020, 0.003]),
                np.array([0.004, 0.022, 0.034, 0.032, 0.030, 0.026, 0.018, 0.003]),
                np.array([-0.105, -0.108, -0.120, -0.135, -0.140, -0.142, -0.140, -0.140]),
            ],
            1,
        )
    return Hair(colour, hat if style == "cap" else None, rows, knot, style == "cap", _LINES[style])


def hair_edge(hair: Hair, angle: np.ndarray) -> np.ndarray:
    """Lower edge of the hair (metres in head coordinates) at angles in degrees from the front, 0..180."""
    table = np.array(hair.line)
    return np.interp(angle, table[:, 0], table[:, 1])


def strands(hair: Hair, rows: int, columns: int) -> np.ndarray:
    """Hair colour (rows, columns, 3): brightness varies around the head, as combed hair does.

    A cap is plain with panels.
    """
    angle = 2 * np.pi * np.arange(columns) / max(columns, 1)
    if hair.hat is not None:
        tone = np.where(np.cos(6 * angle) > 0.97, 0.8, 1.0)
        return np.broadcast_to(np.array(hair.hat) * tone[:, None], (rows, columns, 3)).astype(np.float32)
    tone = 1 + 0.10 * np.sin(17 * angle) + 0.08 * np.sin(31 * angle + 1) + 0.05 * np.sin(53 * angle + 2)
    colour = np.array(hair.colour) * tone[:, None] + 8 * (tone[:, None] - 0.9)
    return np.broadcast_to(np.clip(colour, 0, 255), (rows, columns, 3)).astype(np.float32)


# The painted face is a picture of the front of the skull seen along z: x from -0.08 to 0.08, y from 0.14 down
# to -0.13 metres.
FACE_BOX = (-0.08, 0.14, 0.16, 0.27)  # left, top, width, height


def paint_face(face: Face, density: float) -> np.ndarray:
    """The face as a flat picture, float32 (h, w, 3), `density` pixels per metre.

    Painted three times larger and averaged down.
    """
    over = density * 3
    high, wide = int(FACE_BOX[3] * over) // 3 * 3, int(FACE_BOX[2] * over) // 3 * 3
    picture = np.empty((high, wide, 3), np.float32)
    picture[:] = face.skin
    skin = np.array(face.skin)

    def at(points: np.ndarray) -> np.ndarray:
        points = np.atleast_2d(points)
        return np.round(
            np.stack([(points[:, 0] - FACE_BOX[0]) * over, (FACE_BOX[1] - points[:, 1]) * over], 1) * 16
        ).astype(np.int32)

    def fill(points: np.ndarray, colour: np.ndarray | Colour) -> None:
        cv2.fillPoly(picture, [at(points)], tuple(np.asarray(colour, float)), cv2.LINE_8, 4)

    def line(points: np.ndarray, colour: np.ndarray | Colour, width: float, closed: bool = False) -> None:
        cv2.polylines(
            picture,
            [at(points)],
            closed,
            tuple(np.asarray(colour, float)),
            max(1, round(width * over)),
            cv2.LINE_8,
            4,
        )

    def oval(x: float, y: float, a: float, b: float, colour: np.ndarray | Colour) -> None:
        t = np.linspace(0, 2 * np.pi, 24)
        fill(np.stack([x + a * np.cos(t), y + b * np.sin(t)], 1), colour)

    points = FACE_POINTS[:, :2]
    for side in (-1, 1):
        oval(side * 0.046, -0.028, 0.018, 0.014, skin * (1 - 0.5 * face.blush * np.array([0, 0.45, 0.40])))
    if face.beard is not None:
        fill(
            np.concatenate(
                [
                    points[2:15] * (1.1, 1.05),
                    [(0.045, -0.035), (0.02, -0.042), (-0.02, -0.042), (-0.045, -0.035)],
                ]
            ),
            face.beard,
        )
    # Eyes larger than life: at 128 px an eye is two pixels wide, and it should read as an eye.
    for ring in (points[36:42], points[42:48]):
        middle = ring.mean(0)
        eye = middle + (ring - middle) * (1.22, 1.75)
        fill(eye, (250, 250, 248))
        oval(middle[0], middle[1], 0.0086, 0.0100, face.iris)
        oval(middle[0], middle[1], 0.0044, 0.0050, (12, 10, 10))
        oval(middle[0] - 0.0025, middle[1] + 0.003, 0.0016, 0.0016, (255, 255, 255))
        line(eye[:4], np.minimum(skin * 0.25, 60), 0.0035)
    for brow in (points[17:22], points[22:27]):
        line(brow, face.brow, 0.0065)
    line(points[[31, 32, 33, 34, 35]], skin * 0.72, 0.004)
    lips = points[48:60].copy()
    corner = 0.006 * face.smile
    lips[[0, 6], 1] += corner
    lips[[9], 1] -= corner * 0.4
    fill(lips, face.lips)
    mouth = points[[60, 61, 62, 63, 64]].copy()
    mouth[[0, 4], 1] += corner
    mouth[1:4, 1] -= corner * 0.4
    line(mouth, np.array(face.lips) * 0.45, 0.003)
    if face.glasses:
        for ring in (points[36:42], points[42:48]):
            x, y = ring.mean(0)
            t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            line(
                np.stack([x + 0.023 * np.cos(t), y - 0.002 + 0.019 * np.sin(t)], 1), (25, 22, 25), 0.005, True
            )
        line(np.array([[-0.010, 0.024], [0.010, 0.024]]), (25, 22, 25), 0.005)
    return cv2.resize(picture, (wide // 3, high // 3), interpolation=cv2.INTER_AREA)
