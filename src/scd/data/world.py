"""The procedural world as a training set: endless, every sample a function of its index alone, so that
resuming is exact."""

from __future__ import annotations

import numpy as np

from scd import world
from scd.data.augment import seen_in_training
from scd.data.heads import head_mask
from scd.data.memory import Memory
from scd.pose.draw import draw_pose
from scd.types import Pose, Sample
from scd.world.motion import CLIPS

# Scenes below are held out: evaluation, sample grids and examples use them and training never does.
FIRST_TRAINING_SEED = 1_000_000
FIRST_HELD_OUT_SEED = 10_000  # of evaluation and sample grids; examples, sheets and tests use those below
FRAMES_BETWEEN = 15  # of 30 a second, from one view to the next where views are frames of a clip


class WorldPictures:
    """Map-style dataset of `length` samples, each a function of its index (and of `apart`) alone.

    Samples of one batch need one number of references, so it is drawn per block of `group` consecutive
    indices. A scene serves `reuse` blocks, with its pictures in other roles: drawing takes a quarter of a
    step.
    """

    def __init__(
        self, length: int, size: int = 128, num_targets: int = 5, references: tuple[float, ...] = (1.0,),
        group: int = 1, first_seed: int = FIRST_TRAINING_SEED, repeat: int | None = None,
        augment: bool = True, reuse: int = 1, apart: int = 1, heads: bool = False,
        exact: float = 0.0, moving: float = 0.0,
    ):  # fmt: skip
        """references: the chances of 1, 2, 3 ... references. repeat: N = only N scenes exist (`--overfit
        N`). apart: a scene's blocks are every so manieth, since so many workers take blocks in turn and each
        has its own memory. heads: whether samples say where the targets' heads are. exact: the chance of a
        sample without errors in its poses; a reference beside its pose shows which kind it is. moving: the
        chance of a person of whom every second picture is a frame of a motion clip."""
        self.length, self.size, self.num_targets, self.references = length, size, num_targets, references
        self.group, self.first_seed, self.repeat, self.augment = group, first_seed, repeat, augment
        self.reuse, self.apart, self.heads, self.exact = reuse, apart, heads, exact
        self.moving = moving
        # Memory of the block before, for the block that uses its scenes again
        self.scene = Memory(world.Scene.from_seed, 2 * group)
        self.view = Memory(self._view, 2 * group * (num_targets + len(references)))
        self.picture = Memory(self._picture, 2 * group * (num_targets + len(references)))

    def __len__(self) -> int:
        return self.length

    def _view(self, seed: int, index: int) -> world.View:
        return self.scene(seed).view(index, size=self.size)

    def _picture(self, seed: int, index: int) -> world.View:
        """View `index` of a scene; where the person moves an odd one is a frame of a motion clip: walks and
        turns show sides and backs, which postures seldom do."""
        of_scene = np.random.default_rng([seed, 9])
        if index % 2 == 0 or of_scene.random() >= self.moving:
            return self.view(seed, index)
        kind = str(of_scene.choice(CLIPS))
        return self.scene(seed).clip(kind, index * FRAMES_BETWEEN + 1, size=self.size)[-1]

    def seed_of(self, block: int, place: int) -> int:
        """The scene of a place in a block."""
        turn, number = divmod(block, self.reuse * self.apart)
        number = (turn * self.apart + number % self.apart) * self.group + place
        return self.first_seed + (number if self.repeat is None else number % self.repeat)

    def num_references(self, block: int) -> int:
        """One number for all samples of a block."""
        return draw_num_references(self.first_seed, block, self.references)

    def __getitem__(self, index: int) -> Sample:
        block, place = divmod(index, self.group)
        num_references = self.num_references(block)
        rng = np.random.default_rng([self.first_seed, 2, index])
        seed = self.seed_of(block, place)
        order = range(num_references + self.num_targets)
        if self.reuse > 1:
            order = rng.permutation(len(order))
        views = [self.picture(seed, int(i)) for i in order]
        poses = [view.pose for view in views]
        return _sample(views, poses, num_references, self.size, self._errors(index, rng), self.heads)

    def _errors(self, index: int, rng: np.random.Generator) -> np.random.Generator | None:
        """What a sample's poses are moved by, if they are."""
        exact = np.random.default_rng([self.first_seed, 8, index]).random() < self.exact
        return rng if self.augment and not exact else None


class WorldClips(WorldPictures):
    """Motion clips: each sample is references in other postures, and `num_frames` successive frames."""

    def __init__(
        self, length: int, size: int = 128, num_frames: int = 16, strides: tuple[int, ...] = (1,),
        **options,
    ):  # fmt: skip
        """strides: between frames, at 30 a second; one is drawn a sample. options: as WorldPictures."""
        super().__init__(length, size, num_frames, **options)
        self.strides = strides
        self.clip = Memory(self._clip, 2 * self.group)

    def _clip(self, seed: int, kind: str, stride: int) -> list[world.View]:
        views = self.scene(seed).clip(kind, self.num_targets * stride, size=self.size)
        return list(views)[::stride]

    def __getitem__(self, index: int) -> Sample:
        block, place = divmod(index, self.group)
        num_references = self.num_references(block)
        rng = np.random.default_rng([self.first_seed, 2, index])
        seed = self.seed_of(block, place)
        # The clip is the same for all blocks that a scene serves: drawing it is what costs
        of_scene = np.random.default_rng([seed, 3])
        views = self.clip(seed, str(of_scene.choice(CLIPS)), int(of_scene.choice(self.strides)))
        shown = [self.view(seed, int(i)) for i in rng.permutation(len(self.references))[:num_references]]
        everything = [*shown, *views]
        poses = [view.pose for view in everything]
        return _sample(everything, poses, num_references, self.size, self._errors(index, rng), self.heads)


def draw_num_references(seed: int, block: int, chances: tuple[float, ...]) -> int:
    """How many references all samples of a block have; `chances` are those of 1, 2, 3 ..."""
    return 1 + int(np.random.default_rng([seed, 1, block]).choice(len(chances), p=chances))


def _sample(
    views: list[world.View], poses: list[Pose], num_references: int, size: int,
    errors: np.random.Generator | None, with_heads: bool,
) -> Sample:  # fmt: skip
    """References first, then targets; with detector-like errors in the poses."""
    r = num_references
    heads = np.stack([head_mask(pose, (size, size)) for pose in poses[r:]]) if with_heads else None
    poses = [seen_in_training(pose, errors) for pose in poses]
    images = np.stack([view.image for view in views])
    drawings = np.stack([draw_pose(pose, (size, size)) for pose in poses])
    return Sample(images[:r], drawings[:r], images[r:], drawings[r:], heads=heads)
