"""The procedural world as a training set: endless, every sample a function of its index alone, so that
resuming is exact."""

from __future__ import annotations

import numpy as np

from scd import world
from scd.data.augment import as_detected, perturb
from scd.pose.draw import draw_pose
from scd.types import Sample

# Scenes below are held out: evaluation, sample grids and examples use them and training never does.
FIRST_TRAINING_SEED = 1_000_000


class WorldPictures:
    """Map-style dataset of `length` samples; sample i shows the person of scene `first_seed + i`.

    Samples of one batch need one number of references, so it is drawn per block of `group` consecutive
    indices.
    """

    def __init__(
        self, length: int, size: int = 128, num_targets: int = 5, references: tuple[float, ...] = (1.0,),
        group: int = 1, first_seed: int = FIRST_TRAINING_SEED, repeat: int | None = None,
        augment: bool = True,
    ):  # fmt: skip
        """references: the chances of 1, 2, 3 ... references. repeat: with N, only N samples exist (`--overfit
        N`)."""
        self.length, self.size, self.num_targets, self.references = length, size, num_targets, references
        self.group, self.first_seed, self.repeat, self.augment = group, first_seed, repeat, augment

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        block = np.random.default_rng([self.first_seed, 1, index // self.group])
        num_references = 1 + int(block.choice(len(self.references), p=self.references))
        rng = np.random.default_rng([self.first_seed, 2, index])
        scene = world.Scene.from_seed(
            self.first_seed + (index if self.repeat is None else index % self.repeat)
        )
        views = [scene.view(i, size=self.size) for i in range(num_references + self.num_targets)]
        if self.augment:
            poses = [perturb(as_detected(view.pose, keep_head=rng.random() < 0.5), rng) for view in views]
        else:
            poses = [as_detected(view.pose) for view in views]
        images = np.stack([view.image for view in views])
        drawings = np.stack([draw_pose(pose, (self.size, self.size)) for pose in poses])
        r = num_references
        return Sample(images[:r], drawings[:r], images[r:], drawings[r:])
