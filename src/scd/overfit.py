"""`--overfit N`: can this model, this data and this machine learn at all? Only N people exist, and a run that
works knows them by heart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from scd import train
from scd.checkpoint import checkpoints
from scd.config import TrainConfig
from scd.data.collate import collate
from scd.media.files import replacing
from scd.step import Trainee, step_loss
from scd.types import UserError

BAR = 0.5  # of the loss before: what a run that learns nothing cannot reach, the noise being the same
NUM_DRAWS = 8  # of noise and timesteps, for each batch of the N people


def fixed_loss(config: TrainConfig, pipe: Any) -> float:
    """The loss over the N people with noise that is the same whenever this is asked. Nothing learns."""
    # reuse: the world shows one person to several steps in a row; here all N come
    data = replace(config.data, latents="", reuse=1)
    config = replace(config, drop_reference=0.0, matching_weight=0.0, data=data)
    batches = -(-config.overfit // config.data.groups)
    dataset: Any = train.make_dataset(config, batches * config.data.groups)
    trainee, losses = Trainee(pipe).eval(), []
    for turn in range(batches):
        first = turn * config.data.groups
        batch = collate([dataset[first + i] for i in range(config.data.groups)])
        for draw in range(NUM_DRAWS):
            generator = torch.Generator().manual_seed(turn * NUM_DRAWS + draw)
            with torch.no_grad():
                losses.append(step_loss(trainee, pipe, batch, generator, config).item())
    return sum(losses) / len(losses)


def remember(config: TrainConfig, run: Path, pipe: Any) -> None:
    """Before the first step: measure, and keep the number in RUN/overfit.json for a run that resumes."""
    path = run / "overfit.json"
    if not (path.exists() and checkpoints(run)):
        _write(path, {"before": fixed_loss(config, pipe)})


def verdict(config: TrainConfig, run: Path, pipe: Any) -> str:
    """One line that says that the run passed. Raises UserError where it did not."""
    path = run / "overfit.json"
    before, after = json.loads(path.read_text())["before"], fixed_loss(config, pipe)
    _write(path, {"before": before, "after": after, "bar": BAR, "passed": after <= BAR * before})
    said = f"the loss on the same noise went from {before:.3g} to {after:.3g}"
    if after <= BAR * before:
        return f"overfit: passed: {said} (half or less is wanted); look at {run / 'samples'}, too"
    raise UserError(
        f"{run}: overfit: failed: {said}; half or less is wanted. A falling curve needs more --steps; a flat "
        "one another --lr, or data whose poses do not fit their pictures (scd data preview)"
    )


def _write(path: Path, values: dict[str, Any]) -> None:
    with replacing(path, force=True) as temporary:
        temporary.write_text(json.dumps(values))
