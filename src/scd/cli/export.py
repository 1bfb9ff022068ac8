"""`scd export`: what a run learnt, as a folder to publish."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from scd.cli.fields import Flag, Verbose, claim
from scd.types import UserError


@dataclass(frozen=True)
class Export:
    """Write what a run learnt as a folder to publish: weights in diffusers' layout, and a model card.

    The card says what it was trained from and on, its settings, the newest held-out measures of the run, and
    whose licences apply. With --lora: the LoRA, with the pose encoder that learnt beside it and the
    schedule, for those who have its base.
    """

    run_folder: Annotated[Positional[Path], arg(name="run", metavar="RUN")]
    """The run's folder, as `scd train` wrote it."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """The new folder."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    """Of the written weights; float16 is half the size."""
    license: Annotated[str, arg(metavar="NAME", help_behavior_hint="")] = ""
    """Of the weights, as the hub spells it (apache-2.0, creativeml-openrail-m, ...)."""
    data_license: Annotated[str, arg(metavar="TEXT", help_behavior_hint="")] = ""
    """What the training data allows."""
    lora: Flag = False
    """The LoRA, pose encoder and schedule alone."""
    force: Flag = False
    """Replace OUT."""
    verbose: Verbose = False
    """Show the libraries' messages, and tracebacks."""

    def run(self) -> None:
        export(self)


def export(options: Export) -> None:
    """Run the verb and print the folder's name. Raises UserError: no run, nothing learnt yet, OUT exists."""
    run, out = options.run_folder, options.out
    claim(out, run, options.force)
    if not (run / "config.json").is_file():
        raise UserError(f"{run}: no run of `scd train` (no config.json); give the folder that --run named")
    from scd import checkpoint, learning
    from scd.card import model_card
    from scd.cli.terminal import no_bars_of_loading, progress
    from scd.model import load, resolve_dtype

    if options.lora and not (run / learning.LORA_FILE).is_file():
        raise UserError(f"{run}: holds no LoRA; only runs with --learn lora do")
    card = model_card(run, out.name, options.license, options.data_license, options.lora)
    no_bars_of_loading()
    with progress("writing", None):
        pipe = load(run / "model", "cpu", "float32")
        if options.lora:
            with checkpoint.whole_folder(out) as folder:
                shutil.copy2(run / learning.LORA_FILE, folder)
                pipe.pose_encoder.save_pretrained(folder / "pose_encoder")
                pipe.scheduler.save_pretrained(folder / "scheduler")
                (folder / "README.md").write_text(card)
        else:
            checkpoint.export(pipe, out, resolve_dtype(options.dtype, pipe.device), card)
    print(out)
