"""The procedural world as a try-on training set: flat garments are the references, the dressed person is the
target. Every sample is a function of its index alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from scd import world
from scd.config import DRESSED, PICTURES
from scd.data.augment import as_detected, seen_in_training
from scd.data.heads import head_mask
from scd.data.memory import Memory
from scd.data.world import WorldPictures, draw_num_references
from scd.pose.draw import draw_pose
from scd.pose.region import garment_region
from scd.types import Sample, UserError
from scd.world import LABELS, Garment, Outfit, View, flat_garment, sample_garment

LARGEST_YAW = 75.0  # degrees: a flat garment shows its front
MARGIN = 0.05  # of the picture's height, around what two garments and the limbs cover

# The body under a garment, beside the garment itself; and what stays as it is
_UNDER = {
    "upper": ("upper", "neck", "torso", "right_arm", "left_arm"),
    "lower": ("lower", "right_leg", "left_leg"),
    "dress": ("dress", "neck", "torso", "right_arm", "left_arm", "right_leg", "left_leg"),
}
_KEPT = ("hair", "face", "right_hand", "left_hand", "right_shoe", "left_shoe", "hat")


class WorldTryOn(WorldPictures):
    """Blocks of three tasks: a picture of WorldPictures; try-on, with 1 or 2 garments as references: a top, a
    lower or a dress, or a top and a lower at once, and the region is that of both; and dressing, where a
    picture of the person in other clothes comes first among the references, with its pose, and the whole
    target is painted, in the garments.
    """

    def __init__(
        self, length: int, size: int = 128, num_targets: int = 5, garments: tuple[float, ...] = (1.0,),
        tasks: tuple[float, float, float] = (0.0, 1.0, 0.0), **options,
    ):  # fmt: skip
        """garments: the chances of 1 and 2. tasks: those of pictures, try-on, dressing. options: as
        WorldPictures."""
        if len(garments) > 2:
            raise ValueError("a person of the world wears two garments at most")
        super().__init__(length, size, num_targets, **options)
        self.garments, self.tasks = garments, tasks
        self.flat = Memory(flat_garment, 4 * self.group)
        self.facing = Memory(self._facing, 2 * self.group)

    def task(self, block: int) -> int:
        return int(np.random.default_rng([self.first_seed, 5, block]).choice(3, p=self.tasks))

    def _facing(self, seed: int) -> list[int]:
        """The first views of a scene that show its front, one more than targets."""
        return facing(self.scene(seed), self.num_targets + 1)

    def __getitem__(self, index: int) -> Sample:
        block, place = divmod(index, self.group)
        task = self.task(block)
        if task == PICTURES:
            return super().__getitem__(index)
        num = draw_num_references(self.first_seed, block, self.garments)
        rng = np.random.default_rng([self.first_seed, 2, index])
        errors = self._errors(index, rng)
        seed = self.seed_of(block, place)
        outfit = self.outfit(seed, num)
        garments = outfit.garments if num == 2 else (outfit.garments[rng.integers(len(outfit.garments))],)
        order = self.facing(seed)
        if self.reuse > 1:
            order = rng.permutation(order)
        first, *views = (self._wearing(seed, int(i), outfit) for i in order)
        references = [self.flat(garment, self.size) for garment in garments]
        drawings = [np.zeros_like(references[0]) for _ in garments]
        heads = None
        if task == DRESSED:
            for garment in garments:
                first = first.dressed(sample_garment(rng, garment.kind))
            references.insert(0, first.image)
            drawings.insert(0, self._draw(first, errors))
            regions = np.ones((len(views), self.size, self.size, 1), np.uint8)
            if self.heads:
                heads = np.stack([head_mask(view.pose, view.size) for view in views])
        else:
            kinds = [garment.kind for garment in garments]
            regions = np.stack([world_region(view, kinds)[..., None] for view in views]).astype(np.uint8)
        return Sample(
            np.stack(references), np.stack(drawings), np.stack([view.image for view in views]),
            np.stack([self._draw(view, errors) for view in views]),
            heads=heads, regions=regions,
        )  # fmt: skip

    def outfit(self, seed: int, num: int) -> Outfit:
        """The scene's own; for two garments a top and a lower where that is a dress."""
        own = self.scene(seed).person.outfit
        if num == 1 or own.dress is None:
            return own
        rng = np.random.default_rng([seed, 4])
        return Outfit(sample_garment(rng, "upper"), sample_garment(rng, "lower"), None, own.shoes)

    def _wearing(self, seed: int, index: int, outfit: Outfit) -> View:
        view = self.view(seed, index)
        return view if view.outfit == outfit else view.dressed(outfit)

    def _draw(self, view: View, errors: np.random.Generator | None) -> NDArray[np.uint8]:
        return draw_pose(seen_in_training(view.pose, errors), view.size)


def facing(scene: world.Scene, num: int, largest_yaw: float = LARGEST_YAW) -> list[int]:
    """The first `num` views of a scene whose person is turned no further."""
    found, index = [], 0
    while len(found) < num:
        if abs(scene.view(index).yaw) <= largest_yaw:
            found.append(index)
        index += 1
    return found


def world_region(view: View, kinds: Iterable[str]) -> NDArray[np.bool_]:
    """(H, W) where garments of these kinds go, from the pose (`scd tryon` widens those of lower garments and
    dresses by the silhouette). From the truth where the pose does not show it: a person cut above the
    hips."""
    region = np.zeros(view.size, bool)
    for kind in kinds:
        try:
            region |= garment_region(as_detected(view.pose), view.size, kind)  # type: ignore[arg-type]
        except UserError:
            region |= true_region([view], kind)
    return region


def true_region(views: list[View], kind: str) -> NDArray[np.bool_]:
    """(H, W) what the garments of one person's views in one posture cover, and the limbs under them, with a
    margin: the outline of no garment. Face, hair, hands and shoes are left out."""
    labels = np.stack([view.labels for view in views])
    covered = np.isin(labels, _numbers(_UNDER[kind])).any(0)
    near = cv2.dilate(covered.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0  # pixels that hold some of it
    if kind != "upper":  # between the legs too: trousers must not tell from skirts
        covered |= _hull(np.isin(labels, _numbers((*_UNDER["lower"], "dress"))).any(0))
    radius = max(1, round(MARGIN * views[0].size[0]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    wide = cv2.dilate(covered.astype(np.uint8), disc) > 0
    return wide & (near | ~np.isin(labels, _numbers(_KEPT)).all(0))


def other_garment(seed: int, garment: Garment) -> Garment:
    """Another garment of the same kind, always the same one for a scene."""
    return sample_garment(np.random.default_rng([seed, 6]), garment.kind)


def garment_mask(garment: Garment, size: int | tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) the garment's pixels in `flat_garment`: what is not white when all its cloth is black."""
    black = (0.0, 0.0, 0.0)
    return flat_garment(replace(garment, colours=(black, black, black)), size)[..., 0] < 128


def _numbers(names: Iterable[str]) -> list[int]:
    return [LABELS.index(name) for name in names]


def _hull(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    filled = np.zeros(mask.shape, np.uint8)
    points = np.argwhere(mask)[:, ::-1].astype(np.int32)
    if len(points):
        cv2.fillConvexPoly(filled, cv2.convexHull(np.ascontiguousarray(points)), (1,))
    return filled > 0
