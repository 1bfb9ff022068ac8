"""Clips and try-on pairs in one training set (the joint stage), block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from scd.config import DRESSED, TRYON, DataConfig
from scd.data.find import kind_of
from scd.data.real import RealPictures
from scd.data.tryon_pictures import TryOnPictures
from scd.types import Sample, UserError


class Mixed:
    """Map-style dataset whose blocks come from `clips`, or with a chance of `share` from `pairs`. As in both,
    a sample is a function of its index alone, and a block is a batch of one shape."""

    def __init__(
        self, clips: RealPictures, pairs: TryOnPictures, share: float, group: int = 1, seed: int = 0
    ):
        self.clips, self.pairs, self.share, self.group, self.seed = clips, pairs, share, group, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        draw = np.random.default_rng([self.seed, 7, index // self.group]).random()
        return (self.pairs if draw < self.share else self.clips)[index]

    def read_by(self, change: Callable[[Any], Any]) -> Mixed:
        """The same of changed parts: with kept latents."""
        return Mixed(change(self.clips), change(self.pairs), self.share, self.group, self.seed)


def pairs_config(data: DataConfig) -> DataConfig:
    """The pairs of a mixed set as a set of their own: one garment, one picture. Raises UserError when
    `data.tryon` names no pairs, or the blocks' chances do not fit."""
    kind = kind_of(data.tryon)
    pairs: Any = replace(data, kind=kind, root=data.tryon, tryon="", targets=1, references=(1.0,))
    if not pairs.is_tryon:
        raise UserError(f"{data.tryon}: holds no try-on pairs; --data.tryon takes VITON-HD's or DressCode's")
    if data.kind == "world" or data.is_tryon or data.frames > 1:
        raise UserError("--data.tryon goes with pictures of clips: give their manifest as --data")
    if not data.tasks[TRYON] or data.tasks[DRESSED]:
        raise UserError(
            "--data.tasks: with --data.tryon the chances of pictures and of try-on, and 0: 0.6 0.4 0"
        )
    return pairs
