"""Make a run's averaged weights the embedded model: half precision, one file a component, and a new line in
the card.

    .venv/bin/python runs/ship.py run/world-pictures --guidance 1.5

The card (src/scd/weights/embedded/README.md) lists every stage that was really run; this script adds the
run's stage, or updates its line when the same run is shipped again, and keeps what is written below them.
Evaluate afterwards and put the table into BENCHMARKS.md in the same commit.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from scd import checkpoint, world
from scd.config import load_config
from scd.model import embedded_folder
from scd.pipeline import SCDPipeline
from scd.schedulers import scheduler_named

HEAD = """# The embedded model

Drawn people (`scd.world`, version {version}) at {size} x {size} pixels; {parameters:.1f} M parameters in half
precision, diffusers layout.
Made by `scd train`; Apache-2.0, as the code. It has never seen a photograph. Numbers: BENCHMARKS.md.

Stages that were really run, in order; a stage starts from the one above it:

| run | world | start | steps | targets | hours | peak rate | commit |
|---|---|---|---|---|---|---|---|
"""


@dataclass
class Options:
    run: Annotated[Path, tyro.conf.Positional]
    guidance: float | None = None
    """The model's default from now on; chosen on held-out pictures."""
    steps: int | None = None
    """Likewise."""
    scheduler: str | None = None
    """Its own sampler from now on, by name (`--scheduler` of the command line)."""


def main(options: Options) -> None:
    run = options.run
    config = load_config(run / "config.json")
    pipe = SCDPipeline.from_pretrained(run / "model")
    for name, value in (("default_guidance", options.guidance), ("default_steps", options.steps)):
        if value is not None:
            pipe.register_to_config(**{name: value})
    if options.scheduler is not None:
        pipe.scheduler = scheduler_named(pipe.scheduler, options.scheduler)
    folder = embedded_folder()
    card = folder / "README.md"
    lines = card.read_text().splitlines() if card.exists() else []
    stages = [line for line in lines if line.startswith("| `")]
    notes = lines[lines.index(stages[-1]) + 1 :] if stages else []
    checkpoint.export(pipe, folder, torch.float16)
    for path in folder.rglob("*.json"):  # where it was loaded from is nobody's business
        own = {key: value for key, value in json.loads(path.read_text()).items() if key != "_name_or_path"}
        path.write_text(json.dumps(own, indent=2, sort_keys=True) + "\n")
    state = json.loads((checkpoint.checkpoints(run)[-1] / "state.json").read_text())
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    name = f"| `{run.name}` |"
    stage = (
        f"{name} {world.VERSION} | {config.init} | {state['step']:,} | "
        f"{state['step'] * config.targets_per_step:,} | "
        f"{state['seconds'] / 3600:.2f} | {config.lr:g} | {commit} |"
    )
    stages = [line for line in stages if not line.startswith(name)] + [stage]
    parameters = (
        sum(p.numel() for m in (pipe.unet, pipe.pose_encoder, pipe.vae) for p in m.parameters()) / 1e6
    )
    head = HEAD.format(version=world.VERSION, size=pipe.config.default_size, parameters=parameters)
    card.write_text(head + "\n".join([*stages, *notes]) + "\n")
    megabytes = sum(f.stat().st_size for f in folder.rglob("*.safetensors")) / 2**20
    shutil.rmtree(folder.with_name("embedded.old"), ignore_errors=True)
    print(f"{folder}: {megabytes:.1f} MiB of weights; {stage}")


if __name__ == "__main__":
    main(tyro.cli(Options))
