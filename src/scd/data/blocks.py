"""Batches of one size: which item comes at which place of an endless, shuffled training set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from scd.data.memory import Memory


class Blocks:
    """Items of several sizes in blocks of `group` places, each block of one size.

    In an epoch every item comes once, and some of a size again where its items do not fill the last block.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], group: int, seed: int):
        self.group, self.seed = group, seed
        self.buckets = [[i for i, size in enumerate(sizes) if size == one] for one in sorted(set(sizes))]
        self.of_epoch = Memory(self._of_epoch, 2)

    def __call__(self, epoch: int) -> list[list[int]]:
        """The items of each block of an epoch: those of a size shuffled, then the blocks."""
        return self.of_epoch(epoch)

    def item(self, index: int) -> int:
        """The item at a place of the endless set."""
        block, place = divmod(index, self.group)
        epoch, number = divmod(block, len(self(0)))
        return self(epoch)[number][place]

    def candidates(self, index: int) -> Iterator[int]:
        """The item at a place, then all that may stand in for it: those of its size in an order of the
        place's own; then those of another size, to which a block's samples go over together."""
        first = self.item(index)
        yield first
        rng = np.random.default_rng([self.seed, 6, index])
        own = next(i for i, members in enumerate(self.buckets) if first in members)
        for members in (*self.buckets[own:], *self.buckets[:own]):
            yield from (int(item) for item in rng.permutation(members) if item != first)

    def _of_epoch(self, epoch: int) -> list[list[int]]:
        rng = np.random.default_rng([self.seed, 0, epoch])
        blocks = []
        for members in self.buckets:
            num = -(-len(members) // self.group)
            full = np.resize(rng.permutation(members), (num, self.group))  # the first come again at the end
            blocks += full.tolist()
        return [blocks[i] for i in rng.permutation(len(blocks))]
