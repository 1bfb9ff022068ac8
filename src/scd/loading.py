"""Networks from a folder or a hub id, every key accounted for: what is missing or left over is an error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging

from scd.types import UserError

logger = logging.get_logger("diffusers.pipelines.pipeline_utils")  # says what diffusers' own loading says

# Settings of `from_pretrained` that each network gets too; `dtype` is diffusers' new name of `torch_dtype`
PASSED_ON = (
    "torch_dtype", "dtype", "variant", "use_safetensors", "cache_dir", "revision", "token",
    "local_files_only",
)  # fmt: skip


def load_network(
    network_class: Any, source: str | Path, subfolder: str = "", allowed: Sequence[str] = (), **options
) -> Any:
    """`network_class.from_pretrained`, strictly: keys that start with one of `allowed` may be left over, and
    nothing else.

    `source` is a folder or a hub id. Raises UserError that names the folder and lists the keys.
    """
    place = f"{source}/{subfolder}" if subfolder else str(source)
    if subfolder:  # transformers' and diffusers' spelling of "none" differ
        options["subfolder"] = subfolder
    try:
        network, info = network_class.from_pretrained(source, output_loading_info=True, **options)
    except Exception as error:
        raise UserError(f"{place}: cannot be loaded: {' '.join(str(error).split())[:400]}") from error
    left_over = [key for key in info["unexpected_keys"] if not key.startswith(tuple(allowed))]
    mismatched = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
    wrong = {"missing": info["missing_keys"], "left over": left_over, "of another shape": mismatched}
    if any(wrong.values()):
        lists = "; ".join(f"{what}: {', '.join(sorted(keys))}" for what, keys in wrong.items() if keys)
        raise UserError(f"{place}: the weights are not those of a {network_class.__name__}: {lists}")
    for tensor in (*network.parameters(), *network.buffers()):
        # off the memory map: kernels differ in the last bit at odd addresses
        tensor.data = tensor.data.clone()
    return network


def index_of(source: str | Path) -> dict[str, Any]:
    """A pipeline folder's model_index.json. Raises UserError when it is missing or damaged."""
    try:
        return json.loads((Path(source) / "model_index.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: no SCD model folder (model_index.json is missing or damaged)") from error


def load_networks(folder: Path, kwargs: dict[str, Any]) -> dict[str, Any]:
    """All networks of a folder through their own `from_pretrained`, every key accounted for, in float32 when
    no dtype is asked for. Nothing when the folder lacks the variant that is asked for."""
    index = index_of(folder)
    name = index.get("_class_name")
    if name == "StableDiffusionPipeline":
        raise UserError(
            f"{folder}: holds a {name}, which was never trained for SCD; "
            f"train it: scd train sd15-pictures --init {folder} --image-encoder FOLDER"
        )
    if name != "SCDPipeline":
        raise UserError(f"{folder}: holds a {name}, not an SCDPipeline")
    # transformers would keep the precision of the file
    options = {"dtype": torch.float32, **{name: kwargs[name] for name in PASSED_ON if name in kwargs}}
    if "torch_dtype" in options:  # the older name of the same
        options["dtype"] = options.pop("torch_dtype")
    if (variant := options.get("variant")) and not list(folder.glob(f"*/*.{variant}*.safetensors")):
        return {}  # diffusers' own error names the variant
    networks = {}
    for name in ("unet", "vae", "pose_encoder", "motion_adapter", "image_encoder", "reference_unet"):
        library, class_name = index.get(name) or (None, None)
        if name not in kwargs and library and class_name:
            network_class = getattr(import_module(library), class_name)
            networks[name] = load_network(network_class, folder, name, **_of_component(name, options))
            logger.info("Loaded %s as %s from the `%s` subfolder of %s", name, class_name, name, folder)
    return networks


def _of_component(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """A dtype may be a dict: one for each component, and a "default"."""
    chosen = {
        key: value.get(name, value.get("default", torch.float32))
        for key, value in options.items()
        if key == "dtype" and isinstance(value, dict)
    }
    return {**options, **chosen}


def find_variant(folder: Path) -> str | None:
    """The variant to ask for where a component's folder holds no plain safetensors file: `fp16` for
    `diffusion_pytorch_model.fp16.safetensors`. None when the plain file is there, or no safetensors."""
    names = [path.name for path in folder.glob("*.safetensors")]
    if any(name.split(".")[1] == "safetensors" for name in names):
        return None
    variants = sorted({name.split(".")[1].split("-")[0] for name in names})
    return "fp16" if "fp16" in variants else variants[0] if variants else None
