"""A stock `UNet2DConditionModel`, or `UNetMotionModel` for clips, as SCD's denoising network: pose features
in, the reference as an argument, names unchanged.

A picture is a clip of one frame: rows are frames, clip by clip, and `num_frames` says how many make a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scd.attention import (
    Cached,
    CausalSelfAttention,
    Collect,
    ContextAttention,
    Extract,
    Joint,
    KVCache,
    Stage,
)
from scd.backbones.motion import MotionTransformer, adapt_motion, has_motion, is_temporal, temporal_layers
from scd.matching import Seen


class PoseConv2d(nn.Conv2d):
    """`conv_in` that carries the pose: channels beyond its own are pose features, added after convolving.

    A subclass and not a wrapper, so that parameter names, and with them every public checkpoint, stay valid.
    """

    def forward(self, input: Tensor) -> Tensor:
        latents, features = input.split([self.in_channels, input.shape[1] - self.in_channels], dim=1)
        out = super().forward(latents)
        return out + features if features.shape[1] else out


def adapt(unet: Any, norm_per_frame: bool = True) -> Any:
    """Make a stock network SCD's, in place: causal processors on every spatial attention, `conv_in` takes
    pose features, temporal layers leave single frames alone. Idempotent.

    Without a reference and without pose features the network computes what it computed before, to the bit.
    """
    for name, layer in spatial_layers(unet).items():
        layer.set_processor(CausalSelfAttention(name))
    for layer in spatial_layers(unet, "attn2").values():
        layer.set_processor(ContextAttention())
    if type(unet.conv_in) is nn.Conv2d:
        unet.conv_in.__class__ = PoseConv2d  # same parameters, same hooks; only `forward` differs
    adapt_motion(unet, norm_per_frame)
    return unet


def spatial_layers(unet: nn.Module, kind: str = "attn1") -> dict[str, Any]:
    """Spatial attention layers by name, `attn1` self, `attn2` cross; temporal ones never see a reference."""
    return {n: m for n, m in unet.named_modules() if n.endswith(f".{kind}") and not is_temporal(n)}


def check_adapted(unet: nn.Module) -> None:
    """Raise, naming the layer, when something replaced a processor: the picture would silently come out
    without its reference. For a network inside `torch.compile`, whose layers then have other names, too."""
    if hasattr(unet, "_orig_mod"):
        raise ValueError("torch.compile(pipe.unet) renames its layers; call pipe.unet.compile() in its place")
    for kind, ours in (("attn1", CausalSelfAttention), ("attn2", ContextAttention)):
        for name, layer in spatial_layers(unet, kind).items():
            processor = layer.processor
            if not isinstance(processor, ours) or getattr(processor, "name", name) != name:
                raise ValueError(
                    f"layer {name} has processor {type(layer.processor).__name__}, "
                    "which cannot read a reference; "
                    "call scd.backbones.unet.adapt(pipe.unet), and leave attention processors as they are"
                )
    if not all(isinstance(layer, MotionTransformer) for layer in temporal_layers(unet)):
        raise ValueError("the temporal layers are not SCD's; call scd.backbones.unet.adapt(pipe.unet)")


def predict(
    unet: Any,
    latents: Tensor,
    timesteps: Tensor,
    features: Tensor | None,
    context: Tensor,
    reference: Stage = None,
    num_frames: int = 1,
) -> Tensor:
    """The network's raw output for rows of latents (rows, C, h, w), timesteps (rows,), pose features (rows,
    c, h, w) or None, and context tokens (rows, n, D); `reference` says which rows see what (scd.attention).

    Rows are frames: `num_frames` in a row make a clip, which temporal layers join. Raises ValueError for
    clips on a network without such layers, or longer than they can tell apart.
    """
    if features is not None:
        latents = torch.cat([latents, features.to(latents.dtype)], dim=1)
    options: Any = {"cross_attention_kwargs": {"reference": reference}, "return_dict": False}
    if not has_motion(unet):
        if num_frames != 1:
            raise ValueError("this network has no motion modules: it paints pictures, not clips")
        return unet(latents, timesteps, context, **options)[0]
    if num_frames > (most := unet.config.motion_max_seq_length):
        raise ValueError(f"a window of {num_frames} frames: these motion modules can tell {most} apart")
    clips = latents.unflatten(0, (-1, num_frames)).transpose(1, 2)  # (B, C, T, h, w)
    output = unet(clips, timesteps[::num_frames], context, **options)[0]
    return output.transpose(1, 2).flatten(0, 1)


def extract(
    unet: nn.Module, latents: Tensor, timestep: int, features: Tensor | None, context: Tensor,
    reader: nn.Module | None = None,
) -> KVCache:  # fmt: skip
    """First stage: rows of references (rows, C, h, w), each with its own pose features and context, at the
    constant timestep.

    With a `reader`, a network of its own for references, what that one sees is projected by this one. A pass
    through both, and not through the projections alone: what offloads weights brings them where they are
    needed.
    """
    collected = None
    if reader is not None:
        collected = collect(reader, latents, timestep, features, context).entries
    stage = Extract(collected=collected)
    _pass(unet, latents, timestep, features, context, stage)
    return KVCache(stage.entries)


def collect(
    reader: nn.Module, latents: Tensor, timestep: int, features: Tensor | None, context: Tensor
) -> KVCache:
    """First stage of a reader alone: the layers that read this cache project it themselves, each time."""
    stage = Collect()
    _pass(reader, latents, timestep, features, context, stage)
    return KVCache(stage.entries)


def _pass(unet: nn.Module, latents, timestep: int, features, context, stage: Stage) -> None:
    timesteps = torch.full((len(latents),), timestep, device=latents.device)
    predict(unet, latents, timesteps, features, context, stage)


def denoise(
    unet: nn.Module, latents: Tensor, timesteps: Tensor, features: Tensor | None, context: Tensor,
    cache: KVCache | None, owner: Sequence[int], num_frames: int = 1,
) -> Tensor:  # fmt: skip
    """Second stage: rows of targets that read the cache; `owner` gives each row's group in it, -1 for rows
    that read nothing. `num_frames` rows make a clip."""
    reference = None if cache is None else Cached(cache, tuple(owner))
    return predict(unet, latents, timesteps, features, context, reference, num_frames)


def joint(
    unet: nn.Module, references: Tensor, targets: Tensor, timestep: int, timesteps: Tensor,
    features: tuple[Tensor, Tensor], context: tuple[Tensor, Tensor], owner: Sequence[int],
    seen: Seen | None = None,
) -> Tensor:  # fmt: skip
    """Both stages in one pass, for training: rows of one batch. references (G, R, C, h, w), targets (B, C, h,
    w), timesteps (B,), features and context of (references, targets) with G R and B rows; `seen`
    as in scd.attention.Joint. Returns the predictions of the targets (B, C, h, w)."""
    num_groups, num_references = references.shape[:2]
    rows = num_groups * num_references
    output = predict(
        unet,
        torch.cat([references.flatten(0, 1), targets]),
        torch.cat([timesteps.new_full((rows,), timestep), timesteps]),
        torch.cat(features),
        torch.cat(context),
        Joint(num_groups, num_references, tuple(owner), seen),
    )
    return output[rows:]
