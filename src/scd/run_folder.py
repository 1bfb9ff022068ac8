"""Whose a run folder is: one config's, and only what training wrote there is ever replaced."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from scd.checkpoint import checkpoints
from scd.config import TrainConfig, differing, load_config, moved, to_json
from scd.media.files import replacing
from scd.types import UserError

log = logging.getLogger("scd")


def require_room(run: Path, config: TrainConfig) -> None:
    """UserError where a run of this config may neither begin nor go on. Nothing is written."""
    there = next(place for place in (run.absolute(), *run.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UserError(f"{there}: is a file; choose another --run")
    if not os.access(there, os.W_OK):
        raise UserError(f"{there}: cannot be written to; choose another --run")
    settings, saved, steps = run / "config.json", checkpoints(run), learnt(run)
    before = load_config(settings) if settings.exists() else None
    if before is not None and saved:
        if names := ", ".join(differing(before, config)):
            raise UserError(
                f"{run}: holds a run with other settings (config.json: {names}); "
                "choose another --run, or the same settings to resume"
            )
    elif saved:
        raise UserError(f"{run}: its config.json is missing; bring it back, or choose another --run")
    elif steps:
        raise UserError(
            f"{run}: its model has learnt {steps} steps, and no checkpoint is left to go on from; choose "
            f"another --run, with --init {run / 'model'} to start from what this one learnt"
        )
    elif not is_marked(run):
        for name in ("config.json", "model", "log.jsonl"):
            if (run / name).exists():
                raise UserError(f"{run / name}: no training run of scd's wrote it; choose another --run")


def claim(run: Path, config: TrainConfig) -> None:
    """Make the folder this config's, but for what `differing` leaves out. Raises UserError."""
    require_room(run, config)
    path = run / "config.json"
    if not is_marked(run):
        describe(run, 0, 0, 0.0)
    for name in moved(load_config(path), config) if checkpoints(run) else ():
        log.warning("%s: goes on with another --%s: it should hold the same files", run, name)
    if not path.exists() or path.read_text() != to_json(config):
        with replacing(path, force=True) as temporary:
            temporary.write_text(to_json(config))


def is_marked(run: Path) -> bool:
    """Whether a run began here, of whatever config: `describe` is what it writes first."""
    return (run / "model.json").exists()


def is_own(run: Path, config: TrainConfig) -> bool:
    """Whether `run/model` belongs to a run of this config. Raises UserError for a damaged config.json."""
    settings = run / "config.json"
    return (run / "model").exists() and settings.exists() and not differing(load_config(settings), config)


def describe(run: Path, step: int, targets: int, seconds: float) -> None:
    """Write down what `model/` has learnt from, which checkpoints are ahead of: RUN/model.json."""
    with replacing(run / "model.json", force=True) as temporary:
        temporary.write_text(json.dumps({"step": step, "targets": targets, "seconds": seconds}))


def learnt(run: Path) -> int:
    """Steps that `model/` has learnt from, 0 where nothing says it. Raises UserError for a damaged file."""
    path = run / "model.json"
    try:
        return int(json.loads(path.read_text())["step"])
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: is damaged, or no training run's; choose another --run") from None
