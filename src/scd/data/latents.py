"""Latents that training kept of real frames, read in place of the pictures.

One file a shot, or a try-on pair: `latents` (U, h, w, 2 C) float16, mean and standard deviation of the scaled
posterior of each of its U usable frames; `tokens` (U, 1, D) float16, their image embeddings, where the model
has an image encoder. A frame lies in its bucket in one way only (no random crops, no flips), so nothing
random is frozen: the noise of the posterior is drawn anew at every use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from scd.data.frames import Frames
from scd.types import UserError

VERSION = 1  # raised with every change of what the files hold


def latents_path(folder: Path, item: Frames, stamp: str) -> Path:
    """The file of a shot or a pair, named by all that decides what is in it; `stamp` stands for the encoders'
    weights."""
    what = json.dumps([VERSION, stamp, *item.key])
    return folder / f"{hashlib.sha256(what.encode()).hexdigest()[:40]}.safetensors"


def is_kept(path: Path) -> bool:
    """Whether a file of latents is there, and was not cut off."""
    try:
        with safe_open(path, "np"):  # which compares its head with its length
            return True
    except (OSError, SafetensorError):
        return False


@dataclass(frozen=True)
class LatentsReader:
    """What a dataset reads in place of pictures: (n, h, w, 2 C) float16, and tokens (n, 1, D) or None."""

    folder: Path
    stamp: str

    def __call__(self, item: Frames, frames: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        path = latents_path(self.folder, item, self.stamp)
        rows = np.searchsorted(item.usable, frames).tolist()
        try:
            with safe_open(path, "np") as file:
                found = {
                    name: np.concatenate([file.get_slice(name)[row : row + 1] for row in rows])
                    for name in file.keys()  # noqa: SIM118, a file is no dict
                }
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: kept latents cannot be read ({error}); remove the file") from error
        return found["latents"], found.get("tokens")
