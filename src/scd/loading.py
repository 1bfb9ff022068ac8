"""Networks from a folder, a hub id or a file of weights, every key accounted for: what is missing or left
over is an error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from scd.types import UserError

logger = logging.get_logger("diffusers.pipelines.pipeline_utils")  # says what diffusers' own loading says

# Settings of `from_pretrained` that each network gets too; `dtype` is diffusers' new name of `torch_dtype`
PASSED_ON = (
    "torch_dtype", "dtype", "variant", "use_safetensors", "cache_dir", "revision", "token",
    "local_files_only",
)  # fmt: skip

MORE = "holds more than tensors, and nothing of it was executed; use a file of plain weights (.safetensors)"
ENDINGS = (".safetensors", ".pth", ".ckpt", ".bin")  # of a file of weights


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
        text = " ".join(str(error).split())
        if text.startswith("Weights only load failed"):  # torch's words, which go on to say how to run it
            raise UserError(f"{place}: {MORE}") from error
        raise UserError(f"{place}: cannot be loaded: {text[:400]}") from error
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
        index = json.loads((Path(source) / "model_index.json").read_text())
        if not isinstance(index, dict):
            raise ValueError("not an object")
        return index
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: no SCD model folder (model_index.json is missing or damaged)") from error


def load_networks(folder: Path, kwargs: dict[str, Any]) -> dict[str, Any]:
    """All networks of a folder through their own `from_pretrained`, every key accounted for, in float32 when
    no dtype is asked for. Nothing when the folder lacks the variant that is asked for."""
    for option in ("device_map", "quantization_config"):  # diffusers would pass over them
        if kwargs.get(option) is not None:
            raise ValueError(
                f"{option}: networks are loaded on the CPU as they are; then pipe.to(device), "
                "pipe.enable_model_cpu_offload() or pipe.unet.enable_layerwise_casting(...)"
            )
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
            try:
                network_class = getattr(import_module(library), class_name)
            except (ImportError, AttributeError):
                raise UserError(
                    f"{folder}: its {name} is a {library}.{class_name}, which is not there: "
                    "model_index.json is damaged, or of another version"
                ) from None
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


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name, in float32: safetensors, or a .pth or .ckpt that holds nothing but
    tensors. Raises UserError; nothing that a file says is executed."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            weights: Any = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: damaged, or half a download ({reason}): download it again") from error
    except Exception as error:  # the weights-only reader refuses what is not data
        with path.open("rb") as file:
            if file.read(1) not in (b"P", b"\x80"):  # a zip's, or of what torch wrote before 2020
                raise UserError(f"{path}: no file of weights (a web page?): download it again") from error
        raise UserError(f"{path}: {MORE}") from error
    if isinstance(weights, dict) and isinstance(weights.get("state_dict"), dict):
        weights = weights["state_dict"]  # a trainer's
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path}: holds more than tensors; use a file of plain weights")
    # Copies: a mapped file's odd addresses change the last bit of kernels
    return {
        name.removeprefix("module."): value.to(torch.float32, copy=True) for name, value in weights.items()
    }


def fill(network: Any, weights: dict[str, Tensor], path: Path | None) -> Any:
    """A network that was made on the meta device takes these tensors as they are, every key accounted for.
    Raises UserError."""
    own = network.state_dict()
    wrong = {
        "missing": own.keys() - weights.keys(),
        "left over": weights.keys() - own.keys(),
        "of another size": {n for n in own.keys() & weights.keys() if own[n].shape != weights[n].shape},
    }
    if any(wrong.values()):
        lists = "; ".join(
            f"{len(names)} {what}: {', '.join(sorted(names)[:4])}{' ...' * (len(names) > 4)}"
            for what, names in wrong.items() if names
        )  # fmt: skip
        raise UserError(f"{path}: not the weights of this {type(network).__name__}: {lists}")
    network.load_state_dict(weights, assign=True)
    return network.eval()
