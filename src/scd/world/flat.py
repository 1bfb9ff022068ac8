"""A garment laid flat on white, as a shop shows it.

The same cloth as on the person, cut to its pattern pieces.
"""

from __future__ import annotations

import cv2
import numpy as np

from .cloth import cloth, neckline
from .surface import ARM, THIGH_TO_ANKLE, TORSO, cut
from .wardrobe import Garment


def _half_width(rows: np.ndarray) -> np.ndarray:
    """Half the flat width of tubes with half axes rows[:, 1:3]: a quarter of their circumference."""
    return np.pi / 4 * (rows[:, 1] + rows[:, 2])


def _strip(centre: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Corners of a strip along y: centre (n, 2), half widths (n,)."""
    left, right = centre - np.stack([half, 0 * half], 1), centre + np.stack([half, 0 * half], 1)
    return np.concatenate([left, right[::-1]])


def flat_garment(garment: Garment, size: int | tuple[int, int] = 128) -> np.ndarray:
    """The front of a garment laid flat on white, uint8 (H, W, 3) RGB.

    `size` is a side or (height, width) in pixels.
    """
    height, width = (size, size) if isinstance(size, int) else size
    pieces = _pieces(garment)
    corners = np.concatenate([piece[1] for piece in pieces])
    low, high = corners.min(0), corners.max(0)
    fine = 3
    scale = fine * min(height / (high[1] - low[1]), width / (high[0] - low[0])) * 0.90
    offset = np.array([width, height]) * fine / 2 - scale * (low + high) / 2
    picture = np.full((height * fine, width * fine, 3), 255, np.float32)
    whole = np.zeros(picture.shape[:2], np.uint8)
    rows, columns = np.mgrid[: height * fine, : width * fine].astype(np.float32)
    x, y = (columns + 0.5 - offset[0]) / scale, (rows + 0.5 - offset[1]) / scale
    for zone, outline, to_cloth in pieces:
        mask = np.zeros(picture.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.round(outline * scale + offset).astype(np.int32)], (1,))
        across = to_cloth[0, 0] * x + to_cloth[0, 1] * y + to_cloth[0, 2]
        down = to_cloth[1, 0] * x + to_cloth[1, 1] * y + to_cloth[1, 2]
        colour = cloth(garment, across, down, zone)
        if zone == "chest":
            quarter = np.interp(-y, TORSO[::-1, 0], _half_width(TORSO)[::-1])
            mask[neckline(garment.neckline, garment.depth, -y, np.clip(np.abs(x) / quarter, 0, 1) * 89.9)] = 0
        if garment.trim:
            colour = np.where(
                _border(zone, garment, down)[..., None], np.array(garment.colours[1], np.float32), colour
            )
        picture = np.where((mask > 0)[..., None], colour, picture)
        whole |= mask
    # cloth is darker where it turns under
    edge = np.clip(cv2.distanceTransform(whole, cv2.DIST_L2, 5) / (0.03 * scale), 0, 1)
    picture = np.where((whole > 0)[..., None], picture * (0.80 + 0.20 * edge)[..., None], picture)
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return np.clip(small + 0.5, 0, 255).astype(np.uint8)


def _border(zone: str, garment: Garment, down: np.ndarray) -> np.ndarray:
    """Where a trimmed piece carries the second colour: the hem of a top, the cuffs, the waistband."""
    if zone == "sleeve":
        return down > _sleeve_length(garment) + 0.02
    if zone == "chest":
        return down > _down(np.array([garment.hem + 0.02]))[0]
    return (down < 0.035) & (garment.kind == "lower") & (zone != "leg")


def _sleeve_length(garment: Garment) -> float:
    return 0.275 * min(garment.sleeve, 1.0) + 0.245 * max(garment.sleeve - 1.0, 0.0)


def _down(height: np.ndarray) -> np.ndarray:
    """Metres along the cloth from the top of the torso to a height over the hip joints."""
    step = np.hypot(np.diff(TORSO[:, 0]), np.diff(TORSO[:, 1]))
    return np.interp(-np.asarray(height), -TORSO[:, 0], np.concatenate([[0], np.cumsum(step)]))


def _pieces(garment: Garment) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(zone, corners (n, 2) metres, affine (2, 3) from there to cloth coordinates), lower layers first."""
    pieces = []
    if garment.kind in ("upper", "dress"):
        if garment.sleeve > 0.05:
            pieces += [_sleeve(garment, sign) for sign in (-1.0, 1.0)]
        top = 0.425 if garment.neckline == "tube" else 0.535
        rows = cut(TORSO, top, garment.hem if garment.kind == "upper" else 0.10, 16)
        half = _half_width(rows) + 0.01 + 0.02 * garment.loose * np.clip((0.45 - rows[:, 0]) / 0.1, 0, 1)
        body = _strip(np.stack([0 * half, -rows[:, 0]], 1), half)
        chest = ("chest", body, np.array([[1, 0, 0], [0, 1, _down(np.array([0.3]))[0] + 0.3]]))
        if garment.kind == "dress":
            pieces.append(_skirt(garment))
        pieces.append(chest)
    elif garment.cut == "skirt":
        pieces.append(_skirt(garment))
    else:
        pieces += [_leg(garment, sign) for sign in (-1.0, 1.0)]
        rows = cut(TORSO, garment.waist, -0.08, 8)
        seat = _strip(
            np.stack([0 * rows[:, 0], -rows[:, 0]], 1), _half_width(rows) + 0.02 + 0.01 * garment.loose
        )
        pieces.append(("hip", seat, np.array([[1, 0, 0], [0, 1, garment.waist]])))
    return pieces


def _sleeve(garment: Garment, sign: float) -> tuple[str, np.ndarray, np.ndarray]:
    rows = cut(ARM, 0.0, garment.sleeve, 10)
    along = np.linspace(0, _sleeve_length(garment), 10)
    half = (
        _half_width(rows)
        + 0.006
        + 0.012 * garment.loose
        + 0.02 * garment.sleeve_flare * np.linspace(0, 1, 10) ** 2
    )
    strip = _strip(np.stack([0 * along, along - 0.01], 1), half)
    angle = np.radians(48) * sign
    # hangs down and outwards
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shoulder = np.array([sign * 0.172, -0.440])
    back = np.concatenate([turn.T, (-turn.T @ shoulder + (0, 0.075))[:, None]], 1)
    return "sleeve", strip @ turn.T + shoulder, back


def _leg(garment: Garment, sign: float) -> tuple[str, np.ndarray, np.ndarray]:
    rows = cut(THIGH_TO_ANKLE, 0.0, garment.length, 12)
    share = rows[:, 0] / garment.length
    half = _half_width(rows) + 0.004 + 0.02 * garment.loose + 0.03 * garment.flare * share**3
    along = 0.41 * rows[:, 0]
    middle = sign * (0.112 + 0.03 * share)
    return (
        "leg",
        _strip(np.stack([middle, along], 1), half),
        np.array([[1, 0, -sign * 0.13], [0, 1, garment.waist + 0.02]]),
    )


def _skirt(garment: Garment) -> tuple[str, np.ndarray, np.ndarray]:
    upper = cut(TORSO, garment.waist, -0.03, 6)
    place = np.linspace(0.14, garment.length, 8)
    half = np.concatenate([_half_width(upper) + 0.01, 0.235 + 0.012 + garment.flare * 0.16 * place])
    down = np.concatenate([-upper[:, 0], 0.41 * place])
    start = garment.waist if garment.kind == "lower" else 0.44 + garment.waist
    return "skirt", _strip(np.stack([0 * down, down], 1), half), np.array([[1, 0, 0], [0, 1, start]])
