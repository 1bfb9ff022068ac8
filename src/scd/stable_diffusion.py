"""Stable Diffusion 1.5 as a starting point: an SD folder and a CLIP vision folder in, an untrained
SCD pipeline out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel

from scd.animatediff import load_motion_adapter
from scd.loading import find_variant, load_network
from scd.pose_encoder import PoseEncoder
from scd.types import UserError

OF_THE_HUB = ("cache_dir", "token", "revision", "local_files_only")  # options that say where an id is found
POSE_CHANNELS = (16, 32, 96, 256)  # ControlNet's conditioning encoder (Zhang et al. 2023)

# The published configs of Stable Diffusion 1.5 and of CLIP ViT-L/14's vision half
UNET: dict[str, Any] = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2, "cross_attention_dim": 768, "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "sample_size": 512, "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
CLIP: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "patch_size": 14, "image_size": 224, "projection_dim": 768,
}  # fmt: skip

# What a full CLIP checkpoint holds beside the vision half, and an index buffer that old ones saved
CLIP_LEFT_OVER = (
    "text_model.", "text_projection.", "logit_scale", "vision_model.embeddings.position_ids",
)  # fmt: skip


def components(
    source: str | Path,
    image_encoder: str | Path | None,
    motion_adapter: str | Path | MotionAdapter | None,
    prediction_type: Literal["v_prediction", "epsilon"],
    variant: str | None,
    seed: int,
    **options: Any,
) -> dict[str, Any]:
    """Everything that `SCDPipeline` takes, from a Stable Diffusion 1.x folder or hub id.

    Only unet/, vae/ and the scheduler's betas are read: text encoder, tokenizer, safety checker and feature
    extractor have no part in SCD. Raises UserError.
    """
    options["use_safetensors"] = True
    networks: dict[str, Any] = {}
    for name, network_class in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        folder = Path(source) / name
        if Path(source).exists() and not (folder / "config.json").is_file():
            raise UserError(
                f"{folder}: there is no config.json; give a Stable Diffusion 1.5 folder in diffusers layout "
                "(unet/, vae/, scheduler/)"
            )
        chosen = variant or find_variant(folder)
        networks[name] = load_network(network_class, source, name, **_known(options, chosen))
    unet, vae = networks["unet"], networks["vae"]
    if unet.config.in_channels != vae.config.latent_channels:
        raise UserError(
            f"{source}/unet: takes {unet.config.in_channels} channels where the VAE has "
            f"{vae.config.latent_channels}: an inpainting or depth network; give the plain one"
        )
    elsewhere = {name: value for name, value in options.items() if name != "revision"}  # that is this one's
    if image_encoder is not None:
        image_encoder = clip_encoder(image_encoder, unet, elsewhere)
    networks["image_encoder"] = image_encoder
    if isinstance(motion_adapter, str | Path):
        motion_adapter = load_motion_adapter(motion_adapter, unet.config, **elsewhere)
    networks["motion_adapter"] = motion_adapter
    # As many halvings as the VAE: the features must lie on the latents' grid
    channels = POSE_CHANNELS[: len(vae.config.block_out_channels)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks["pose_encoder"] = PoseEncoder(unet.config.block_out_channels[0], channels)
    networks["scheduler"] = _scheduler(source, prediction_type, options)
    return networks


def untrained() -> tuple[UNet2DConditionModel, AutoencoderKL, PoseEncoder, Any]:
    """The four networks at their published sizes with random weights: for counting, and for folders to test
    with."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    clip = CLIPVisionModelWithProjection(CLIPVisionConfig(**CLIP))
    return UNet2DConditionModel(**UNET), AutoencoderKL(**VAE), PoseEncoder(320, POSE_CHANNELS), clip


def _known(options: dict[str, Any], variant: str | None) -> dict[str, Any]:
    return options if variant is None else {**options, "variant": variant}


def clip_encoder(source: str | Path, unet: Any, options: dict[str, Any]) -> Any:
    """A CLIP vision encoder with projection from a folder of its own, or the image_encoder/ of a pipeline."""
    from transformers import CLIPVisionModelWithProjection
    from transformers.utils import logging

    subfolder = "image_encoder" if (Path(source) / "image_encoder").is_dir() else ""
    folder = Path(source) / subfolder
    if Path(source).exists() and not (folder / "config.json").is_file():
        raise UserError(f"{folder}: there is no config.json; give the folder of a CLIP vision encoder")
    options = _known(options, find_variant(folder))
    if not list(folder.glob("*.safetensors*")) and list(folder.glob("*.bin")):
        # OpenAI's and the image-variations encoders are often .bin only; transformers reads those with
        # torch's weights-only unpickler, which runs no code
        options = {**options, "use_safetensors": False}
    spoken = logging.get_verbosity()
    logging.set_verbosity_error()  # it reports left-over keys as a table; ours are checked just below
    try:
        encoder = load_network(CLIPVisionModelWithProjection, source, subfolder, CLIP_LEFT_OVER, **options)
    finally:
        logging.set_verbosity(spoken)
    if encoder.config.projection_dim != unet.config.cross_attention_dim:
        raise UserError(
            f"{folder}: embeds pictures in {encoder.config.projection_dim} dimensions where the network's "
            f"cross-attention takes {unet.config.cross_attention_dim}: Stable Diffusion 1.5 takes ViT-L/14"
        )
    return encoder.float().eval()  # transformers keeps the precision of the file


def _scheduler(source: str | Path, prediction_type: Any, options: dict[str, Any]) -> DDIMScheduler:
    """The folder's betas; v-prediction comes with zero-terminal SNR and trailing spacing, as one bundle (Lin
    et al. 2023)."""
    path = Path(source) / "scheduler" / "scheduler_config.json"
    try:
        if Path(source).exists():
            saved = json.loads(path.read_text())
        else:
            asked = {name: options[name] for name in OF_THE_HUB if name in options}
            found: Any = DDIMScheduler.load_config(str(source), subfolder="scheduler", **asked)
            saved = dict(found)
        betas: dict[str, Any] = {name: saved[name] for name in ("beta_start", "beta_end", "beta_schedule")}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: no readable scheduler config with its betas ({error})") from error
    return DDIMScheduler(
        **betas,
        num_train_timesteps=saved.get("num_train_timesteps", 1000),
        trained_betas=saved.get("trained_betas"),
        prediction_type=prediction_type,
        rescale_betas_zero_snr=prediction_type == "v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
