"""Latents that training kept of real frames, read in place of the pictures.

One file a shot: `latents` (U, h, w, 2 C) float16, mean and standard deviation of the scaled posterior of each
of its U usable frames; `tokens` (U, 1, D) float16, their image embeddings, where the model has an image
encoder. A frame lies in its bucket in one way only (no random crops, no flips), so nothing random is frozen:
the noise of the posterior is drawn anew at every use.
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

from scd.data.shots import Shot
from scd.types import UserError

VERSION = 1  # raised with every change of what the files hold


def latents_path(folder: Path, shot: Shot, stamp: str) -> Path:
    """The file of a shot, named by all that decides what is in it; `stamp` stands for the encoders' weights.
    """
    place = shot.placement
    what = [
        VERSION, stamp, shot.content, place.source_size, place.size, place.source, place.target, shot.border,
        shot.usable.tolist(),
    ]  # fmt: skip
    return folder / f"{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:40]}.safetensors"


@dataclass(frozen=True)
class LatentsReader:
    """What a dataset reads in place of pictures: (n, h, w, 2 C) float16, and tokens (n, 1, D) or None."""

    folder: Path
    stamp: str

    def __call__(self, shot: Shot, frames: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        path = latents_path(self.folder, shot, self.stamp)
        rows = np.searchsorted(shot.usable, frames).tolist()
        try:
            with safe_open(path, "np") as file:
                found = {
                    name: np.concatenate([file.get_slice(name)[row : row + 1] for row in rows])
                    for name in file.keys()  # noqa: SIM118, a file is no dict
                }
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: kept latents cannot be read ({error}); remove the file") from error
        return found["latents"], found.get("tokens")
