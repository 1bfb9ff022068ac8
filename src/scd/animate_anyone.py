"""Public weights of the Animate Anyone family (Hu et al. 2023, in Moore Threads' reproduction and what was
trained from it) as an SCD pipeline: a second network reads the reference, all else is ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn

from scd.animatediff import motion_adapter
from scd.backbones.motion import is_temporal
from scd.loading import ENDINGS, fill, find_variant, load_network, read_weights
from scd.pose_encoder import PoseEncoder
from scd.stable_diffusion import POSE_CHANNELS, UNET, clip_encoder
from scd.types import UserError

FILES = ("denoising_unet", "reference_unet", "pose_guider", "motion_module")
# Where the two others lie in the folder that the reproduction's readers are told to make
VAE_FOLDERS, ENCODER_FOLDERS = ("sd-vae-ft-mse", "vae"), ("image_encoder",)

# Its sampling, as one bundle with v-prediction; `linear` betas, not Stable Diffusion's `scaled_linear`
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear",
    "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
    "clip_sample": False, "set_alpha_to_one": True, "steps_offset": 1,
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "default_size": 512, "default_steps": 30, "default_guidance": 3.5, "default_window": 24,
    "default_overlap": 6, "motion_norm_per_frame": True, "reference_pose": False, "pose_drawing": "dwpose",
}  # fmt: skip
# Layers of the reference network after the last that is read: files leave them out, and nothing runs them
UNREAD = ("conv_norm_out.", "conv_out.")


def components(
    folder: str | Path, vae: str | Path | None = None, image_encoder: str | Path | None = None
) -> dict[str, Any]:
    """Everything that `SCDPipeline` takes, and SETTINGS, from a folder with denoising_unet, reference_unet,
    pose_guider and motion_module (.pth or .safetensors), and beside them sd-vae-ft-mse/ and image_encoder/,
    or where `vae` and `image_encoder` say.

    A config.json in the folder may give the networks' sizes; without one they are Stable Diffusion 1.5's.
    Raises UserError that names the file and lists its keys.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give the one that holds {FILES[0]}.pth")
    paths = {name: _find(folder, name) for name in FILES}
    if missing := [f"{name}.pth" for name, path in paths.items() if path is None]:
        raise UserError(f"{folder}: {', '.join(missing)} missing; download all four: {', '.join(FILES)}")
    sizes = _sizes(folder)
    weights = {name: read_weights(path) for name, path in paths.items() if path}
    spatial, temporal = weights["denoising_unet"], weights["motion_module"]
    # Some trainings save the temporal layers with the network; a motion module of its own counts
    spatial = {name: value for name, value in spatial.items() if not is_temporal(name)}
    unet: Any
    with torch.device("meta"):
        unet, reader = (UNet2DConditionModel(**sizes["unet"]) for _ in range(2))
        guider = PoseEncoder(unet.config.block_out_channels[0], sizes["pose_guider"])
    tail = {name: value.clone() for name, value in spatial.items() if name.startswith(UNREAD)}
    fill(unet, spatial, paths["denoising_unet"])
    fill(reader, {**tail, **weights["reference_unet"]}, paths["reference_unet"])
    fill(guider, weights["pose_guider"], paths["pose_guider"])
    return {
        "unet": unet, "reference_unet": reader, "pose_encoder": guider,
        "motion_adapter": motion_adapter(temporal, unet.config, paths["motion_module"]),
        "vae": _vae(folder, vae), "image_encoder": _image_encoder(folder, image_encoder, unet),
        "scheduler": DDIMScheduler(**SCHEDULE), **SETTINGS,
    }  # fmt: skip


def _find(folder: Path, name: str) -> Path | None:
    return next((path for end in ENDINGS if (path := folder / f"{name}{end}").is_file()), None)


def _sizes(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        return {"unet": UNET, "pose_guider": POSE_CHANNELS}
    try:
        saved = json.loads(path.read_text())
        return {"unet": saved["unet"], "pose_guider": tuple(saved["pose_guider"]["block_out_channels"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: no readable sizes of the networks ({error}); without this file they are Stable "
            "Diffusion 1.5's"
        ) from error


def _vae(folder: Path, given: str | Path | None) -> AutoencoderKL:
    source = given or _beside(folder, VAE_FOLDERS)
    if source is None:
        raise UserError(
            f"{folder}: no {VAE_FOLDERS[0]}/ in it; download stabilityai/sd-vae-ft-mse into it, or name its "
            "folder with --vae"
        )
    options: dict[str, Any] = {"use_safetensors": True}
    if variant := find_variant(Path(source)):
        options["variant"] = variant
    return load_network(AutoencoderKL, source, **options)


def _image_encoder(folder: Path, given: str | Path | None, unet: nn.Module) -> Any:
    source = given or _beside(folder, ENCODER_FOLDERS)
    if source is None:
        raise UserError(
            f"{folder}: no image_encoder/ in it; download that of lambdalabs/sd-image-variations-diffusers "
            "into it, or name its folder with --image-encoder"
        )
    return clip_encoder(source, unet, {"use_safetensors": True})


def _beside(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)
