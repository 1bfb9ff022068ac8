"""Give a model's network attention at its finest level on the way up too, without changing what it computes:
the new layers' last projections are zero.

    .venv/bin/python runs/grow.py src/scd/weights/embedded run/grown
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import tyro
from diffusers import UNet2DConditionModel


def grow(model: Path, out: Path, seed: int = 0, /) -> None:
    """Read `model`, write the grown one to `out`; all but its `unet` stays."""
    if out.exists():
        raise SystemExit(f"{out} exists already: choose another name")
    network = UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=torch.float32)
    config = dict(network.config)
    config["up_block_types"] = ["CrossAttnUpBlock2D"] * len(config["up_block_types"])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        grown = UNet2DConditionModel.from_config(config)
    new, unexpected = grown.load_state_dict(network.state_dict(), strict=False)
    if unexpected or not new or not all(".attentions." in name for name in new):
        raise SystemExit(f"{model}: not a network without attention at its finest level on the way up")
    for name, parameter in grown.named_parameters():
        if name in new and ".proj_out." in name:
            torch.nn.init.zeros_(parameter)
    size, width = config["sample_size"], config["cross_attention_dim"]
    g = torch.Generator().manual_seed(seed)
    z_t = torch.randn(1, config["in_channels"], size, size, generator=g)
    inputs = z_t, 500, torch.randn(1, 3, width, generator=g)
    with torch.no_grad():
        difference = (grown(*inputs).sample - network(*inputs).sample).abs().max().item()
    if difference > 1e-5:
        raise SystemExit(f"{model}: the grown network computes something else, by {difference}")
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("unet"))
    grown.save_pretrained(out / "unet")


if __name__ == "__main__":
    tyro.cli(grow, description=__doc__)
