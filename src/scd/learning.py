"""Which parameters of a pipeline learn (all, the attention layers, or a LoRA of them), and how the result is
written."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from scd import checkpoint
from scd.backbones.motion import temporal_layers
from scd.backbones.unet import adapt, collect
from scd.config import TrainConfig
from scd.pipeline import SCDPipeline

LORA_FILE = "lora.safetensors"  # in the run's folder
_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


def choose(pipe: SCDPipeline, config: TrainConfig) -> None:
    """Set `requires_grad` in place, and inject the adapter that `learn="lora"` asks for.

    The pose encoder learns too, since nothing public holds one, except in stage 2. Attention means every
    projection of self- and cross-attention, since both get what they never saw: a reference's keys, and a
    picture's embedding where a text was.
    """
    for frozen in (pipe.vae, pipe.image_encoder):
        if frozen is not None:
            frozen.requires_grad_(False)
    pipe.pose_encoder.requires_grad_(config.learn != "motion")
    networks = [network for network in (pipe.unet, pipe.reference_unet) if network is not None]
    for network in networks:
        network.requires_grad_(config.learn == "all")
    if config.learn == "motion":
        for layer in temporal_layers(pipe.unet):
            layer.requires_grad_(True)
    if config.learn == "attention":
        for network in networks:
            for name, layer in network.named_modules():
                if name.endswith((".attn1", ".attn2")):
                    layer.requires_grad_(True)
    elif config.learn == "lora" and not _adapted(pipe.unet):
        rank = config.lora_rank
        lora = LoraConfig(
            r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(_PROJECTIONS)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            pipe.unet.add_adapter(lora)  # up starts at zero: the network is unchanged at first
    if pipe.reference_unet is not None:
        unread = unread_parameters(pipe.reference_unet)
        for name, parameter in pipe.reference_unet.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name not in unread)


def unread_parameters(reader: Any) -> set[str]:
    """Parameters of a reference network that come after the last layer that is read. They get no gradient
    ever, which training in several processes does not forgive."""
    with torch.device("meta"):
        twin = adapt(UNet2DConditionModel(**reader.config))
        side = 2 ** len(reader.config.block_out_channels)
        latents = torch.zeros(1, reader.config.in_channels, side, side)
        cache = collect(twin, latents, 0, None, torch.zeros(1, 1, reader.config.cross_attention_dim))
        sum(entry[0].sum() for entry in cache.entries.values()).backward()  # type: ignore[union-attr]
    return {name for name, parameter in twin.named_parameters() if parameter.grad is None}


def export(pipe: SCDPipeline, run: Path) -> None:
    """Write RUN/model, whole, ready for `--model`. With a LoRA: its layers are added to a copy of the weights
    there, and stand alone in RUN/lora.safetensors too."""
    if not _adapted(pipe.unet):
        checkpoint.export(pipe, run / "model")
        return
    merged = copy.deepcopy(pipe.unet)
    merged.fuse_lora()
    merged.unload_lora()
    checkpoint.export(SCDPipeline.from_pipe(pipe, unet=merged), run / "model")
    temporary = run / "lora.tmp"
    layers: Any = get_peft_model_state_dict(pipe.unet)
    SCDPipeline.save_lora_weights(temporary, unet_lora_layers=layers, weight_name=LORA_FILE)
    os.replace(temporary / LORA_FILE, run / LORA_FILE)
    shutil.rmtree(temporary)


def _adapted(unet: Any) -> bool:
    return getattr(unet, "peft_config", None) is not None
