"""The model card of what a run learnt: where it comes from, what it saw, what it reaches, whose licences
apply."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scd import __version__, records, run_folder
from scd.config import TrainConfig, load_config, replace, to_json
from scd.learning import LORA_FILE
from scd.types import UserError

LORA_USE = """With `base`, a pipeline with the weights that it started from:

```python
pipe = scd.SCDPipeline.from_pipe(
    base,
    pose_encoder=scd.PoseEncoder.from_pretrained("{name}/pose_encoder"),  # learnt beside the LoRA
    scheduler=diffusers.{scheduler}.from_pretrained("{name}/scheduler"),
).to(base.device, base.dtype)
pipe.load_lora_weights("{name}/{file}")
```"""
UNSAID = "not said"  # a licence that nobody gave: to be filled in before anything is published


def model_card(run: Path, name: str, license: str = "", data_license: str = "", lora: bool = False) -> str:
    """Markdown with the front matter that the Hugging Face hub reads. Raises UserError for a damaged run."""
    config = load_config(run / "config.json")
    if not run_folder.learnt(run):
        raise UserError(f"{run}: nothing is learnt yet; let it train on")
    state = json.loads((run / "model.json").read_text())
    rows = [row for row in records.read(run) if row["step"] <= state["step"]]
    front = [
        "library_name: diffusers",
        "tags:",
        "- scd",
        "- image-to-image",
        "- lora" if lora else "- text-free",
    ]
    if license:
        front.insert(0, f"license: {license}")
    facts = {
        "made by": f"scd {__version__}, preset `{config.name}`",
        "started from": f"`{_last(config.init)}`",
        "what learnt": config.learn + (f", rank {config.lora_rank}" if config.learn == "lora" else ""),
        "data": _data(config),
        "size": f"{config.data.size} pixels"
        + (f", {config.data.frames} frames" if config.data.frames > 1 else ""),
        "steps": f"{state['step']:,}",
        "targets": f"{state['targets']:,}",
        "hours": f"{state['seconds'] / 3600:.2f}",
        "licence of the weights": license or UNSAID,
        "licence of the data": data_license or UNSAID,
    }
    call = f'scd.SCDPipeline.from_pretrained("{name}")'
    use = f"`scd animate PHOTO DRIVING.mp4 --model {name}`, or `{call}`."
    if lora:
        scheduler = json.loads((run / "model/scheduler/scheduler_config.json").read_text())["_class_name"]
        use = LORA_USE.format(name=name, file=LORA_FILE, scheduler=scheduler)
    parts = [
        "---\n" + "\n".join(front) + "\n---",
        f"# {name}",
        "Consistent people from one reference picture: Spatially Conditioned Diffusion (arXiv 2412.14531).",
        use,
        _table(facts),
        "## Measures of the run",
        _measured(rows),
        "## Settings",
        f"```json\n{to_json(_without_places(config))}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _data(config: TrainConfig) -> str:
    """The dataset by its kind and its folder's name; where it lay is nobody's business."""
    if config.data.kind == "world":
        from scd.world import VERSION

        return f"drawn people (`scd.world`, version {VERSION})"
    also = f", with pairs of `{_last(config.data.tryon)}`" if config.data.tryon else ""
    return f"{config.data.kind}, `{_last(config.data.root)}`{also}"


def _without_places(config: TrainConfig) -> TrainConfig:
    """The settings with folders' names alone."""
    places = {key: _last(getattr(config.data, key)) for key in ("root", "tryon", "latents")}
    data = replace(config.data, **places)
    names = {key: _last(getattr(config, key)) for key in ("init", "image_encoder", "motion_adapter")}
    return replace(config, data=data, **names)


def _last(path: str) -> str:
    """A hub id as it is, of a folder its name; of a run's model/ the run's."""
    if path.count("/") == 1 and not Path(path).exists() and not path.endswith("/model"):
        return path
    place = Path(path)
    return place.parent.name if place.name == "model" and place.parent.name else place.name


def _measured(rows: list[dict[str, Any]]) -> str:
    if not (measures := _measures(rows)):
        return "None were taken (`--sample-pictures 0`)."
    of_whom = "of the people on the run's sheets: held out, where data was"
    return f"`loss` is training's; the others are {of_whom}.\n\n{_table(measures)}"


def _measures(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The newest row that was not of the loss, and the newest loss."""
    # A row of steps that were all left out has no loss
    losses, others = [r for r in rows if "loss" in r], [r for r in rows if "lr" not in r and len(r) > 1]
    last = {**(others[-1] if others else {}), **({"loss": losses[-1]["loss"]} if losses else {})}
    return {
        name: f"{value:.4g}" for name, value in last.items() if name != "step" and isinstance(value, float)
    }


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
