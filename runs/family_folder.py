"""A folder of the Animate Anyone family's files at their true sizes, with random weights: for measuring, and
to see the command line through without a download.

    .venv/bin/python runs/family_folder.py out/family        # 5.2 GB, as half-precision .pth
    .venv/bin/scd convert animate-anyone out/family out/model

Names, shapes and what is left out are the family's; the values paint noise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from scd.animate_anyone import UNREAD
from scd.pose_encoder import PoseEncoder
from scd.stable_diffusion import CLIP, POSE_CHANNELS, UNET, VAE

# diffusers' names of a temporal transformer's parts -> AnimateDiff's
_MOTION_NAMES = (
    (".attn1.", ".attention_blocks.0."), (".attn2.", ".attention_blocks.1."), (".norm1.", ".norms.0."),
    (".norm2.", ".norms.1."), (".norm3.", ".ff_norm."), (".pos_embed.", ".attention_blocks.0.pos_encoder."),
)  # fmt: skip


def networks(
    unet: Mapping[str, Any] = UNET, guider: Sequence[int] = POSE_CHANNELS
) -> Iterator[tuple[str, Any]]:
    """The four, by the names of their files, one at a time."""
    torch.manual_seed(0)
    for seed, name in enumerate(("denoising_unet", "reference_unet"), 1):
        yield name, randomised(UNet2DConditionModel(**unet), seed)
    motion = MotionAdapter(
        block_out_channels=unet["block_out_channels"], motion_layers_per_block=unet["layers_per_block"]
    )
    yield "motion_module", randomised(motion, 3)
    yield "pose_guider", randomised(PoseEncoder(unet["block_out_channels"][0], tuple(guider)), 4)


def randomised(network: nn.Module, seed: int) -> nn.Module:
    """Weights at which every layer matters; a fresh network's zeros would hide it."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        spread = 0.8 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.02
        parameter.data += spread * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def write_networks(
    folder: Path, made: Iterable[tuple[str, nn.Module]], ending: str = ".pth", dtype: Any = torch.float16
) -> None:
    """One file each, as the family has them: motion modules by AnimateDiff's names, a reference network
    without its tail."""
    for name, network in made:
        state = network.state_dict()
        if name == "motion_module":
            state = authors_state(state)
        if name == "reference_unet":
            state = {key: value for key, value in state.items() if not key.startswith(UNREAD)}
        state = {key: value.to(dtype, copy=True).contiguous() for key, value in state.items()}
        save = save_file if ending == ".safetensors" else torch.save
        save(state, folder / f"{name}{ending}")


def authors_state(adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A motion adapter's tensors by AnimateDiff's names; each attention there has its own position table."""
    state = {}
    for name, value in adapter.items():
        name = re.sub(r"(motion_modules\.\d+)", r"\1.temporal_transformer", name)
        for ours, theirs in _MOTION_NAMES:
            name = name.replace(ours, theirs)
        state[name] = value.clone()
        if "pos_encoder" in name:
            state[name.replace("attention_blocks.0", "attention_blocks.1")] = value.clone()
    return state


@dataclass
class Options:
    folder: Annotated[Path, tyro.conf.Positional]


if __name__ == "__main__":
    options = tyro.cli(Options)
    options.folder.mkdir(parents=True)
    write_networks(options.folder, networks())
    AutoencoderKL(**VAE).half().save_pretrained(options.folder / "sd-vae-ft-mse")
    clip = CLIPVisionModelWithProjection(CLIPVisionConfig(**CLIP))
    clip.half().save_pretrained(options.folder / "image_encoder")
