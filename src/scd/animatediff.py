"""AnimateDiff's motion modules (Guo et al. 2023): a folder in diffusers' layout, or one of its authors' own
files, as the motion adapter of a picture network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import MotionAdapter
from torch import Tensor

from scd.loading import ENDINGS, fill, find_variant, load_network, read_weights
from scd.types import UserError

# Of the temporal layers in its files, whatever the picture network has
NORM_GROUPS, NUM_HEADS = 32, 8

# AnimateDiff's names of a temporal transformer -> diffusers'
_NAMES: tuple[tuple[str, Any], ...] = (
    (r"\.temporal_transformer\.", "."),
    (r"\.attention_blocks\.0\.pos_encoder\.", ".pos_embed."),
    (r"\.attention_blocks\.(\d)\.", lambda m: f".attn{int(m[1]) + 1}."),
    (r"\.norms\.(\d)\.", lambda m: f".norm{int(m[1]) + 1}."),
    (r"\.ff_norm\.", ".norm3."),
)


def load_motion_adapter(source: str | Path, unet_config: Any, **options: Any) -> MotionAdapter:
    """From a folder or hub id in diffusers' layout, which tells its own sizes, or from a file of the authors'
    (mm_sd_v15_v2.ckpt and its like), whose sizes follow from the network of `unet_config`.

    `options` go to diffusers' `from_pretrained`. Raises UserError.
    """
    path = Path(source)
    if path.is_file() or path.suffix in ENDINGS:
        if path.suffix not in ENDINGS:
            raise UserError(
                f"{path}: a motion adapter is a folder in diffusers' layout, or one file of weights "
                f"({', '.join(ENDINGS)})"
            )
        return motion_adapter(read_weights(path), unet_config, path)
    if path.exists() and not (path / "config.json").is_file():
        raise UserError(
            f"{path}: there is no config.json; give the folder of a MotionAdapter in diffusers layout, such "
            "as guoyww/animatediff-motion-adapter-v1-5-2, or a file of AnimateDiff's, such as "
            "mm_sd_v15_v2.ckpt"
        )
    if variant := find_variant(path):
        options.setdefault("variant", variant)
    return load_network(MotionAdapter, source, **options)


def motion_adapter(weights: Mapping[str, Tensor], unet_config: Any, path: Any) -> MotionAdapter:
    """The tensors of a motion module by AnimateDiff's own names, for a network of `unet_config`, every one
    accounted for. Whether there is a middle block, and how many frames it can tell apart, they say
    themselves: none and 24 in the first version, a middle block and 32 in the second, none and 32 in the
    third.

    Raises UserError, naming `path`, for a motion module of another network or kind.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        # A table of sines, the same in both attentions of a block; diffusers keeps one
        if re.search(r"attention_blocks\.[1-9]\.pos_encoder", name):
            first = weights.get(re.sub(r"attention_blocks\.\d", "attention_blocks.0", name))
            if first is None or not torch.equal(first, value):
                raise UserError(f"{path}: a motion module with position tables of another kind ({name})")
            continue
        for pattern, new in _NAMES:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    tables = [value for name, value in renamed.items() if name.endswith("pos_embed.pe")]
    if not tables:
        raise UserError(f"{path}: no motion module in AnimateDiff's format: it has no position tables")
    with torch.device("meta"):
        adapter = MotionAdapter(
            block_out_channels=unet_config.block_out_channels,
            motion_layers_per_block=unet_config.layers_per_block,
            motion_norm_num_groups=NORM_GROUPS,
            motion_num_attention_heads=NUM_HEADS,
            motion_max_seq_length=tables[0].shape[1],
            use_motion_mid_block=any(name.startswith("mid_block.") for name in renamed),
        )
    return fill(adapter, renamed, path)
