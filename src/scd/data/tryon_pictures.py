"""Pairs on the disk as a training set: the garment is the reference, the person the target, and the region
says what of the person is painted. Every sample is a function of its index alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from scd.config import DataConfig
from scd.data.augment import perturb
from scd.data.blocks import Blocks
from scd.data.buckets import nearest_bucket
from scd.data.fitting import FramedPair, read_guides, size_of
from scd.data.frames import Reader, read_pictures
from scd.data.manifest import require_files
from scd.data.pairs import TryOnLayout, TryOnPair
from scd.data.tryon import find_pairs
from scd.data.unreadable import Unreadable, read_one
from scd.pose.draw import draw_pose
from scd.types import Sample, UserError

log = logging.getLogger("scd")


class TryOnPictures:
    """Map-style dataset of `length` samples: one garment, and the person who wears it.

    A block of `group` consecutive samples is a batch, so its samples share one bucket. The whole picture is
    shown, padded where its shape is not the bucket's: people of try-on datasets fill their pictures. A pair
    that cannot be read any more is passed over (scd.data.unreadable).
    """

    def __init__(
        self, pairs: Sequence[TryOnPair], length: int, size: int | tuple[int, int] = 512, group: int = 1,
        seed: int = 0, augment: bool = False,
    ):  # fmt: skip
        """size: the square root of a bucket's pixels, or one frame (height, width) for all. Raises UserError
        when no pair can train."""
        self.length, self.seed, self.augment = length, seed, augment
        self.read: Reader = read_pictures  # scd.latents puts what it kept in its place
        usable = [pair for pair in pairs if can_train(pair)]
        if not usable:
            raise UserError(f"no pair can train: {len(pairs)} pairs, none with an agnostic mask or a pose")
        self.items = _framed(usable, size)
        self.pairs, self.frames = [item.pair for item in self.items], [item.size for item in self.items]
        self.blocks = Blocks(self.frames, group, seed)
        self.unreadable = Unreadable([pair.name for pair in self.pairs])

    def __len__(self) -> int:
        return self.length

    def pair_of(self, index: int) -> TryOnPair:
        return self.pairs[self.blocks.item(index)]

    def __getitem__(self, index: int) -> Sample:
        def read(item: int) -> Sample:
            return self.sample(self.items[item], np.random.default_rng([self.seed, 2, index]))

        return read_one(read, index, self.blocks, self.unreadable)

    def sample(self, item: FramedPair, rng: np.random.Generator) -> Sample:
        """Of one pair; all that is random comes from `rng`. Raises UserError."""
        region, pose, _ = read_guides(item.pair, item.size)
        pictures, tokens = self.read(item, [1, 0])
        pose = perturb(pose, rng) if self.augment else pose
        return Sample(
            pictures[:1], np.zeros((1, *item.size, 3), np.uint8),  # a garment has no pose
            pictures[1:], draw_pose(pose, item.size)[None],
            None if tokens is None else tokens[:1],
            regions=region[None, ..., None].astype(np.uint8),
        )  # fmt: skip


def _framed(pairs: Sequence[TryOnPair], size: int | tuple[int, int]) -> list[FramedPair]:
    """Each in its frame; those whose picture has no size that can be read are left out. Raises UserError when
    they are many."""
    unreadable, items = Unreadable([pair.name for pair in pairs]), []
    for number, pair in enumerate(pairs):
        try:
            items.append(FramedPair(pair, frame_of(pair, size)))
        except UserError as error:
            unreadable.note(number, error)
    return items


def can_train(pair: TryOnPair) -> bool:
    """Whether it has ground truth, and something that says where the garment goes."""
    return pair.paired and not pair.error and not (pair.region is None and pair.pose is None)


def frame_of(pair: TryOnPair, size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the frame that the pair is read in."""
    return nearest_bucket(*size_of(pair), size) if isinstance(size, int) else size


def open_tryon(
    data: DataConfig, length: int, seed: int = 0, overfit: int = 0, held_out: bool = False
) -> TryOnPictures:
    """The training set that a config names, or (`held_out`) the paired test pairs. Logs how many pairs have
    neither mask nor pose, or lack a picture. Raises UserError when nothing can train."""
    layout, pairs = usable_pairs(data, held_out)
    concerned = [line for line in layout.problems if layout.is_of_test(line) == held_out]
    left_out = len(layout.paired if held_out else layout.training) - len(pairs) + len(concerned)
    if left_out:
        log.warning("%s: %d pairs left out; scd data check says which", data.root, left_out)
    return TryOnPictures(pairs[: overfit or None], length, data.size, data.groups, seed, data.augment)


def usable_pairs(data: DataConfig, held_out: bool = False) -> tuple[TryOnLayout, list[TryOnPair]]:
    """The layout that a config names, and those of its pairs that can train, or (`held_out`) be looked at.
    Opens no picture. Raises UserError when there are none."""
    if data.frames > 1:
        raise UserError(f"--data.frames {data.frames}: {data.kind} holds pictures, no clips; leave it out")
    layout = find_pairs(data.root, data.kind)
    there = layout.paired if held_out else layout.training
    if layout.listed_in:
        named = ((p.person, p.garment, p.region, p.pose) for p in there)
        require_files(layout.listed_in, [path for paths in named for path in paths if path is not None])
        there = tuple(pair.as_it_lies() for pair in there)
    pairs = [pair for pair in there if can_train(pair)]
    if not pairs:
        why = f"no pair has both its pictures; scd data check {data.root} says more"
        if there:
            why = (
                f"none has an agnostic mask or a pose; scd data prepare {data.root} finds poses, makes masks"
            )
        raise UserError(f"{data.root}: no pair can train, {why}")
    return layout, pairs
