"""Write the golden losses: ten steps of a tiny model in every stage, which any refactoring has to reproduce.

    .venv/bin/python runs/golden_losses.py tests/golden/losses.json

Run it again only when the method or the procedural world changes on purpose, and say so in the commit.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")  # before NumPy: as tests/conftest.py

import torch

from scd import model, train
from scd.config import PRESETS, TrainConfig

TINY = replace(
    PRESETS["world-tiny"], steps=10, save_every=100, sample_pictures=0, sample_every=100, tracker="none",
    head_weight=4.0,
)  # fmt: skip
CLIPS = replace(TINY.data, groups=1, frames=4)
STAGES: dict[str, TrainConfig] = {
    "pictures": TINY,
    "try-on": replace(TINY, data=replace(TINY.data, tasks=(0.0, 1.0, 0.0))),
    "joint": replace(TINY, data=replace(TINY.data, tasks=(0.4, 0.3, 0.3))),
    "attention": replace(TINY, learn="attention"),
    "lora": replace(TINY, learn="lora", lora_rank=4),
    "separate": replace(TINY, reference_network="separate"),
    "accumulated": replace(TINY, accumulation=2, noise_offset=0.05),
    "motion": replace(TINY, learn="motion", shared_noise=True, change_weight=3.0, motion_heads=2, data=CLIPS),
}


def losses(name: str) -> list[float]:
    """Of every step, in float32, from seeds alone; nothing of other stages or runs changes them."""
    with tempfile.TemporaryDirectory() as folder:
        config, run = STAGES[name], Path(folder) / "run"
        pipe = model.start(config, run)
        seen: list[float] = []
        train.train(config, run, pipe, lambda step, loss: seen.append(loss))
        return seen


if __name__ == "__main__":
    torch.set_num_threads(1)
    Path(sys.argv[1]).write_text(json.dumps({name: losses(name) for name in STAGES}, indent=1) + "\n")
