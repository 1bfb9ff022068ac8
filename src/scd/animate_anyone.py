"""Public weights of the Animate Anyone family (Hu et al. 2023, in Moore Threads' reproduction and what was
trained from it) as an SCD pipeline: a second network reads the reference, all else is ours."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from scd.loading import find_variant, load_network
from scd.pose_encoder import PoseEncoder
from scd.stable_diffusion import POSE_CHANNELS, UNET, clip_encoder
from scd.types import UserError

Weights = dict[str, Tensor]

FILES = ("denoising_unet", "reference_unet", "pose_guider", "motion_module")
ENDINGS = (".safetensors", ".pth", ".ckpt", ".bin")
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
MOTION_GROUPS = 32  # of AnimateDiff's temporal GroupNorm, whatever the picture network has
MOTION_HEADS = 8

# AnimateDiff's names of a temporal transformer -> diffusers'
_MOTION_NAMES = (
    (r"\.temporal_transformer\.", "."),
    (r"\.attention_blocks\.0\.pos_encoder\.", ".pos_embed."),
    (r"\.attention_blocks\.(\d)\.", lambda m: f".attn{int(m[1]) + 1}."),
    (r"\.norms\.(\d)\.", lambda m: f".norm{int(m[1]) + 1}."),
    (r"\.ff_norm\.", ".norm3."),
)
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
    spatial = {name: value for name, value in spatial.items() if ".motion_modules." not in name}
    unet = _filled(UNet2DConditionModel(**sizes["unet"]), spatial, paths["denoising_unet"])
    tail = {name: value for name, value in spatial.items() if name.startswith(UNREAD)}
    reader = _filled(
        UNet2DConditionModel(**sizes["unet"]), {**tail, **weights["reference_unet"]}, paths["reference_unet"]
    )
    channels = sizes["pose_guider"]
    guider = _filled(
        PoseEncoder(unet.config.block_out_channels[0], channels), weights["pose_guider"], paths["pose_guider"]
    )
    return {
        "unet": unet, "reference_unet": reader, "pose_encoder": guider,
        "motion_adapter": motion_adapter(temporal, unet.config, paths["motion_module"]),
        "vae": _vae(folder, vae), "image_encoder": _image_encoder(folder, image_encoder, unet),
        "scheduler": DDIMScheduler(**SCHEDULE), **SETTINGS,
    }  # fmt: skip


def motion_adapter(weights: Mapping[str, Tensor], unet_config: Any, path: Any) -> MotionAdapter:
    """A motion module in AnimateDiff's own format, for a network of `unet_config`. Raises UserError for one
    of another version."""
    renamed: Weights = {}
    for name, value in weights.items():
        # A table of sines, the same in both attentions of a block; diffusers keeps one
        if re.search(r"attention_blocks\.[1-9]\.pos_encoder", name):
            first = weights.get(re.sub(r"attention_blocks\.\d", "attention_blocks.0", name))
            if first is None or not torch.equal(first, value):
                raise UserError(f"{path}: a motion module with position tables of another kind ({name})")
            continue
        for pattern, new in _MOTION_NAMES:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    tables = [value for name, value in renamed.items() if name.endswith("pos_embed.pe")]
    if not tables:
        raise UserError(f"{path}: no motion module in AnimateDiff's format: it has no position tables")
    adapter = MotionAdapter(
        block_out_channels=unet_config.block_out_channels,
        motion_layers_per_block=unet_config.layers_per_block,
        motion_norm_num_groups=MOTION_GROUPS,
        motion_num_attention_heads=MOTION_HEADS,
        motion_max_seq_length=tables[0].shape[1],
        use_motion_mid_block=any(name.startswith("mid_block.") for name in renamed),
    )
    return _filled(adapter, renamed, path)


def read_weights(path: Path) -> Weights:
    """The tensors of a file, by name: safetensors, or a .pth that holds nothing but tensors. Raises
    UserError; nothing that a file says is executed."""
    try:
        if path.suffix == ".safetensors":
            weights: Any = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: damaged, or half a download ({' '.join(str(error).split())[:120]}): download it again"
        ) from error
    except Exception as error:  # the weights-only reader refuses what is not data
        raise UserError(
            f"{path}: holds more than tensors, and nothing of it was executed; use a file of plain weights, "
            "such as .safetensors"
        ) from error
    if isinstance(weights, dict) and isinstance(weights.get("state_dict"), dict):
        weights = weights["state_dict"]  # AnimateDiff's trainer
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path}: holds more than tensors; use a file of plain weights")
    # Clones: a mapped file's odd addresses change the last bit of kernels
    return {name.removeprefix("module."): value.float().clone() for name, value in weights.items()}


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


def _filled(network: Any, weights: Weights, path: Path | None) -> Any:
    """The network with these weights, every key accounted for. Raises UserError."""
    own = network.state_dict()
    wrong = {
        "missing": own.keys() - weights.keys(),
        "left over": weights.keys() - own.keys(),
        "of another size": {n for n in own.keys() & weights.keys() if own[n].shape != weights[n].shape},
    }
    if any(wrong.values()):
        lists = "; ".join(
            f"{len(names)} {what}: {', '.join(sorted(names)[:4])}{' ...' * (len(names) > 4)}"
            for what, names in wrong.items() if names
        )  # fmt: skip
        raise UserError(f"{path}: not the weights of this family's {type(network).__name__}: {lists}")
    network.load_state_dict(weights)
    return network.eval()


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
