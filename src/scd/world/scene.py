"""Scenes and their views: one seed is one person, wardrobe, place, light and camera.

A view's index is a posture and a turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..types import BODY, Pose
from . import figure as figures
from . import motion
from .background import paint_background
from .figure import Body, Figure
from .head import Face, Hair, sample_face, sample_hair
from .render import Camera, Canvas, compose, scatter
from .tailor import LABEL, Look, tailor
from .wardrobe import Garment, Outfit, sample_outfit

VERSION = 1  # raised with every change of pictures


@dataclass(frozen=True, eq=False)
class Person:
    body: Body
    face: Face
    hair: Hair
    outfit: Outfit


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that stays the same within a clip. Make one with `Scene.from_seed`."""

    seed: int
    person: Person
    fill: float  # stature as a fraction of the picture's height
    floor: float  # where the ground under the person is, as a fraction of the height
    horizon: float
    place: float  # horizontal middle, fraction of the width
    light: tuple[float, float, float]  # unit vector towards the light
    # memory of what each size needs; never changes a result
    looks: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @staticmethod
    def from_seed(seed: int) -> Scene:
        """The scene of a seed (0 <= seed < 2^63): the same for ever under one VERSION."""
        rng = np.random.default_rng([int(seed), VERSION])
        body = figures.sample_body(rng)
        hair = sample_hair(rng)
        person = Person(body, sample_face(rng, hair.colour), hair, sample_outfit(rng))
        # Nine of ten stand in the picture from head to foot; the tenth is cut at the thigh or the knee.
        fill, floor = rng.uniform(0.74, 0.82), rng.uniform(0.93, 0.965)
        if rng.uniform() < 0.10:
            fill = rng.uniform(1.15, 1.5)
            floor = 0.10 + fill
        light = np.array([rng.uniform(-0.8, 0.8), rng.uniform(0.5, 1.0), rng.uniform(0.6, 1.0)])
        light /= np.linalg.norm(light)
        return Scene(
            int(seed),
            person,
            float(fill),
            float(floor),
            float(min(floor - rng.uniform(0.06, 0.16), 0.9)),
            float(0.5 + rng.uniform(-0.04, 0.04)),
            tuple(light.tolist()),
        )

    def view(self, index: int, size: int | tuple[int, int] = 128) -> View:
        """View `index` (>= 0): a random posture, turn and small shift.

        `size` is a side or (height, width) in pixels, 32 at least.
        """
        rng = np.random.default_rng([self.seed, 1 + int(index), VERSION, 7])
        posture = motion.sample_posture(rng)
        posture[figures.INDEX["shift_x"]] = rng.uniform(-0.16, 0.16)
        posture[figures.INDEX["shift_y"]] = rng.uniform(-0.03, 0.05)
        return View(self, self.person.outfit, posture, _size(size))

    def clip(
        self, kind: str, num_frames: int, fps: float = 30, size: int | tuple[int, int] = 128
    ) -> Sequence[View]:
        """A smooth clip of 'dance', 'walk', 'wave' or 'turn': a sequence of lazy views."""
        if kind not in motion.CLIPS:
            raise ValueError(f"unknown clip {kind!r}: choose one of {', '.join(motion.CLIPS)}")
        rng = np.random.default_rng([self.seed, motion.CLIPS.index(kind), VERSION, 11])
        postures = motion.clip_postures(kind, rng, num_frames, fps)
        return [View(self, self.person.outfit, posture, _size(size)) for posture in postures]

    def camera(self, size: tuple[int, int]) -> Camera:
        height, width = size
        fine = _fine(size)
        unit = min(height, 1.35 * width) * fine
        scale = unit * self.fill / self.person.body.stature
        ground = height * fine - (1 - self.floor) * unit
        return Camera(scale, width * fine * self.place, ground, 1.0, (height * fine, width * fine))

    def backdrop(self, size: tuple[int, int]) -> np.ndarray:
        """The place without the person, float32 (H, W, 3)."""
        rng = np.random.default_rng([self.seed, VERSION, 13])
        return self._remember(("backdrop", size), lambda: paint_background(rng, *size, self.horizon))

    def look(self, outfit: Outfit, size: tuple[int, int]) -> Look:
        scale = self.camera(size).scale
        person = self.person
        return self._remember(
            (outfit, scale), lambda: tailor(person.body, person.face, person.hair, outfit, scale)
        )

    def _remember(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self.looks:
            # other garments and sizes come and go: a look is 2 MB at 128 px, 30 MB at 512
            while len(self.looks) >= 8:
                self.looks.pop(next(iter(self.looks)))
            self.looks[key] = make()
        return self.looks[key]


def _size(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if min(height, width) < 32:
        raise ValueError(f"a view needs at least 32 pixels a side, not {height} x {width}")
    return height, width


def _fine(size: tuple[int, int]) -> int:
    return 2 if min(size) >= 112 else 4  # fine pixels per pixel: small pictures need smoother edges


@dataclass(frozen=True, eq=False)
class View:
    """One picture and its truth, rendered when asked for. `size` is (height, width)."""

    scene: Scene
    outfit: Outfit
    posture: np.ndarray
    size: tuple[int, int]

    @property
    def yaw(self) -> float:
        """Degrees in -180..180, 0 = facing the camera, positive = the person turned to its left."""
        return float((self.posture[figures.INDEX["yaw"]] + 180) % 360 - 180)

    @cached_property
    def figure(self) -> Figure:
        """The skeleton in metres, moved so that its joints lie in the picture where possible."""
        body, camera = self.scene.person.body, self.scene.camera(self.size)
        figure = figures.stand(body, self.posture)
        points = camera.project(figure.joints)
        height, width = camera.size
        low, high = points.min(0), points.max(0)
        margin = 0.02 * min(height, width)
        step = np.zeros(3)
        if self.scene.fill < 1:  # whole figures are pushed into the picture; cut ones only sideways
            # room under the feet; they matter more than a raised hand
            below = height - high[1] - margin - 0.03 * camera.scale
            down = min(max(0.0, margin - low[1]), max(below, 0.0))
            step[1] = (max(-below, 0.0) - down) / camera.scale
        right, left = max(0.0, margin - low[0]), max(0.0, high[0] + margin - width)
        step[0] = (right - left) / camera.scale
        return figure.moved(step) if step.any() else figure

    @cached_property
    def canvas(self) -> Canvas:
        scene = self.scene
        person = scene.person
        look = scene.look(self.outfit, self.size)
        camera, light = scene.camera(self.size), np.array(scene.light)
        return scatter(self.figure, person.body, person.hair, self.outfit, look, camera, light)

    @cached_property
    def image(self) -> np.ndarray:
        """uint8 (H, W, 3) RGB."""
        camera = self.scene.camera(self.size)
        background = self.scene.backdrop(self.size) * self._shadow(camera)[..., None]
        return compose(
            self.canvas, self.scene.look(self.outfit, self.size), background, camera.scale, _fine(self.size)
        )

    def _shadow(self, camera: Camera) -> np.ndarray:
        """Soft dark spots under the feet: brightness (H, W) of the background."""
        fine = _fine(self.size)
        height, width = self.size
        feet = self.figure.legs[:, 2] + 0.06 * self.figure.r_feet[:, :, 2]
        spots = camera.project(feet * (1, 0, 1)) / fine
        scale = camera.scale / fine
        y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
        dark = np.zeros((height, width), np.float32)
        for (sx, sy), foot in zip(spots, feet, strict=True):
            weight = 0.45 * np.exp(-max(foot[1] - 0.08, 0) * 6)
            dark += (
                weight
                * np.exp(-(((y - sy) / (0.05 * scale)) ** 2))
                * np.exp(-(((x - sx) / (0.17 * scale)) ** 2))
            )
        return 1 - np.minimum(dark, 0.6)

    @cached_property
    def visible(self) -> np.ndarray:
        """bool (128,): the joint is the first thing that a ray from the camera meets, by the fine depth."""
        camera = self.scene.camera(self.size)
        points = camera.project(self.figure.joints)
        height, width = camera.size
        inside = (points >= 0).all(1) & (points[:, 0] < width) & (points[:, 1] < height)
        column, row = np.clip(points.astype(int), 0, (width - 1, height - 1)).T
        front = self.canvas.depth[row, column]
        return inside & (front < self.figure.joints[:, 2] + _BURIED * self.scene.person.body.scale)

    @cached_property
    def pose(self) -> Pose:
        """The 128 joints; scores 1 = seen, 0.5 = in the picture but hidden, 0 = outside the picture."""
        camera = self.scene.camera(self.size)
        points = camera.project(self.figure.joints)
        points[1] = (points[2] + points[5]) / 2
        fractions = points / (camera.size[1], camera.size[0])
        inside = ((fractions >= 0) & (fractions < 1)).all(1)
        scores = np.where(inside, np.where(self.visible, 1.0, 0.5), 0.0)
        return Pose(
            np.where(inside[:, None], fractions, 0).astype(np.float32), scores.astype(np.float32), self.size
        )

    @cached_property
    def labels(self) -> np.ndarray:
        """uint8 (H, W): the part that covers most of each pixel, names in LABELS.

        Background where the person covers less than half.
        """
        fine = _fine(self.size)
        look = self.scene.look(self.outfit, self.size)
        sample = self.canvas.sample
        label = np.where(sample >= 0, look.label[sample], 0)
        height, width = self.size
        cells = (
            label.reshape(height, fine, width, fine).transpose(0, 2, 1, 3).reshape(height, width, fine * fine)
        )
        votes = np.stack([(cells == k).sum(-1) for k in range(len(LABEL))], -1)
        person = votes[..., 1:].sum(-1) * 2 >= fine * fine
        return np.where(person, 1 + votes[..., 1:].argmax(-1), 0).astype(np.uint8)

    @property
    def mask(self) -> np.ndarray:
        """bool (H, W): the person's pixels."""
        return self.labels > 0

    def region(self, garment: str) -> np.ndarray:
        """bool (H, W): the pixels of the garment of this kind ('upper', 'lower' or 'dress')."""
        return self.labels == LABEL[garment]

    def dressed(self, clothes: Outfit | Garment) -> View:
        """The same person, posture and place in another outfit, or with a garment in place of its kind."""
        outfit = clothes if isinstance(clothes, Outfit) else self.outfit.wearing(clothes)
        return dataclasses.replace(self, outfit=outfit)


def _buried() -> np.ndarray:
    """How deep each joint lies under its own surface, metres with slack.

    A surface this much nearer is still the joint's own.
    """
    depth = np.full(128, 0.035)
    # nose, neck, arms, legs, eyes, ears
    arm, leg = (0.11, 0.09, 0.07), (0.19, 0.12, 0.09)
    depth[BODY] = (0.04, 0.13, *arm, *arm, *leg, *leg, 0.03, 0.03, 0.035, 0.035)
    return depth


_BURIED = _buried()
