"""The model card of what a run learnt: where it comes from, what it saw, what it reaches, whose licences
apply."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scd import __version__, checkpoint
from scd.config import TrainConfig, load_config, to_json
from scd.learning import LORA_FILE

UNSAID = "not said"  # a licence that nobody gave: to be filled in before anything is published


def model_card(run: Path, name: str, license: str = "", data_license: str = "", lora: bool = False) -> str:
    """Markdown with the front matter that the Hugging Face hub reads. Raises UserError for a damaged run."""
    config = load_config(run / "config.json")
    state = json.loads((checkpoint.checkpoints(run)[-1] / "state.json").read_text())
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
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
        "targets": f"{_targets(rows):,}",
        "hours": f"{state['seconds'] / 3600:.2f}",
        "licence of the weights": license or UNSAID,
        "licence of the data": data_license or UNSAID,
    }
    call = f'scd.SCDPipeline.from_pretrained("{name}")'
    use = f"`scd animate PHOTO DRIVING.mp4 --model {name}`, or `{call}`."
    if lora:
        use = f'`pipe.load_lora_weights("{name}/{LORA_FILE}")`, on the weights that it started from.'
    parts = [
        "---\n" + "\n".join(front) + "\n---",
        f"# {name}",
        "Consistent people from one reference picture: Spatially Conditioned Diffusion (arXiv 2412.14531).",
        use,
        _table(facts),
        "## Held-out measures of the run",
        _table(_measures(rows)) if _measures(rows) else "None were taken (`--sample-pictures 0`).",
        "## Settings",
        f"```json\n{to_json(config)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _data(config: TrainConfig) -> str:
    """The dataset by its kind and its folder's name; where it lay is nobody's business."""
    if config.data.kind == "world":
        from scd.world import VERSION

        return f"drawn people (`scd.world`, version {VERSION})"
    return f"{config.data.kind}, `{_last(config.data.root)}`"


def _last(path: str) -> str:
    """A hub id as it is, of a folder its name."""
    return path if path.count("/") == 1 and not Path(path).exists() else Path(path).name or path


def _targets(rows: list[dict[str, Any]]) -> int:
    return max((row["targets"] for row in rows if "targets" in row), default=0)


def _measures(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The newest row that was not of the loss, and the newest loss."""
    losses, others = [r for r in rows if "loss" in r], [r for r in rows if "loss" not in r and len(r) > 1]
    last = {**(others[-1] if others else {}), **({"loss": losses[-1]["loss"]} if losses else {})}
    return {
        name: f"{value:.4g}" for name, value in last.items() if name != "step" and isinstance(value, float)
    }


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
