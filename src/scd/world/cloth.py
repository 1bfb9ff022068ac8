"""The patterns on the cloth, and the motifs: letters and emblems.

Cloth has coordinates in metres: `across` (0 in the middle of the front, growing to the right of a picture
that shows the front) and `down` (0 at the top edge). Patterns are functions of these, so prints move with
the cloth and look the same on the flat garment. Motifs are large: at 128 px a person shows 60 pixels per
metre, and a network sees 8 x 8 pixels at a time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from .wardrobe import Garment

EMBLEMS = ("star", "heart", "bolt", "target", "smile", "flower", "diamond", "plus", "moon", "arrow")
LETTERS = "ABCDEFGHKLMNPRSTUVWXYZ2345679"


def _star(points: int, inner: float) -> np.ndarray:
    angle = np.pi * np.arange(2 * points) / points
    radius = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], 1)


@lru_cache(maxsize=64)
def motif_mask(name: str) -> np.ndarray:
    """The motif as a mask (128, 128) in 0..1: a letter or a name of EMBLEMS. The outermost pixels are 0."""
    size = 512
    mask = np.zeros((size, size), np.uint8)
    middle, radius = size // 2, int(size * 0.46)

    def polygon(points: np.ndarray) -> None:
        cv2.fillPoly(mask, [np.round(middle + radius * points).astype(np.int32)], (255,))

    def disc(x: float, y: float, r: float, value: float = 255) -> None:
        centre = (round(middle + radius * x), round(middle + radius * y))
        cv2.circle(mask, centre, round(radius * r), (value,), -1)

    if len(name) == 1:
        scale = 15.0
        (wide, high), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, scale, 75)
        place = (middle - wide // 2, middle + high // 2)
        cv2.putText(mask, name, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255,), 75, cv2.LINE_AA)
    elif name == "star":
        polygon(_star(5, 0.45))
    elif name == "heart":
        t = np.linspace(0, 2 * np.pi, 60)
        polygon(
            np.stack(
                [
                    16 * np.sin(t) ** 3,
                    -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)),
                ],
                1,
            )
            / 17
        )
    elif name == "bolt":
        polygon(np.array([[0.25, -1], [-0.6, 0.12], [-0.08, 0.12], [-0.3, 1], [0.6, -0.25], [0.06, -0.25]]))
    elif name == "target":
        for r, value in ((1, 255), (0.68, 0), (0.4, 255)):
            disc(0, 0, r, value)
    elif name == "smile":
        disc(0, 0, 1)
        disc(-0.36, -0.25, 0.17, 0)
        disc(0.36, -0.25, 0.17, 0)
        mouth = (middle, middle + radius // 8), (radius * 6 // 10, radius // 2)
        cv2.ellipse(mask, *mouth, 0, 10, 170, (0,), radius // 6)
    elif name == "flower":
        for k in range(6):
            disc(0.58 * np.sin(k * np.pi / 3), 0.58 * np.cos(k * np.pi / 3), 0.40)
        disc(0, 0, 0.26, 0)
    elif name == "diamond":
        polygon(np.array([[0, -1], [0.75, 0], [0, 1], [-0.75, 0]]))
    elif name == "plus":
        polygon(
            np.array(
                [
                    [-0.32, -1],
                    [0.32, -1],
                    [0.32, -0.32],
                    [1, -0.32],
                    [1, 0.32],
                    [0.32, 0.32],
                    [0.32, 1],
                    [-0.32, 1],
                    [-0.32, 0.32],
                    [-1, 0.32],
                    [-1, -0.32],
                    [-0.32, -0.32],
                ]
            )
        )
    elif name == "moon":
        disc(0, 0, 1)
        disc(0.45, -0.15, 0.8, 0)
    elif name == "arrow":
        polygon(np.array([[0, -1], [0.95, 0], [0.38, 0], [0.38, 1], [-0.38, 1], [-0.38, 0], [-0.95, 0]]))
    mask = cv2.resize(mask, (128, 128), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    mask[[0, -1]], mask[:, [0, -1]] = 0, 0
    return mask


def _stamp(name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The motif's mask at x, y in -1..1 (outside: 0)."""
    map_x, map_y = (
        np.ascontiguousarray(m, np.float32) for m in np.broadcast_arrays(64 + 62 * x, 64 + 62 * y)
    )
    return cv2.remap(
        motif_mask(name), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0,)
    )


def neckline(kind: str, depth: float, height: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Where the torso is bare above a neckline.

    Height over the hip joints, angle in degrees from the front (0..180).
    """
    if kind == "tube":
        return height > 0.425 + 0 * angle
    collar = 0.528 - 0.010 * (angle < 90)
    if kind == "v":
        collar = np.minimum(collar, 0.528 - 1.3 * depth * np.clip(1 - angle / 38, 0, 1))
    elif kind in ("scoop", "tank"):
        collar = np.minimum(collar, 0.528 - depth * np.sqrt(np.clip(1 - (angle / 58) ** 2, 0, 1)))
    bare = height > collar
    if kind == "tank":
        bare = bare | ((np.abs(angle - 90) < 28) & (height > 0.43 + 0.0022 * np.abs(angle - 90)))
    return bare


def cloth(garment: Garment, across: np.ndarray, down: np.ndarray, zone: str) -> np.ndarray:
    """The cloth's colour (M, N, 3) float32 at `across` (1, N) and `down` (M, 1) metres.

    Zones: chest, sleeve, leg, skirt.
    """
    ground, second, third = (np.array(c, np.float32) for c in garment.colours)
    period, pattern = garment.period, garment.pattern
    if garment.raglan and zone == "sleeve":
        ground, second = second, ground
    x, y = across / period, down / period
    share: np.ndarray | float = 0.0  # of the second colour
    if pattern == "stripes":
        share = np.floor(y) % 2
    elif pattern == "bars":
        share = np.floor(x + 0.5) % 2
    elif pattern == "diagonal":
        share = np.floor((x + y) * 0.75) % 2
    elif pattern == "checks":
        share = (np.floor(y) % 2 + np.floor(x + 0.5) % 2) / 2
    elif pattern in ("dots", "print"):
        row = np.floor(y)
        dx, dy = (x + 0.5 * (row % 2)) % 1 - 0.5, y - row - 0.5
        share = (
            (dx * dx + dy * dy < 0.30**2) * 1.0
            if pattern == "dots"
            else _stamp(garment.motif, dx * 2.3, dy * 2.3)
        )
    elif pattern in ("letter", "emblem") and zone == "chest":
        # below the neckline
        low = 0.105 + (0.6 * garment.depth if garment.neckline in ("v", "scoop", "tank") else 0.0)
        share = _stamp(garment.motif, 2 * across / period, 2 * (down - low - period / 2) / period)
    elif pattern == "halves":
        share = (across > 0) * 1.0 if zone != "sleeve" else 0.0
    elif pattern == "band":
        place = down if zone == "chest" else down - 0.02
        share = (
            ((place > 0.13) & (place < 0.26)) * 1.0
            if zone == "chest"
            else ((place > 0.12) & (place < 0.22)) * 1.0
        )
    elif pattern == "chevron":
        share = np.floor((down + np.abs(across % (2 * period) - period)) / period) % 2
    elif pattern == "jacket" and zone == "chest":
        share = (np.abs(across) < 0.035 + 0.05 * np.clip(1 - down / 0.25, 0, 1)) * 1.0
    elif pattern == "seam" and zone == "leg":
        share = (np.abs(np.abs(across) - 0.125) < 0.028) * 1.0
    shape = np.broadcast_shapes(across.shape, down.shape)
    share = np.broadcast_to(np.asarray(share, np.float32), shape)[..., None]
    colour = ground + (second - ground) * share
    if pattern == "stripes" and garment.trim:  # a third colour on every second stripe
        colour = np.where((np.floor(y) % 4 == 2)[..., None], third, colour)
    # Soft folds: brightness only, fixed to the cloth; sums of angles are products, so the waves cost only one
    # row and one column.
    a, b, c, d = across * 23, down * 31, across * 41 + 1, down * 19
    fold = (
        1
        + 0.035 * (np.sin(a) * np.cos(b) + np.cos(a) * np.sin(b))
        + 0.03 * (np.sin(c) * np.cos(d) - np.cos(c) * np.sin(d))
    )
    return np.clip(colour * fold[..., None], 0, 255).astype(np.float32)
