"""`scd train ... --dry-run`: what a run would cost, found on torch's meta device, which computes nothing."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import nn
from torch.overrides import TorchFunctionMode

from scd import stable_diffusion
from scd.backbones.motion import has_motion, join, new_motion_adapter, picture_config
from scd.backbones.unet import adapt
from scd.cli.terminal import table
from scd.codec import PatchCodec, halvings
from scd.config import EMBEDDED, SCRATCH, TrainConfig, to_json
from scd.data.dataset import make_dataset
from scd.data.mixed import Mixed
from scd.learning import choose
from scd.machine import resolve_precision
from scd.model import build_pose_encoder, build_unet, is_stable_diffusion, load
from scd.step import Trainee
from scd.types import UserError

# A learnable parameter in bytes, float32: gradient and two moments of Adam; the running average comes on top
BYTES_PER_LEARNABLE = 4 * 3
BYTES_PER_WEIGHT = 4


def dry_run(config: TrainConfig, device: torch.device) -> None:
    """Print the final settings, the parameters and the memory estimate on `device`."""
    print(to_json(config))
    config = replace(config, precision=resolve_precision(config.precision, device))
    unet, pose_encoder, vae, reader, others = _networks(config)
    if config.learn == "motion" and not has_motion(unet):
        with torch.device("meta"):
            unet = adapt(join(unet.to("meta"), new_motion_adapter(unet, config.motion_heads)))
    if config.reference_network == "separate" and reader is None:
        with torch.device("meta"):
            reader = adapt(UNet2DConditionModel(**picture_config(unet)))
    parts: Any = SimpleNamespace(
        unet=unet, pose_encoder=pose_encoder, vae=vae, image_encoder=None, reference_unet=reader
    )
    choose(parts, config)
    learning = [unet, pose_encoder, *([reader] if reader else [])]
    total = sum(map(_count, [*learning, vae, *others]))
    learnable = sum(p.numel() for network in learning for p in network.parameters() if p.requires_grad)
    state = total * BYTES_PER_WEIGHT + learnable * (BYTES_PER_LEARNABLE + (4 if config.ema_decay else 0))
    if config.precision != "no":  # autocast's half-precision copies of the weights that a pass uses
        state += 2 * sum(map(_count, learning))
    kept = activation_bytes(config, unet, pose_encoder, 2 ** (len(vae.config.block_out_channels) - 1), reader)
    table("a dry run: nothing was written", {
        "parameters": f"{total:,}",
        "learnable parameters": f"{learnable:,}",
        "targets in a step": f"{config.targets_per_step:,}",
        **_epoch(config),
        "weights, gradients, optimizer, average": _size(state),
        "activations, about": _size(kept),
        "memory, about": _size(state + kept),
    })  # fmt: skip


def _epoch(config: TrainConfig) -> dict[str, str]:
    """How many clips or pairs there are, and the steps after which each was drawn once."""
    if config.data.kind == "world":
        return {"steps per epoch": "no epochs: the world is endless"}
    try:
        dataset: Any = make_dataset(config, 1)
    except UserError as error:
        return {"steps per epoch": f"not known yet: {error}"}
    parts: dict[str, tuple[Any, float]] = {"pairs" if config.data.is_tryon else "clips": (dataset, 1.0)}
    if isinstance(dataset, Mixed):
        both = {"clips": (dataset.clips, 1 - dataset.share), "pairs": (dataset.pairs, dataset.share)}
        parts = {name: (part, share) for name, (part, share) in both.items() if share}
    steps = max(
        len(part.items) / (config.data.groups * config.accumulation * share) for part, share in parts.values()
    )
    counts = {f"{name} that can train": f"{len(part.items):,}" for name, (part, _) in parts.items()}
    return {**counts, "steps per epoch": f"{math.ceil(steps):,}"}


def activation_bytes(
    config: TrainConfig, unet: Any, pose_encoder: nn.Module, factor: int, reader: Any = None
) -> int:
    """Bytes that one forward pass keeps for its backward pass, with the largest number of references.

    The networks are left on the meta device, in the precision of the run, which is not "auto" any more;
    autocast keeps norms in float32, so the truth is a little more.
    """
    dtype = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    data, side = config.data, config.data.size // factor
    groups, references, rows = data.groups, data.most_references, data.groups * data.rows
    pipe: Any = SimpleNamespace(
        unet=unet,
        pose_encoder=pose_encoder,
        reference_unet=reader,
        config=SimpleNamespace(reference_timestep=0),
    )
    trainee = Trainee(pipe).to("meta", dtype).train()
    if config.checkpointing:
        for network in filter(None, (unet, reader)):
            network.enable_gradient_checkpointing()
    channels, width = unet.config.in_channels, unet.config.cross_attention_dim
    size = data.size

    def new(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="meta", dtype=dtype)

    with saved_bytes(trainee) as saved, _FusedAttention():
        trainee(
            new(groups, references, channels, side, side), new(rows, channels, side, side),
            torch.zeros(rows, dtype=torch.long, device="meta"),
            new(groups, references, 3, size, size), new(rows, 3, size, size),
            (new(groups * references, references, width), new(rows, references, width)),
            [row // data.rows for row in range(rows)], data.frames,
        )  # fmt: skip
    return saved()


@contextmanager
def saved_bytes(network: nn.Module):
    """Counts what autograd keeps inside the block: each storage once, the network's own parameters not."""
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


class _FusedAttention(TorchFunctionMode):
    """Inside, attention keeps what fused kernels keep: queries, keys, values and the result. On the meta
    device torch would keep the whole matrix of queries by keys, 8 GiB a picture at 512 pixels."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return _Kept.apply(*args[:3])


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value):
        result = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, result)
        return result


def _networks(config: TrainConfig) -> tuple[Any, Any, Any, Any, list[nn.Module]]:
    """Denoising network, pose encoder, VAE, reference network or None, and what else is held."""
    if not config.init or (config.init not in (SCRATCH, EMBEDDED) and is_stable_diffusion(config.init)):
        with torch.device("meta"):  # by its published sizes: nothing is read
            unet, vae, pose_encoder, clip = stable_diffusion.untrained()
        return adapt(unet), pose_encoder, vae, None, [clip] if config.image_encoder or not config.init else []
    if config.init == SCRATCH:
        with torch.device("meta"):
            unet, pose_encoder = (
                build_unet(config.network, config.data.size // config.network.patch_size),
                build_pose_encoder(config.network),
            )
            patch = config.network.patch_size
            vae = PatchCodec(config.network.latent_channels, patch, block_out_channels=halvings(patch))
        return adapt(unet), pose_encoder, vae, None, []
    pipe = load(config.init, "cpu", "float32")
    others = [m for m in [pipe.image_encoder] if m is not None]
    return pipe.unet, pipe.pose_encoder, pipe.vae, pipe.reference_unet, others


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _size(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"
