"""`Sample`s of one shape -> `Batch`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch

from scd.types import Batch, Sample


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack G samples; all need the same number of references and targets. Raises ValueError otherwise."""
    arrays = {}
    for f in fields(Batch):
        stacked = np.stack([getattr(sample, f.name) for sample in samples])  # (G, n, H, W, 3)
        arrays[f.name] = torch.from_numpy(np.ascontiguousarray(stacked.transpose(0, 1, 4, 2, 3)))
    return Batch(**arrays)
