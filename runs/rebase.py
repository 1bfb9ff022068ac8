"""Move a trained network onto a whitened codec: where a later stage of the embedded model starts.

    .venv/bin/python runs/rebase.py src/scd/weights/embedded run/rebased --whitening 1

The codec is fitted again with the same patches, so its components are the same up to one gain each; the first
and last convolution take that gain over. The network then reads the same pictures from the new latents, but
it has never seen their noise: what it knows of references and poses is kept, the denoising is learnt anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from scd.checkpoint import export
from scd.config import NetworkConfig
from scd.model import build_scheduler, fit_codec
from scd.pipeline import SCDPipeline


@dataclass
class Options:
    source: Annotated[Path, tyro.conf.Positional]
    target: Annotated[Path, tyro.conf.Positional]
    whitening: float = 1.0
    prediction: Literal["v_prediction", "sample"] = "sample"


@torch.no_grad()
def main(options: Options) -> None:
    pipe = SCDPipeline.from_pretrained(options.source)
    if pipe.scheduler.config.prediction_type != "sample":
        raise SystemExit(f"{options.source}: only a network that predicts x0 can be rebased")
    network = replace(NetworkConfig(), whitening=options.whitening, prediction_type=options.prediction)
    old, new = pipe.vae, fit_codec(network, pipe.config.default_size)
    a, b = (
        (vae.encoder.weight.flatten(1).double() * vae.config.scaling_factor) for vae in (old, new)
    )  # (C, 192): latent = a x + ...
    gain = (a * b).sum(1) / (a * a).sum(1)
    worst = float(((b - gain[:, None] * a).norm(dim=1) / b.norm(dim=1)).max())
    if worst > 1e-2:  # half precision of the shipped codec: 3e-4
        raise SystemExit(f"{options.source}: its codec has other components (off by {worst:.3f})")
    gain = gain.float()
    unet = pipe.unet
    unet.conv_in.weight /= gain[None, :, None, None]
    sign = -1 if options.prediction == "v_prediction" else 1  # v = -x0 where the noise is highest
    unet.conv_out.weight *= sign * gain[:, None, None, None]
    unet.conv_out.bias *= sign * gain
    pipe = SCDPipeline.from_pipe(pipe, vae=new, scheduler=build_scheduler(network))
    export(pipe, options.target)
    print(f"{options.target}: gains {gain.min():.2f} to {gain.max():.2f}")


if __name__ == "__main__":
    main(tyro.cli(Options))
