"""A Stable Diffusion 1.5 folder of the true shape with random weights, as diffusers writes it today or as it
lies on people's disks.

    .venv/bin/python runs/sd15_folder.py out/sd15 out/clip --aged --motion out/motion

`age` undoes years of conversions: old attention names in the VAE, first-version config files, PNDM, an index
with text encoder, safety checker and feature extractor, half-precision variant names, a CLIP encoder as .bin
with its `position_ids` and its text half. What reads the result reads a real download.
`make_adapter` writes AnimateDiff's temporal layers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from scd.stable_diffusion import CLIP, UNET, VAE

# The same with few channels: what the tests use
TINY_UNET = {**UNET, "block_out_channels": (32, 64, 64, 64), "cross_attention_dim": 32, "layers_per_block": 1,
             "sample_size": 8, "norm_num_groups": 8}  # fmt: skip
TINY_VAE = {**VAE, "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4,
            "sample_size": 64}  # fmt: skip
TINY_CLIP = {**CLIP, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 2, "patch_size": 8, "image_size": 32, "projection_dim": 32}  # fmt: skip

# The published config of AnimateDiff v1-5-2; its third setting is one that diffusers no longer knows
V1_5_2 = {
    "_class_name": "MotionAdapter", "_diffusers_version": "0.22.0.dev0",
    "motion_mid_block_num_layers_per_block": 1,
    "block_out_channels": [320, 640, 1280, 1280], "motion_layers_per_block": 2, "motion_max_seq_length": 32,
    "motion_norm_num_groups": 32, "motion_num_attention_heads": 8, "use_motion_mid_block": True,
}  # fmt: skip
TINY_MOTION = {"block_out_channels": TINY_UNET["block_out_channels"], "motion_layers_per_block": 1,
               "motion_norm_num_groups": 8, "motion_num_attention_heads": 2}  # fmt: skip

FIRST_UNET_KEYS = (
    "act_fn", "attention_head_dim", "block_out_channels", "center_input_sample", "cross_attention_dim",
    "down_block_types", "downsample_padding", "flip_sin_to_cos", "freq_shift", "in_channels",
    "layers_per_block", "mid_block_scale_factor", "norm_eps", "norm_num_groups", "out_channels",
    "sample_size", "up_block_types",
)  # fmt: skip
FIRST_VAE_KEYS = (
    "act_fn", "block_out_channels", "down_block_types", "in_channels", "latent_channels", "layers_per_block",
    "norm_num_groups", "out_channels", "sample_size", "up_block_types",
)  # fmt: skip
OLD_VAE_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def make(folder: Path, clip_folder: Path, tiny: bool = False, seed: int = 0) -> None:
    """Write both folders as today's diffusers and transformers do."""
    torch.manual_seed(seed)
    UNet2DConditionModel(**(TINY_UNET if tiny else UNET)).save_pretrained(folder / "unet")
    AutoencoderKL(**(TINY_VAE if tiny else VAE)).save_pretrained(folder / "vae")
    config = CLIPVisionConfig(**(TINY_CLIP if tiny else CLIP))
    CLIPVisionModelWithProjection(config).save_pretrained(clip_folder)
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
             "vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "DDIMScheduler"]}  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))


def make_adapter(folder: Path, seed: int = 0, **changes: Any) -> MotionAdapter:
    """AnimateDiff's layout with random weights that do something, in half precision only, as some downloads
    are; `changes` to the published config. Returns what a reader must find, in float32."""
    config = {**V1_5_2, **changes}
    torch.manual_seed(seed)
    adapter = MotionAdapter.from_config({k: v for k, v in config.items() if not k.startswith("_")})
    adapter.half().save_pretrained(folder, variant="fp16")
    (folder / "config.json").write_text(json.dumps(config))
    return adapter.float()


def age(folder: Path, clip_folder: Path) -> None:
    """Make both folders old, in place."""
    for name, keys in (("unet", FIRST_UNET_KEYS), ("vae", FIRST_VAE_KEYS)):
        path = folder / name / "config.json"
        config = json.loads(path.read_text())
        first = {key: config[key] for key in keys}
        path.write_text(
            json.dumps({"_class_name": config["_class_name"], "_diffusers_version": "0.2.2", **first})
        )
        weights = folder / name / "diffusion_pytorch_model.safetensors"
        state = {_old_name(name, key): tensor.half() for key, tensor in load_file(weights).items()}
        save_file(state, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
        weights.unlink()
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({
            "_class_name": "PNDMScheduler", "_diffusers_version": "0.2.2", "beta_end": 0.012,
            "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
            "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
            "clip_sample": False,
        })
    )  # fmt: skip
    (folder / "model_index.json").write_text(
        json.dumps({
            "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.2.2",
            "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
            "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        })
    )  # fmt: skip
    weights = clip_folder / "model.safetensors"
    state = load_file(weights)
    positions = len(state["vision_model.embeddings.position_embedding.weight"])
    state["vision_model.embeddings.position_ids"] = torch.arange(positions)[None]
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    state["text_model.final_layer_norm.weight"] = torch.ones(8)
    state["text_projection.weight"], state["logit_scale"] = torch.ones(8, 8), torch.tensor(4.6)
    torch.save(state, clip_folder / "pytorch_model.bin")
    weights.unlink()


def _old_name(component: str, key: str) -> str:
    if component == "vae" and "attentions" in key:
        for new, old in OLD_VAE_NAMES.items():
            key = key.replace(f".{new}.", f".{old}.")
    return key


@dataclass
class Options:
    folder: Annotated[Path, tyro.conf.Positional]
    clip_folder: Annotated[Path, tyro.conf.Positional]
    aged: bool = False
    """As it lies on people's disks."""
    tiny: bool = False
    """Few channels."""
    motion: Path | None = None
    """Write a motion adapter there, too."""


if __name__ == "__main__":
    options = tyro.cli(Options)
    make(options.folder, options.clip_folder, options.tiny)
    if options.aged:
        age(options.folder, options.clip_folder)
    if options.motion:
        make_adapter(options.motion, **(TINY_MOTION if options.tiny else {}))
