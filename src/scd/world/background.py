"""Backgrounds from a plain studio to rooms and streets, painted once per scene, the same at every size."""

from __future__ import annotations

import cv2
import numpy as np

from .wardrobe import choose, sample_colour

KINDS = {"studio": 4, "wall": 2, "room": 3, "street": 2.5, "park": 2, "stage": 1.5}


def paint_background(rng: np.random.Generator, height: int, width: int, horizon: float) -> np.ndarray:
    """A background, float32 (height, width, 3) in 0..255.

    `horizon` is where floor and wall meet, as a fraction of the height.

    All random numbers are drawn before painting, in a fixed order, so every size shows the same place.
    """
    kind = choose(rng, KINDS)
    colours = [np.array(sample_colour(rng)) for _ in range(8)]
    numbers = rng.uniform(size=64)
    picture = np.zeros((2 * height, 2 * width, 3), np.float32)
    draw = _Painter(picture)
    _PAINTERS[kind](draw, colours, numbers, horizon)
    picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    vignette = 1 - 0.10 * (x[None] ** 2 + y[:, None] ** 2)
    return np.ascontiguousarray(picture * vignette[..., None])


class _Painter:
    """Filled shapes in fractions of the picture's width and height."""

    def __init__(self, picture: np.ndarray) -> None:
        self.picture = picture
        self.high, self.wide = picture.shape[:2]

    def shape(self, points: list[tuple[float, float]], colour: np.ndarray) -> None:
        corners = np.round(np.array(points) * (self.wide, self.high) * 16).astype(np.int32)
        cv2.fillPoly(self.picture, [corners], tuple(np.clip(colour, 0, 255).astype(float)), cv2.LINE_8, 4)

    def box(self, left: float, top: float, right: float, bottom: float, colour: np.ndarray) -> None:
        self.shape([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def disc(self, x: float, y: float, radius: float, colour: np.ndarray) -> None:
        """`radius` as a fraction of the height, so that discs are round."""
        t = np.linspace(0, 2 * np.pi, 32)
        self.shape(
            list(zip(x + radius * np.cos(t) * self.high / self.wide, y + radius * np.sin(t), strict=True)),
            colour,
        )

    def ramp(self, top: float, bottom: float, first: np.ndarray, last: np.ndarray) -> None:
        low, high = max(0, round(top * self.high)), min(self.high, round(bottom * self.high))
        t = np.linspace(0, 1, max(high - low, 1), dtype=np.float32)[:, None]
        self.picture[low:high] = (np.asarray(first) * (1 - t) + np.asarray(last) * t)[: high - low, None]


def _pale(colour: np.ndarray, share: float = 0.55) -> np.ndarray:
    return colour * (1 - share) + 235 * share


def _floor(draw: _Painter, colour: np.ndarray, horizon: float, boards: int = 0) -> None:
    draw.ramp(horizon, 1, colour * 0.82, colour * 1.05)
    for k in range(boards):
        near = (k + 0.5 - boards / 2) / boards * 3
        draw.shape(
            [(0.5 + near * 0.45, horizon), (0.5 + near * 0.46, horizon), (0.515 + near, 1), (0.5 + near, 1)],
            colour * 0.72,
        )


def _studio(draw: _Painter, c: list, n: np.ndarray, horizon: float) -> None:
    colour = _pale(c[0], 0.65 * n[0])
    draw.ramp(0, horizon, colour, colour * (0.85 + 0.1 * n[1]))
    draw.ramp(horizon, 1, colour * (0.80 + 0.1 * n[2]), colour * 0.98)


def _wall(draw: _Painter, c: list, n: np.ndarray, horizon: float) -> None:
    first, second = _pale(c[0], 0.4), _pale(c[1], 0.6)
    draw.box(0, 0, 1, 1, first)
    num = 3 + int(5 * n[0])
    for k in range(num):
        if n[1] < 0.5:
            draw.box((k + 0.25) / num, 0, (k + 0.75) / num, horizon, first * 0.88)
        else:
            draw.box(0, horizon * (k + 0.0) / num, 1, horizon * (k + 0.5) / num, first * 0.90)
    draw.box(0, horizon - 0.03, 1, horizon, _pale(first, 0.6))
    _floor(draw, second, horizon, 6 if n[2] < 0.5 else 0)


def _room(draw: _Painter, c: list, n: np.ndarray, horizon: float) -> None:
    wall, floor = _pale(c[0], 0.5), _pale(c[1], 0.3) * 0.8 + np.array([40, 25, 10]) * 0.5
    draw.ramp(0, horizon, wall, wall * 0.92)
    draw.box(0, horizon - 0.025, 1, horizon, _pale(wall, 0.7))
    _floor(draw, floor, horizon, 7)
    left = 0.06 + 0.12 * n[0]
    if n[1] < 0.6:  # a window
        draw.box(left - 0.015, 0.10, left + 0.265, 0.47, np.array([245, 245, 240]))
        draw.box(left, 0.115, left + 0.25, 0.455, np.array([170, 205, 235]))
        draw.disc(left + 0.17, 0.40, 0.09, np.array([120, 170, 110]))
        draw.box(left + 0.119, 0.115, left + 0.131, 0.455, np.array([245, 245, 240]))
        draw.box(left, 0.27, left + 0.25, 0.282, np.array([245, 245, 240]))
    if n[2] < 0.7:  # a picture on the wall
        right = 0.68 + 0.1 * n[3]
        draw.box(right, 0.16, right + 0.2, 0.36, c[2] * 0.5)
        draw.box(right + 0.015, 0.175, right + 0.185, 0.345, _pale(c[3], 0.4))
        draw.disc(right + 0.10, 0.26, 0.05, c[4])
    if n[4] < 0.6:  # a sofa
        side = 0.62 if n[5] < 0.5 else -0.12
        draw.box(side, horizon - 0.20, side + 0.5, horizon + 0.03, c[5] * 0.9)
        draw.box(side - 0.02, horizon - 0.10, side + 0.52, horizon + 0.035, c[5])
        draw.box(side + 0.24, horizon - 0.18, side + 0.25, horizon - 0.03, c[5] * 0.75)
    elif n[4] < 0.85:  # a plant
        side = 0.88 if n[5] < 0.5 else 0.12
        for k in range(5):
            draw.disc(
                side + 0.06 * np.cos(k * 1.3),
                horizon - 0.20 + 0.07 * np.sin(k * 1.3),
                0.06,
                np.array([50, 120 + 15 * k, 60]),
            )
        draw.shape(
            [
                (side - 0.05, horizon - 0.08),
                (side + 0.05, horizon - 0.08),
                (side + 0.035, horizon + 0.03),
                (side - 0.035, horizon + 0.03),
            ],
            np.array([180, 95, 60]),
        )


def _street(draw: _Painter, c: list, n: np.ndarray, horizon: float) -> None:
    draw.ramp(0, horizon, np.array([120, 175, 235]) * (0.6 + 0.4 * n[0]), np.array([225, 235, 240]))
    left = -0.05
    for k in range(4):
        wide, top = 0.22 + 0.14 * n[4 + k], 0.05 + 0.30 * n[8 + k]
        front = _pale(c[k], 0.35)
        draw.box(left, top, left + wide, horizon, front)
        pane = np.array([250, 225, 150]) if n[12 + k] < 0.3 else np.array([70, 90, 115])
        columns, rows = 3, int((horizon - top) / 0.11)
        for row in range(rows):
            for column in range(columns):
                x = left + wide * (column + 0.28) / columns
                draw.box(x, top + 0.03 + 0.11 * row, x + wide * 0.42 / columns, top + 0.09 + 0.11 * row, pane)
        left += wide + 0.004
    draw.ramp(horizon, 1, np.array([150, 148, 145]), np.array([185, 182, 178]))
    draw.box(0, horizon, 1, horizon + 0.012, np.array([110, 108, 105]))
    for k in range(5):
        near = (k - 2) / 2
        draw.shape(
            [
                (0.5 + near * 0.5, horizon + 0.012),
                (0.503 + near * 0.5, horizon + 0.012),
                (0.508 + near, 1),
                (0.5 + near, 1),
            ],
            np.array([140, 138, 135]),
        )


def _park(draw: _Painter, c: list, n: np.ndarray, horizon: float) -> None:
    draw.ramp(0, horizon, np.array([110, 180, 245]), np.array([215, 232, 245]))
    draw.disc(0.15 + 0.7 * n[0], 0.13, 0.05, np.array([255, 240, 170]))
    for k in range(3):
        draw.disc(
            n[1 + k] * 1.2 - 0.1,
            horizon + 0.12,
            0.28 + 0.1 * n[4 + k],
            np.array([95, 150, 95]) * (0.85 + 0.1 * k),
        )
    for k in range(4):
        x = 0.06 + 0.28 * k + 0.08 * n[8 + k]
        draw.box(x - 0.012, horizon - 0.22, x + 0.012, horizon + 0.02, np.array([105, 75, 50]))
        green = np.array([55, 125, 60]) + 40 * n[12 + k] * np.array([1.2, 0.8, 0.2])
        draw.disc(x, horizon - 0.27, 0.10, green)
        draw.disc(x - 0.035, horizon - 0.20, 0.075, green * 0.92)
    draw.ramp(horizon, 1, np.array([105, 165, 80]), np.array([130, 190, 90]))
    draw.shape([(0.40, horizon), (0.60, horizon), (1.0, 1), (0.0, 1)], np.array([215, 195, 160]))


def _stage(draw: _Painter, c: list, n: np.ndarray, horizon: float) -> None:
    colour = c[0] * 0.55
    num = 8 + int(6 * n[0])
    for k in range(num):
        draw.box(k / num, 0, (k + 0.5) / num, horizon, colour)
        draw.box((k + 0.5) / num, 0, (k + 1) / num, horizon, colour * 0.75)
    _floor(draw, np.array([150, 105, 65]) * (0.7 + 0.5 * n[1]), horizon, 9)


_PAINTERS = {
    "studio": _studio,
    "wall": _wall,
    "room": _room,
    "street": _street,
    "park": _park,
    "stage": _stage,
}
