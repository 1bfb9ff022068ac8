"""Surfels to pictures: project a look's samples, keep the nearest of each fine pixel, shade, average down."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .figure import Body, Figure
from .head import Hair
from .surface import cover
from .tailor import Look, Part
from .wardrobe import Outfit

DISTANCE = 5.5  # metres from the camera to the person: mild perspective


@dataclass(frozen=True)
class Camera:
    """Pixels of the fine canvas.

    A point (x, y, z) in metres appears at left + scale·x·D/(D−z), ground − scale·((y−eye)·D/(D−z)+eye).
    """

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


@dataclass(frozen=True)
class Canvas:
    """The nearest samples on the fine canvas."""

    sample: np.ndarray  # (h, w) int32 index into the look's samples, -1 = background
    depth: np.ndarray  # (h, w) float32 z in metres towards the camera, -9 = background
    shade: np.ndarray  # (P,) float32 brightness of every sample


def scatter(
    figure: Figure, body: Body, hair: Hair, outfit: Outfit, look: Look, camera: Camera, light: np.ndarray
) -> Canvas:
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
    """Colour the canvas over `background` (H, W, 3) float32 and average `fine` x `fine` down.

    Returns uint8 (H, W, 3).
    """
    height, width = canvas.sample.shape
    flat = canvas.sample.reshape(-1)
    filled = np.flatnonzero(flat >= 0)
    index = flat[filled]
    lit = canvas.shade[index]
    bright = 0.60 + 0.42 * np.maximum(lit + 0.15, 0)  # a wrapped lamp over an even sky
    picture = np.zeros((height * width, 4), np.float32)
    picture[filled, :3] = look.colour[index] * bright[:, None]
    picture[filled, 3] = 1
    small = cv2.resize(
        picture.reshape(height, width, 4), (width // fine, height // fine), interpolation=cv2.INTER_AREA
    )
    shadow = _occlusion(canvas.depth[::fine, ::fine], scale / fine)
    return np.clip(
        small[..., :3] * shadow[..., None] + background * (1 - small[..., 3:]) + 0.5, 0, 255
    ).astype(np.uint8)


def _occlusion(depth: np.ndarray, scale: float) -> np.ndarray:
    """Brightness factor: darker where something nearer stands beside (an arm over the chest).

    `scale` in pixels per metre.
    """
    solid = (depth > -5).astype(np.float32)
    size = max(3, int(0.10 * scale) // 2 * 2 + 1)
    mass = cv2.blur(solid, (size, size))
    mean = cv2.blur(np.where(solid > 0, depth, 0), (size, size)) / np.maximum(mass, 1e-3)
    return 1 - 0.42 * np.clip((mean - depth - 0.012) / 0.09, 0, 1) * solid
