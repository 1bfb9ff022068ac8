"""Surfels to pictures: sample every surface densely, keep the nearest point of each fine pixel, shade, average down.

Coarse grids (`surface.cover`) are interpolated by two small matrix products to about 0.7 fine pixels between samples, so that no holes
appear. A `Wardrobe` of dense colours and labels belongs to (person, outfit, size) and is made once per scene; a picture only moves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from . import figure as figures
from . import motion
from .figure import SKULL, Body, Figure
from .head import FACE_BOX, Face, Hair, hair_edge, paint_face, strands
from .surface import TORSO, cover
from .wardrobe import Outfit, cloth, neckline

LABELS = (
    "background", "hair", "face", "neck", "torso", "right_arm", "left_arm", "right_hand", "left_hand", "right_leg", "left_leg",
    "right_shoe", "left_shoe", "upper", "lower", "dress", "hat",
)  # fmt: skip
LABEL = {name: i for i, name in enumerate(LABELS)}
SPACING = 0.68  # fine pixels between samples at the person's distance; up to 0.7 leaves no holes on a turned grid (diagonal < 1)
DISTANCE = 5.5  # metres from the camera to the person: mild perspective


@dataclass(frozen=True)
class Camera:
    """Pixels of the fine canvas. A point (x, y, z) in metres appears at left + scale·x·D/(D−z), ground − scale·((y−eye)·D/(D−z)+eye)."""

    scale: float  # fine pixels per metre at z = 0
    left: float
    ground: float
    eye: float  # height of the camera, metres
    size: tuple[int, int]  # fine (height, width)

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres -> (..., 2) fine pixels."""
        near = DISTANCE / (DISTANCE - points[..., 2])
        x = self.left + self.scale * points[..., 0] * near
        y = self.ground - self.scale * ((points[..., 1] - self.eye) * near + self.eye)
        return np.stack([x, y], -1)


@lru_cache(maxsize=512)
def _around(angles: int, columns: int) -> np.ndarray:
    """(angles, columns) periodic cubic (Catmull-Rom) interpolation."""
    return _cubic(np.arange(columns) * angles / columns, angles, True).T.copy()


def _cubic(place: np.ndarray, num: int, periodic: bool) -> np.ndarray:
    low = np.floor(place).astype(int)
    if not periodic:
        low = np.minimum(low, num - 2)
    t = place - low
    weights = ((-t + 2 * t**2 - t**3) / 2, (2 - 5 * t**2 + 3 * t**3) / 2, (t + 4 * t**2 - 3 * t**3) / 2, (-(t**2) + t**3) / 2)
    matrix = np.zeros((len(place), num), np.float32)
    for shift, weight in zip((-1, 0, 1, 2), weights):
        index = (low + shift) % num if periodic else np.clip(low + shift, 0, num - 1)
        np.add.at(matrix, (np.arange(len(place)), index), weight)
    return matrix


@dataclass(frozen=True)
class Part:
    name: str
    copies: int
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
        slack = 1.35 if name == "skirt" else 1.06  # skirts open when the legs do; limbs come nearer to the camera
        num_rows = max(4, int(np.ceil(length[-1] * density * slack)))
        num_columns = max(6, int(np.ceil(ring.max() * density * slack)))
        along = (np.arange(num_rows) + 0.5) / num_rows * length[-1]
        place = np.interp(along, length, np.arange(len(length)))
        parts.append(Part(name, len(grid), _cubic(place, len(length), False), _around(grid.shape[2], num_columns), name in ("hair", "skirt")))
        colour, label = _paint(name, body, face, hair, outfit, place, along, num_columns, float(ring.mean()), len(grid), density)
        shape = (len(grid), num_rows, num_columns)
        colours.append(np.broadcast_to(colour, (*shape, 3)).reshape(-1, 3))
        labels.append(np.broadcast_to(label, shape).reshape(-1))
    label = np.concatenate(labels)
    both = np.concatenate([np.full(x.size, part.two_sided) for part, x in zip(parts, labels)])
    return Look(tuple(parts), np.concatenate(colours).astype(np.float32), label.astype(np.uint8), label > 0, both)


def _paint(
    name: str, body: Body, face: Face, hair: Hair, outfit: Outfit, place: np.ndarray, along: np.ndarray, columns: int,
    around: float, copies: int, density: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Colours (copies or 1, M, N, 3) and labels of one part's dense samples."""
    rows = len(place)
    turn = (np.arange(columns) / columns * 360 - 90 + 180) % 360 - 180  # degrees from the front, positive to the person's right
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
            edge = neckline(top.neckline, top.depth, height[:, None] + 0.018, np.abs(turn)[None]) | (np.abs(height[:, None] - top.hem) < 0.02)
            colour = np.where(edge[..., None], np.array(top.colours[1], np.float32), colour)
        bare = bare | belly
        label = np.where(bare, LABEL["torso"], top_label)
        label = np.where(height[:, None] < min(top.hem - 0.02, lower.waist - 0.03), 0, label)  # below lies the lower garment
        return np.where(bare[..., None], skin[0], colour)[None], label[None]
    if name == "sleeves":
        colour = cloth(top, across, down, "sleeve")
        if top.trim:
            colour = np.where((down > along[-1] - 0.03)[..., None], np.array(top.colours[1], np.float32), colour)
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
        return skin * shade, np.broadcast_to(LABEL["right_hand"] + np.arange(10)[:, None, None] // 5, (10, rows, columns))
    if name in ("shoes", "shafts"):
        colour = np.broadcast_to(np.array(outfit.shoes.colour, np.float32), (rows, columns, 3))
        if name == "shoes":
            under = np.abs(turn) > 128  # the ring's "front" is the top of the foot
            colour = np.where(under[None, :, None], np.array(outfit.shoes.sole, np.float32), colour)
        return colour[None], np.broadcast_to(LABEL["right_shoe"] + pair, (2, rows, columns))
    if name == "neck":
        return skin * 0.97, np.full((1, rows, columns), LABEL["neck"])
    if name == "skull":
        height, wide, deep, _ = (np.interp(place, np.arange(len(SKULL)), SKULL[:, c]) for c in range(4))
        flat = paint_face(face, density)
        angle = np.radians(turn)
        x, z = -wide[:, None] * np.sin(angle), np.cos(angle)
        per_metre = flat.shape[1] / FACE_BOX[2]
        map_x = ((x - FACE_BOX[0]) * per_metre - 0.5).astype(np.float32)
        map_y = np.broadcast_to((FACE_BOX[1] - height)[:, None] * per_metre - 0.5, map_x.shape).astype(np.float32)
        colour = cv2.remap(flat, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.where((z > 0.05)[..., None], colour, skin[0])[None], np.full((1, rows, columns), LABEL["face"])
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


@dataclass(frozen=True)
class Canvas:
    """The nearest samples on the fine canvas."""

    sample: np.ndarray  # (h, w) int32 index into the look's samples, -1 = background
    depth: np.ndarray  # (h, w) float32 z in metres towards the camera, -9 = background
    shade: np.ndarray  # (P,) float32 brightness of every sample


def scatter(figure: Figure, body: Body, hair: Hair, outfit: Outfit, look: Look, camera: Camera, light: np.ndarray) -> Canvas:
    """Project all samples and keep the nearest per fine pixel. `light` is a unit vector towards the light."""
    grids = cover(figure, body, outfit, hair)
    layers = [_dense(part, grids[part.name], camera, light) for part in look.parts]
    x, y, depth, facing, shade = np.concatenate(layers, 1)
    height, width = camera.size
    index = np.flatnonzero(((facing > 0) | look.both) & look.drawn)
    x, y = x[index], y[index]
    if x.min() < 0 or y.min() < 0 or x.max() >= width or y.max() >= height:
        inside = np.flatnonzero((x >= 0) & (x < width) & (y >= 0) & (y < height))
        index, x, y = index[inside], x[inside], y[inside]
    pixel = y.astype(np.int32) * width + x.astype(np.int32)
    # Nearest last: a stable sort of 16-bit integers is a radix sort; 65536 steps over 3.2 m are 0.05 mm each.
    near = ((depth[index] + 1.6) * (65535 / 3.2)).clip(0, 65535).astype(np.uint16)
    order = np.argsort(near, kind="stable")
    sample = np.full(height * width, -1, np.int32)
    sample[pixel[order]] = index[order]
    seen = np.full(height * width, -9.0, np.float32)
    filled = np.flatnonzero(sample >= 0)
    seen[filled] = depth[sample[filled]]
    return Canvas(sample.reshape(height, width), seen.reshape(height, width), shade)


def _dense(part: Part, grid: np.ndarray, camera: Camera, light: np.ndarray) -> np.ndarray:
    """(5, samples): x, y in fine pixels, z in metres, facing (> 0 towards the camera), brightness."""
    around = np.empty_like(grid)
    around[:, :, 1:-1] = grid[:, :, 2:] - grid[:, :, :-2]
    around[:, :, 0] = grid[:, :, 1] - grid[:, :, -1]
    around[:, :, -1] = grid[:, :, 0] - grid[:, :, -2]
    along = np.empty_like(grid)
    along[:, 1:-1] = grid[:, 2:] - grid[:, :-2]
    along[:, 0], along[:, -1] = grid[:, 1] - grid[:, 0], grid[:, -1] - grid[:, -2]
    (ax, ay, az), (bx, by, bz) = around.transpose(3, 0, 1, 2), along.transpose(3, 0, 1, 2)
    nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    size = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-16)
    gx, gy, gz = grid.transpose(3, 0, 1, 2)
    near = DISTANCE / (DISTANCE - gz)
    layers = np.empty((5, *gx.shape), np.float32)
    layers[0] = camera.left + camera.scale * gx * near
    layers[1] = camera.ground - camera.scale * ((gy - camera.eye) * near + camera.eye)
    layers[2] = gz
    layers[3] = (nz * (DISTANCE - gz) - nx * gx - ny * (gy - camera.eye)) * size
    layers[4] = (nx * light[0] + ny * light[1] + nz * light[2]) * size
    return (part.down @ layers @ part.around).reshape(5, -1)


def compose(canvas: Canvas, look: Look, background: np.ndarray, scale: float, fine: int) -> np.ndarray:
    """Colour the canvas over `background` (H, W, 3) float32 and average `fine` x `fine` down. Returns uint8 (H, W, 3)."""
    height, width = canvas.sample.shape
    flat = canvas.sample.reshape(-1)
    filled = np.flatnonzero(flat >= 0)
    index = flat[filled]
    lit = canvas.shade[index]
    bright = 0.60 + 0.42 * np.maximum(lit + 0.15, 0)  # a wrapped lamp over an even sky
    picture = np.zeros((height * width, 4), np.float32)
    picture[filled, :3] = look.colour[index] * bright[:, None]
    picture[filled, 3] = 1
    small = cv2.resize(picture.reshape(height, width, 4), (width // fine, height // fine), interpolation=cv2.INTER_AREA)
    shadow = _occlusion(canvas.depth[::fine, ::fine], scale / fine)
    return np.clip(small[..., :3] * shadow[..., None] + background * (1 - small[..., 3:]) + 0.5, 0, 255).astype(np.uint8)


def _occlusion(depth: np.ndarray, scale: float) -> np.ndarray:
    """Brightness factor: darker where something nearer stands beside (an arm over the chest). `scale` in pixels per metre."""
    solid = (depth > -5).astype(np.float32)
    size = max(3, int(0.10 * scale) // 2 * 2 + 1)
    mass = cv2.blur(solid, (size, size))
    mean = cv2.blur(np.where(solid > 0, depth, 0), (size, size)) / np.maximum(mass, 1e-3)
    return 1 - 0.42 * np.clip((mean - depth - 0.012) / 0.09, 0, 1) * solid
