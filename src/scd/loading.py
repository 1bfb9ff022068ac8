"""Networks from a folder, every key accounted for: a missing or left-over weight is an error, no warning."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from scd.types import UserError


def load_networks(folder: Path, kwargs: dict[str, Any]) -> dict[str, Any]:
    """unet, vae and pose encoder of a folder through their own `from_pretrained`, every key accounted for."""
    try:
        index = json.loads((folder / "model_index.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no SCD model folder (model_index.json is missing or damaged)") from error
    if index.get("_class_name") != "SCDPipeline":
        raise UserError(
            f"{folder}: holds a {index.get('_class_name')}, not an SCDPipeline, and was never trained for SCD"
        )
    networks = {}
    for name in ("unet", "vae", "pose_encoder"):
        if name in kwargs:
            continue
        library, class_name = index[name]
        options = {k: kwargs[k] for k in ("torch_dtype", "variant", "use_safetensors") if k in kwargs}
        try:
            network, info = getattr(import_module(library), class_name).from_pretrained(
                folder / name, output_loading_info=True, **options
            )
        except Exception as error:
            raise UserError(f"{folder / name}: cannot be loaded: {' '.join(str(error).split())}") from error
        wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
        if wrong:
            raise UserError(
                f"{folder / name}: keys missing, left over or of another shape: {', '.join(map(str, wrong))}"
            )
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.data = (
                tensor.data.clone()
            )  # off the memory map: kernels differ in the last bit at odd addresses
        networks[name] = network
    return networks
