"""The model that the options ask for, with their settings as its defaults."""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from scd import __version__
from scd.backbones.motion import has_motion
from scd.cli.job import identity_of
from scd.cli.options import ModelOptions
from scd.cli.terminal import no_bars_of_loading, progress
from scd.data.buckets import multiple_of
from scd.model import load
from scd.reference import hash_settings, hash_weights
from scd.schedulers import scheduler_named
from scd.types import UserError

# Of the pipeline's own settings, those that decide what is painted and are none of the command line's options
_DECIDE = (
    "reference_timestep", "default_window", "default_overlap", "motion_norm_per_frame", "shared_noise",
    "reference_pose", "pose_drawing",
)  # fmt: skip


def load_pipeline(options: ModelOptions, trained: bool = True) -> Any:
    """Load, and make what `set_defaults` names the SCDPipeline's defaults. Raises UserError, also
    for a starting point that was never trained, unless that is what is wanted."""
    _require_numbers(options)
    loras = [lora_file(named) for named in options.lora]
    no_bars_of_loading()
    with progress("loading the model", None):
        pipe: Any = load(options.model, options.device, options.dtype)
    if trained and not pipe.pose_encoder.is_trained:
        raise UserError(
            f"{options.model}: a starting point that was never trained for SCD (its pose encoder passes "
            f"nothing yet); train it: scd train sd15-pictures --init {options.model}"
        )
    pipe.set_progress_bar_config(disable=True)
    for path, weight in loras:
        add_lora(pipe, path, weight)
    set_defaults(pipe, options)
    return pipe


def lora_file(named: str) -> tuple[Path, float]:
    """The file and the weight of `--lora FILE[:WEIGHT]`. Raises UserError where it is none that could be
    read."""
    path, weight = Path(named), 1.0
    name, colon, number = named.rpartition(":")
    if colon and not path.exists():
        with contextlib.suppress(ValueError):
            path, weight = Path(name), float(number)
    if not path.is_file():
        raise UserError(f"--lora {named}: no such file; give FILE.safetensors, or FILE.safetensors:0.7")
    if path.suffix != ".safetensors":
        raise UserError(f"--lora {path}: only .safetensors files are read; others can run code")
    if not math.isfinite(weight):
        raise UserError(f"--lora {named}: the weight is a number, usually from 0 to 1")
    return path, weight


def add_lora(pipe: Any, path: Path, weight: float) -> None:
    """Add the file's layers to the pipeline's weights. Raises UserError for a file that is damaged, or
    belongs to another network."""
    try:
        pipe.load_lora_weights(str(path))  # by its name: peft's alpha and ranks stand in the file's header
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"--lora {path}: does not fit this model, or is damaged ({reason[0]})") from error
    if getattr(pipe.unet, "peft_config", None) is None:
        raise UserError(f"--lora {path}: has no layer of this model's denoising network")
    pipe.fuse_lora(lora_scale=weight)
    pipe.unload_lora_weights()


def set_defaults(pipe: Any, options: ModelOptions) -> None:
    """Make `--scheduler`, `--steps`, `--guidance` and `--size`, where given, the defaults of a loaded
    pipeline. Raises UserError."""
    _require_numbers(options)
    if options.scheduler is not None:
        try:
            pipe.scheduler = scheduler_named(pipe.scheduler, options.scheduler)
        except ValueError as error:
            raise UserError(f"--scheduler {error}") from error
    own = pipe.config.default_size
    given = {
        "default_steps": options.steps,
        "default_guidance": options.guidance,
        "default_size": options.size,
    }
    pipe.register_to_config(**{name: value for name, value in given.items() if value is not None})
    size, factor = pipe.config.default_size, pipe.vae_scale_factor
    if size is None:
        raise UserError(
            "--size: this model names no size of its own; give the one it was trained at, as in --size 512"
        )
    least = 4 * factor
    if options.size not in (None, own) and pipe.config.world_version is None:
        factor = max(factor, multiple_of(size))  # else buckets are smaller than was asked for
    if size < least or size % factor:
        raise UserError(f"--size {size}: a multiple of {factor}, {least} at least")
    longest = pipe.scheduler.config.num_train_timesteps
    if "original_inference_steps" in inspect.signature(type(pipe.scheduler).__init__).parameters:  # LCM, TCD
        longest = pipe.scheduler.config.original_inference_steps
    if pipe.config.default_steps > longest:
        raise UserError(f"--steps {pipe.config.default_steps}: this model's schedule has {longest}")
    try:
        copy.deepcopy(pipe.scheduler).set_timesteps(pipe.config.default_steps)
    except ValueError as error:  # PNDM's first step is made of four
        name = type(pipe.scheduler).__name__
        raise UserError(f"--steps {pipe.config.default_steps}: too few for {name}; take more") from error


def _require_numbers(options: ModelOptions) -> None:
    if options.steps is not None and options.steps < 1:
        raise UserError(f"--steps {options.steps}: one step at least")
    if options.guidance is not None and not math.isfinite(options.guidance):
        raise UserError(f"--guidance {options.guidance}: a number, usually from 1 to 10")
    if options.seed is not None and not 0 <= options.seed < 2**63:
        raise UserError(f"--seed {options.seed}: a whole number from 0 on, below 2^63")


def identity(pipe: Any, options: ModelOptions) -> dict[str, Any]:
    """What a record keeps of the model: enough to know it again."""
    return {
        "path": options.model or "embedded",
        "stamp": pipe.stamp,
        "vae": hash_weights(pipe.vae),
        "scheduler": type(pipe.scheduler).__name__,
        "motion": hash_weights(pipe.unet, motion_only=True) if has_motion(pipe.unet) else None,
        "encoder": None if pipe.image_encoder is None else hash_weights(pipe.image_encoder),
        "schedule": hash_settings(pipe.scheduler.config),
        "settings": {name: pipe.config[name] for name in _DECIDE},
    }


def settings_of(pipe: Any, options: ModelOptions, model: dict[str, Any]) -> dict[str, Any]:
    """What a record keeps of the painting: the model's `identity`, and all that `merged_model` takes from
    it."""
    return {
        "version": __version__, "model": model, "world_version": pipe.config.world_version,
        "device": torch.device(pipe.device).type, "dtype": str(pipe.unet.dtype).removeprefix("torch."),
        "steps": pipe.config.default_steps, "guidance": pipe.config.default_guidance,
        "lora": [
            {**identity_of(path), "weight": weight} for path, weight in map(lora_file, options.lora)
        ],
        "scheduler": options.scheduler, "seed": options.seed or 0, "size": pipe.config.default_size,
        "torch": torch.__version__,
    }  # fmt: skip


def require_same(found: dict[str, Any], expected: dict[str, Any], asked: ModelOptions) -> None:
    """UserError when the model is not the recorded one; in another precision nothing can be compared, and a
    sampler that is asked for is none of the model's."""
    path = expected["path"]
    if asked.scheduler is not None:
        expected = {name: value for name, value in expected.items() if name not in ("scheduler", "schedule")}
    told = {name: found.get(name) for name in expected} | {"path": path}  # older records tell less
    if found["stamp"]["dtype"] == expected["stamp"]["dtype"] and told != expected:
        raise UserError(
            f"the model {path} has changed since: bring it back, or name it with --model to use it as it is"
        )
