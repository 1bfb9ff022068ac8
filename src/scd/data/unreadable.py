"""What cannot be read while a run goes on: named once, counted, and another one in its place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch

from scd.data.blocks import Blocks
from scd.types import Sample, UserError

log = logging.getLogger("scd")

# More broken items than this part of all, and than this number, are no accident: a disk that is gone, a copy
# that stopped half way
MOST_PART, MOST = 0.1, 5


class Unreadable:
    """Which items of a dataset could not be read, as all processes know that read it."""

    def __init__(self, names: Sequence[str]):
        self.names = list(names)
        self.flags = torch.zeros(len(names), dtype=torch.uint8).share_memory_()

    def note(self, item: int, error: UserError) -> None:
        """Name an item, unless it was named before. Raises UserError when they have become too many."""
        if self.flags[item]:
            return
        self.flags[item] = 1
        num = int(self.flags.sum())
        if num > max(MOST, MOST_PART * len(self.names)):
            raise UserError(
                f"{num} of {len(self.names)} cannot be read, too many to go on; the last one: {error}"
            ) from None
        log.warning("%s is passed over, %d of %d by now: %s", self.names[item], num, len(self.names), error)


def read_one(read: Callable[[int], Sample], index: int, blocks: Blocks, unreadable: Unreadable) -> Sample:
    """`read(item)` of the item at a place, or of another where that cannot be read: which one is a function
    of the place and of what lies on the disk alone. Raises UserError when too many cannot be read."""
    for item in blocks.candidates(index):
        try:
            return read(item)
        except UserError as error:
            unreadable.note(item, error)
            last = error
    raise UserError(f"none of {len(unreadable.names)} can be read; the last one: {last}") from None
