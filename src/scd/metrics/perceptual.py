"""LPIPS of a picture and the truth: torchmetrics' own, on a SqueezeNet whose weights lie at a path (CatVTON's
protocol); nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from scd.types import Picture, UserError

NET = "SqueezeNet 1.1, pictures in [-1, 1]"


def load_lpips(weights: Path, device: str | torch.device = "cpu") -> Callable[[Picture, Picture], float]:
    """The measure, with torchvision's squeezenet1_1 as .safetensors. Raises UserError."""
    if find_spec("torchvision") is None:
        raise UserError("--lpips: LPIPS needs torchvision: pip install 'scd[lpips]'")
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    network: Any = _NoTrainLpips(net="squeeze", pnet_rand=True)
    try:
        state = load_file(weights)
        # slices.2.7.squeeze.weight here is features.7.squeeze.weight there
        names = {name: f"features.{name.split('.', 2)[2]}" for name in network.net.state_dict()}
        network.net.load_state_dict({name: state[known] for name, known in names.items()})
    except Exception as error:  # safetensors has errors of its own
        raise UserError(
            f"{weights}: not torchvision's squeezenet1_1 as .safetensors ({error}); docs/evaluation.md says "
            "how to make it"
        ) from error
    network = network.to(device).eval()

    @torch.no_grad()
    def lpips(result: Picture, truth: Picture) -> float:
        a, b = (
            torch.from_numpy(np.ascontiguousarray(x)).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1
            for x in (result, truth)
        )
        return float(network(a, b).mean())

    return lpips
