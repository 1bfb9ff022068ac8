"""What datasets read pictures from, a shot or a try-on pair, and how: decoded, or latents that were kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Frames(Protocol):
    """Pictures of one size that training uses, by number."""

    @property
    def key(self) -> list[Any]:
        """All that decides how they look, as JSON holds it."""
        ...

    @property
    def usable(self) -> NDArray[np.int64]:
        """(U,) their numbers, rising."""
        ...

    def pictures(self, frames: Sequence[int]) -> NDArray[np.uint8]:
        """(n, H, W, 3) as they lie in their bucket. Raises UserError."""
        ...


# What training reads of frames: pictures (n, H, W, 3) uint8, or what was kept of them (scd.data.latents), and
# their context tokens if those were kept
Reader = Callable[[Any, Sequence[int]], tuple[NDArray[Any], NDArray[Any] | None]]


def read_pictures(item: Frames, frames: Sequence[int]) -> tuple[NDArray[np.uint8], None]:
    return item.pictures(frames), None
