"""Motion: a picture network with AnimateDiff's temporal layers, `UNetMotionModel` (METHOD 5).

A temporal layer is the identity on a single frame, so one network paints pictures and clips, and a reference,
which is a single frame, never enters it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class MotionTransformer(AnimateDiffTransformer3D):
    """A stock temporal transformer that returns its input for one frame, and takes the statistics of its
    GroupNorm per frame, as AnimateDiff's own code does (diffusers' over the whole clip).

    A subclass by `__class__`, so that parameter names, and with them every motion adapter, stay valid.
    """

    norm_per_frame = True  # what public weights expect; it also makes a window independent of the clip
    gradient_checkpointing = False

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states=None, timestep=None, class_labels=None,
        num_frames: int = 1, cross_attention_kwargs=None,
    ) -> Tensor:  # fmt: skip
        """(B T, C, h, w) -> the same shape; the arguments that diffusers passes and no temporal layer reads
        keep their places, because the middle block passes them by position."""
        if num_frames == 1:
            return hidden_states
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return checkpoint(self._temporal, hidden_states, num_frames, use_reentrant=False)  # type: ignore
        return self._temporal(hidden_states, num_frames)

    def _temporal(self, hidden_states: Tensor, num_frames: int) -> Tensor:
        clips = hidden_states.unflatten(0, (-1, num_frames))  # (B, T, C, h, w)
        batch, frames, channels, height, width = clips.shape
        if self.norm_per_frame:
            x = self.norm(hidden_states).view(clips.shape).permute(0, 3, 4, 1, 2)
        else:
            x = self.norm(clips.transpose(1, 2)).permute(0, 3, 4, 2, 1)
        x = self.proj_in(x.reshape(batch * height * width, frames, channels))
        for block in self.transformer_blocks:
            x = block(x)
        x = self.proj_out(x).view(batch, height, width, frames, channels)
        return x.permute(0, 3, 4, 1, 2).reshape(hidden_states.shape) + hidden_states


def adapt_motion(unet: nn.Module, norm_per_frame: bool) -> None:
    """Make a network's temporal transformers ours, in place. Idempotent."""
    for layer in temporal_layers(unet):
        layer.__class__ = MotionTransformer
        layer.norm_per_frame = norm_per_frame


def has_motion(unet: Any) -> bool:
    """Whether this network paints clips."""
    return "motion_max_seq_length" in unet.config


def is_temporal(name: str) -> bool:
    """Whether a parameter, or a layer, of that name belongs to the motion modules."""
    return ".motion_modules." in name


def temporal_layers(unet: nn.Module) -> Iterator[Any]:
    return (module for module in unet.modules() if isinstance(module, AnimateDiffTransformer3D))


def new_motion_adapter(unet: Any, num_heads: int = 8, max_frames: int = 32) -> MotionAdapter:
    """An untrained adapter of a picture network's shape. Its output projections are zero: stage 2 starts at
    the picture model."""
    adapter = MotionAdapter(
        block_out_channels=unet.config.block_out_channels,
        motion_layers_per_block=unet.config.layers_per_block,
        motion_norm_num_groups=unet.config.norm_num_groups,
        motion_num_attention_heads=num_heads,
        motion_max_seq_length=max_frames,
    )
    for layer in temporal_layers(adapter):
        nn.init.zeros_(layer.proj_out.weight)
        nn.init.zeros_(layer.proj_out.bias)
    return adapter


def join(unet: UNet2DConditionModel, adapter: MotionAdapter) -> UNetMotionModel:
    """A picture network and a motion adapter as one network. They share their parameters: nothing is copied.

    Raises ValueError for an adapter of another shape.
    """
    try:
        with torch.device("meta"):
            motion = UNetMotionModel.from_unet2d(unet, adapter, load_weights=False)
        joined = _share(motion, {**unet.state_dict(keep_vars=True), **adapter.state_dict(keep_vars=True)})
        for layer in temporal_layers(joined):  # the joined network's config knows the picture part's only
            layer.norm.num_groups = adapter.config["motion_norm_num_groups"]
        return joined
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"this motion adapter was made for another network: {reason}") from error


def fitted(unet: Any, adapter: MotionAdapter | None) -> tuple[Any, MotionAdapter | None]:
    """The network with the adapter's temporal layers, in place of its own if it has others, and that adapter.
    None keeps what the network has, else its folder would lose it.

    Raises ValueError for an adapter of another shape.
    """
    if not has_motion(unet):
        return (unet if adapter is None else join(unet, adapter)), adapter
    if adapter is None:
        return unet, split(unet)[1]
    own = list(unet.parameters())
    away = any(parameter.is_meta for parameter in own)  # sequential offload: not to be told apart, nor joined
    if away or {id(parameter) for parameter in adapter.parameters()} <= {id(parameter) for parameter in own}:
        return unet, adapter
    return join(split(unet)[0], adapter), adapter


def split(motion: Any) -> tuple[UNet2DConditionModel, MotionAdapter]:
    """The inverse of `join`, sharing parameters too: what is saved, each part as its stock class."""
    config = motion.config
    with torch.device("meta"):
        unet = UNet2DConditionModel(**picture_config(motion))
        adapter = MotionAdapter(
            block_out_channels=config.block_out_channels,
            motion_layers_per_block=config.layers_per_block,
            motion_transformer_layers_per_block=config.temporal_transformer_layers_per_block,
            motion_transformer_layers_per_mid_block=config.temporal_transformer_layers_per_mid_block,
            motion_num_attention_heads=config.motion_num_attention_heads,
            motion_norm_num_groups=next(temporal_layers(motion)).norm.num_groups,
            motion_max_seq_length=config.motion_max_seq_length,
            use_motion_mid_block=config.use_motion_mid_block,
        )
    state = motion.state_dict(keep_vars=True)
    temporal = {name: value for name, value in state.items() if is_temporal(name)}
    spatial = {name: value for name, value in state.items() if name not in temporal}
    return _share(unet, spatial), _share(adapter, temporal)


def picture_copy(unet: Any) -> UNet2DConditionModel:
    """A picture network with copies of the weights of this one's picture part."""
    copied = UNet2DConditionModel(**picture_config(unet))
    state = {name: value for name, value in unet.state_dict().items() if not is_temporal(name)}
    copied.load_state_dict(state)
    return copied.to(unet.dtype).eval()


def picture_config(unet: Any) -> dict[str, Any]:
    """The settings of a network's picture part that both stock classes know, as `UNet2DConditionModel` takes
    them: the same with motion modules and without."""
    known = inspect.signature(UNet2DConditionModel.__init__).parameters.keys()
    known &= inspect.signature(UNetMotionModel.__init__).parameters.keys()
    config = {key: value for key, value in unet.config.items() if key in known}
    # the historic misnomer under which Stable Diffusion's configs tell the number of heads
    heads = config.pop("num_attention_heads", None) or unet.config.get("attention_head_dim")
    for key in ("down_block_types", "up_block_types"):
        config[key] = tuple(name.replace("Motion", "2D") for name in config[key])
    return {**config, "attention_head_dim": heads}


def _share(network: Any, state: dict[str, Tensor]) -> Any:
    learns = {name: value.requires_grad for name, value in state.items()}
    network.load_state_dict(state, assign=True)  # Parameters are taken as they are, not copied ...
    for name, value in state.items():  # ... but get the new network's requires_grad: what is frozen stays so
        value.requires_grad_(learns[name])
    return network.train(False)
