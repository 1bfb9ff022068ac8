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
        values = [getattr(sample, f.name) for sample in samples]
        if values[0] is None:
            continue
        stacked = np.stack(values)  # (G, n, H, W, 3), tokens (G, n, 1, D)
        if stacked.ndim == 5:
            stacked = np.ascontiguousarray(stacked.transpose(0, 1, 4, 2, 3))
        arrays[f.name] = torch.from_numpy(stacked)
    return Batch(**arrays)
