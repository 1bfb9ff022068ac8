"""The look of a dressed person: every surface sampled densely, each sample with its colour and part label.

Coarse grids (`surface.cover`) are interpolated by two small matrix products to about 0.7 fine pixels
between samples, so that no holes appear. A look belongs to (person, outfit, scale) and is made once per
scene; a picture only moves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from . import figure as figures
from . import motion
from .cloth import cloth, neckline
from .figure import SKULL, Body
from .head import FACE_BOX, Face, Hair, hair_edge, paint_face, strands
from .surface import TORSO, cover
from .wardrobe import Outfit

LABELS = (
    "background",
    "hair",
    "face",
    "neck",
    "torso",
    "right_arm",
    "left_arm",
    "right_hand",
    "left_hand",
    "right_leg",
    "left_leg",
    "right_shoe",
    "left_shoe",
    "upper",
    "lower",
    "dress",
    "hat",
)
LABEL = {name: i for i, name in enumerate(LABELS)}
# fine pixels between samples at the person's distance; up to 0.7 leaves no holes on a turned grid (diagonal <
# 1)
SPACING = 0.68


@lru_cache(maxsize=512)
def _around(angles: int, columns: int) -> np.ndarray:
    """(angles, columns) periodic cubic (Catmull-Rom) interpolation."""
    return _cubic(np.arange(columns) * angles / columns, angles, True).T.copy()


def _cubic(place: np.ndarray, num: int, periodic: bool) -> np.ndarray:
    low = np.floor(place).astype(int)
    if not periodic:
        low = np.minimum(low, num - 2)
    t = place - low
    weights = (
        (-t + 2 * t**2 - t**3) / 2,
        (2 - 5 * t**2 + 3 * t**3) / 2,
        (t + 4 * t**2 - 3 * t**3) / 2,
        (-(t**2) + t**3) / 2,
    )
    matrix = np.zeros((len(place), num), np.float32)
    for shift, weight in zip((-1, 0, 1, 2), weights, strict=True):
        index = (low + shift) % num if periodic else np.clip(low + shift, 0, num - 1)
        np.add.at(matrix, (np.arange(len(place)), index), weight)
    return matrix


@dataclass(frozen=True)
class Part:
    name: str
    down: np.ndarray  # (M, K) interpolation from rings to dense rows
    around: np.ndarray  # (A, N)
    two_sided: bool


@dataclass(frozen=True)
class Look:
    """A dressed person at one scale: everything that does not depend on the posture."""

    parts: tuple[Part, ...]
    colour: np.ndarray  # (P, 3) float32 of all dense samples, parts one after the other
    label: np.ndarray  # (P,) uint8
    drawn: np.ndarray  # (P,) bool: samples that exist (hair leaves the face free)
    both: np.ndarray  # (P,) bool: seen from inside too


def tailor(body: Body, face: Face, hair: Hair, outfit: Outfit, scale: float) -> Look:
    """Sample the surfaces of a person in an outfit for `scale` fine pixels per metre."""
    grids = cover(figures.stand(body, motion.rest()), body, outfit, hair)
    density = scale / SPACING
    parts, colours, labels = [], [], []
    for name, grid in grids.items():
        step = np.sqrt(((grid[:, 1:] - grid[:, :-1]) ** 2).sum(-1)).max((0, 2))
        length = np.concatenate([[0], np.cumsum(step)])
        ring = np.sqrt(((np.roll(grid, -1, 2) - grid) ** 2).sum(-1)).sum(2).max(0)
        # skirts open when the legs do; limbs come nearer to the camera
        slack = 1.35 if name == "skirt" else 1.06
        num_rows = max(4, int(np.ceil(length[-1] * density * slack)))
        num_columns = max(6, int(np.ceil(ring.max() * density * slack)))
        along = (np.arange(num_rows) + 0.5) / num_rows * length[-1]
        place = np.interp(along, length, np.arange(len(length)))
        parts.append(
            Part(
                name,
                _cubic(place, len(length), False),
                _around(grid.shape[2], num_columns),
                name in ("hair", "skirt"),
            )
        )
        colour, label = _paint(
            name, face, hair, outfit, place, along, num_columns, float(ring.mean()), density
        )
        shape = (len(grid), num_rows, num_columns)
        colours.append(np.broadcast_to(colour, (*shape, 3)).reshape(-1, 3))
        labels.append(np.broadcast_to(label, shape).reshape(-1))
    label = np.concatenate(labels)
    both = np.concatenate([np.full(x.size, part.two_sided) for part, x in zip(parts, labels, strict=True)])
    return Look(
        tuple(parts), np.concatenate(colours).astype(np.float32), label.astype(np.uint8), label > 0, both
    )


def _paint(
    name: str,
    face: Face,
    hair: Hair,
    outfit: Outfit,
    place: np.ndarray,
    along: np.ndarray,
    columns: int,
    around: float,
    density: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Colours (copies or 1, M, N, 3) and labels of one part's dense samples."""
    rows = len(place)
    # degrees from the front, positive to the person's right
    turn = (np.arange(columns) / columns * 360 - 90 + 180) % 360 - 180
    across = (-turn / 360 * around).astype(np.float32)[None]
    down = along.astype(np.float32)[:, None]
    skin = np.broadcast_to(np.array(face.skin, np.float32), (1, rows, columns, 3))
    pair = np.arange(2)[:, None, None]
    top, lower = outfit.top, outfit.lower
    top_label, lower_label = LABEL[top.kind], LABEL[lower.kind]
    if name == "torso":
        height = np.interp(place, np.arange(len(TORSO)), TORSO[:, 0])
        bare = neckline(top.neckline, top.depth, height[:, None], np.abs(turn)[None])
        belly = np.broadcast_to(height[:, None] < top.hem - 0.001, bare.shape)
        colour = cloth(top, across, down, "chest")
        if top.trim:
            edge = neckline(top.neckline, top.depth, height[:, None] + 0.018, np.abs(turn)[None]) | (
                np.abs(height[:, None] - top.hem) < 0.02
            )
            colour = np.where(edge[..., None], np.array(top.colours[1], np.float32), colour)
        bare = bare | belly
        label = np.where(bare, LABEL["torso"], top_label)
        # below lies the lower garment
        label = np.where(height[:, None] < min(top.hem - 0.02, lower.waist - 0.03), 0, label)
        return np.where(bare[..., None], skin[0], colour)[None], label[None]
    if name == "sleeves":
        colour = cloth(top, across, down, "sleeve")
        if top.trim:
            colour = np.where(
                (down > along[-1] - 0.03)[..., None], np.array(top.colours[1], np.float32), colour
            )
        return colour[None], np.full((1, rows, columns), top_label)
    if name in ("trousers", "skirt", "seat"):
        zone = {"trousers": "leg", "skirt": "skirt", "seat": "hip"}[name]
        if lower.kind == "dress":
            down = down + 0.44
        elif name == "trousers":
            down = down + lower.waist - 0.02
        colour = cloth(lower, across, down, zone)
        if lower.trim and lower.kind == "lower" and name != "trousers":
            colour = np.where((down < 0.035)[..., None], np.array(lower.colours[1], np.float32), colour)
        return colour[None], np.full((1, rows, columns), lower_label)
    if name == "arms":
        return skin, np.broadcast_to(LABEL["right_arm"] + pair, (2, rows, columns))
    if name == "legs":
        return skin, np.broadcast_to(LABEL["right_leg"] + pair, (2, rows, columns))
    if name == "palms":
        return skin, np.broadcast_to(LABEL["right_hand"] + pair, (2, rows, columns))
    if name == "fingers":
        shade = np.array([0.98, 0.94, 1.0, 0.94, 0.99] * 2, np.float32)[:, None, None, None]
        return skin * shade, np.broadcast_to(
            LABEL["right_hand"] + np.arange(10)[:, None, None] // 5, (10, rows, columns)
        )
    if name in ("shoes", "shafts"):
        colour = np.broadcast_to(np.array(outfit.shoes.colour, np.float32), (rows, columns, 3))
        if name == "shoes":
            under = np.abs(turn) > 128  # the ring's "front" is the top of the foot
            colour = np.where(under[None, :, None], np.array(outfit.shoes.sole, np.float32), colour)
        return colour[None], np.broadcast_to(LABEL["right_shoe"] + pair, (2, rows, columns))
    if name == "neck":
        return skin * 0.97, np.full((1, rows, columns), LABEL["neck"])
    if name == "skull":
        height, wide, _, _ = (np.interp(place, np.arange(len(SKULL)), SKULL[:, c]) for c in range(4))
        flat = paint_face(face, density)
        angle = np.radians(turn)
        x, z = -wide[:, None] * np.sin(angle), np.cos(angle)
        per_metre = flat.shape[1] / FACE_BOX[2]
        map_x = ((x - FACE_BOX[0]) * per_metre - 0.5).astype(np.float32)
        map_y = np.broadcast_to((FACE_BOX[1] - height)[:, None] * per_metre - 0.5, map_x.shape).astype(
            np.float32
        )
        colour = cv2.remap(flat, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.where((z > 0.05)[..., None], colour, skin[0])[None], np.full(
            (1, rows, columns), LABEL["face"]
        )
    if name in ("nose", "ears"):
        return skin * 0.97, np.full((1, rows, columns), LABEL["face"])
    label = LABEL["hat"] if hair.hat is not None else LABEL["hair"]
    colour = strands(hair, rows, columns)
    if name == "hair":
        assert hair.rows is not None
        height = np.interp(place, np.arange(len(hair.rows)), hair.rows[:, 0])[:, None]
        drawn = height > hair_edge(hair, np.abs(turn))[None]
        return colour[None], (label * drawn)[None]
    return colour[None], np.full((1, rows, columns), label)
