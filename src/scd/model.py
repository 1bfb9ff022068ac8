"""Where a pipeline comes from: the embedded model, a folder, a hub id, or nothing but a config."""

from __future__ import annotations

import logging
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    LCMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
)

from scd.animatediff import load_motion_adapter
from scd.backbones.motion import has_motion, new_motion_adapter, picture_copy
from scd.checkpoint import checkpoints, export, put_back
from scd.codec import PatchCodec
from scd.config import EMBEDDED, SCRATCH, NetworkConfig, TrainConfig, to_json
from scd.data.world import FIRST_TRAINING_SEED
from scd.encoders import signed
from scd.loading import index_of
from scd.media.files import replacing
from scd.pipeline import SCDPipeline
from scd.pose_encoder import PoseEncoder
from scd.run_folder import describe, is_marked, is_own, require_room
from scd.schedulers import mismatch
from scd.types import UserError

log = logging.getLogger("scd")


def embedded_folder() -> Path:
    """The folder of the embedded model, inside the package."""
    return Path(str(files("scd") / "weights" / "embedded"))


def load(path_or_id: str | Path | None = None, device: str = "auto", dtype: str = "auto") -> SCDPipeline:
    """The embedded model (None or "embedded"), or the one at `path_or_id`, on `device` (auto, cuda, mps, cpu)
    in `dtype` (auto, float32, ...).

    auto: the first accelerator there is, in half precision on CUDA, float32 elsewhere. Raises UserError.
    """
    embedded = path_or_id in (None, EMBEDDED)  # a folder of that name is ./embedded
    path = str(embedded_folder() if embedded else path_or_id)
    if embedded and not (embedded_folder() / "model_index.json").is_file():
        raise UserError(
            f"{path}: the embedded model is missing from this installation; install the package again"
        )
    if not Path(path).exists() and (path.count("/") != 1 or Path(path).parent.is_dir()):
        raise UserError(
            f"{path}: there is no such folder; give a model folder, "
            "or the id of one on the Hugging Face hub (NAME/MODEL)"
        )
    place = resolve_device(device)
    try:
        return SCDPipeline.from_pretrained(path, dtype=resolve_dtype(dtype, place)).to(place)
    except (OSError, KeyError, TypeError, ValueError) as error:  # damaged folders, ids out of reach
        raise UserError(
            f"{path}: no model that can be loaded ({' '.join(str(error).split())[:200]})"
        ) from error


def _world_version(config: TrainConfig) -> int | None:
    from scd import world

    return world.VERSION if config.data.kind == "world" else None


def start(config: TrainConfig, run: Path, writes: bool = True) -> SCDPipeline:
    """What a run begins or goes on with, in float32: `run/model` when it belongs to these settings, else a
    new pipeline (`config.init`), exported there at once (by the one process that writes), so that the codec
    and everything else that does not learn stays as it was. Raises UserError.
    """
    folder, settings = run / "model", run / "config.json"
    if writes and is_marked(run):
        put_back(folder)
    require_room(run, config)
    if is_own(run, config):
        # A LoRA's model/ holds the sum; it goes on from the weights it was trained on
        if config.learn != "lora":
            return load(folder, "cpu", "float32")
        writes = writes and not checkpoints(run)
    pipe: Any
    if config.init == SCRATCH:
        pipe = build(config)
    else:
        # The weights are the init's, the schedule is the run's
        pipe, scheduler = load_init(config), build_scheduler(config.network)
        other = mismatch(pipe.scheduler, scheduler)
        if other is not None and _is_trained(config.init):
            text = f"{config.name}'s schedule does not fit {config.init}: {other}"
            if config.learn == "motion":  # the picture network stays what it is
                log.warning("%s; temporal layers learn with the schedule of the model", text)
                scheduler = pipe.scheduler
            else:
                own = ", unless --network.prediction-type, .beta-start and .beta-end say otherwise"
                can_say = pipe.scheduler.config.get("rescale_betas_zero_snr")  # as every schedule here ends
                log.warning("%s; it has to learn that anew%s", text, own if can_say else "")
        if pipe.config.pose_drawing != "openpose" or not pipe.config.reference_pose:
            text = (
                f"{config.init} learnt other drawings of poses, or references without a pose; training draws "
                "as OpenPose does, references' poses too"
            )
            if config.learn == "motion":
                raise UserError(f"{text}: its picture network has to learn that first (--learn all)")
            log.warning("%s: it has to learn that, and is saved so", text)
            pipe.register_to_config(pose_drawing="openpose", reference_pose=True)
        pipe = SCDPipeline.from_pipe(pipe, scheduler=scheduler)
    pipe = _with_motion(_with_reader(pipe, config), config)
    # It paints what it learns: at that size, and in squares or in buckets (scd.data.buckets)
    pipe.register_to_config(default_size=config.data.size, world_version=_world_version(config))
    if writes:
        describe(run, 0, 0, 0.0)  # the run's from here on
        if not checkpoints(run):
            settings.unlink(missing_ok=True)  # until the new model stands
        export(pipe, folder)
        with replacing(settings, force=True) as temporary:
            temporary.write_text(to_json(config))
    return pipe


def _with_reader(pipe: Any, config: TrainConfig) -> Any:
    """The pipeline with a network of its own for references, where the config asks for one. Raises
    UserError."""
    if config.reference_network == "separate" and pipe.reference_unet is None:
        if config.learn not in ("all", "attention"):
            raise UserError(
                f"--reference-network separate: a second network has to learn; --learn all or attention, not "
                f"{config.learn}"
            )
        pipe = SCDPipeline.from_pipe(pipe, reference_unet=picture_copy(pipe.unet))
    return pipe


def _with_motion(pipe: Any, config: TrainConfig) -> Any:
    """The pipeline with motion modules, where these are to learn. Raises UserError."""
    if config.motion_adapter and has_motion(pipe.unet):
        raise UserError(f"--motion-adapter: {config.init} has motion modules already; leave it out")
    if config.learn == "motion" and not has_motion(pipe.unet):
        try:
            pipe = SCDPipeline.from_pipe(pipe, motion_adapter=_motion_adapter(pipe, config))
        except ValueError as error:
            raise UserError(f"{config.motion_adapter}: {error}") from error
    if config.learn == "motion":
        pipe.register_to_config(shared_noise=config.shared_noise)
    return pipe


def _motion_adapter(pipe: Any, config: TrainConfig) -> MotionAdapter:
    if config.motion_adapter:
        return load_motion_adapter(config.motion_adapter, pipe.unet.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return new_motion_adapter(pipe.unet, config.motion_heads)


def require_init(config: TrainConfig) -> None:
    """UserError where `config.init` names nothing to start from. No weights are read."""
    if not config.init:
        raise UserError(
            "--init: give the folder or hub id of Stable Diffusion 1.5 (or of an SCD model to go on from), "
            "and with the former --image-encoder, CLIP ViT-L/14's"
        )
    if config.init != SCRATCH:
        _is_trained(config.init)


def load_init(config: TrainConfig) -> SCDPipeline:
    """The SCD model or Stable Diffusion that `config.init` names, in float32. Raises UserError."""
    require_init(config)
    if _is_trained(config.init):
        pipe = load(config.init, "cpu", "float32")
        if config.image_encoder and pipe.image_encoder is None:
            raise UserError(f"--image-encoder: {config.init} learnt without one; leave it out")
        return pipe
    return SCDPipeline.from_stable_diffusion(config.init, config.image_encoder or None, seed=config.seed)


def _is_trained(init: str) -> bool:
    """Whether the weights to start from are an SCD model's."""
    return init == EMBEDDED or not is_stable_diffusion(init)


def is_stable_diffusion(source: str) -> bool:
    """Whether a folder or hub id holds Stable Diffusion rather than an SCD model."""
    if Path(source).exists():
        return index_of(source).get("_class_name") != "SCDPipeline"
    try:
        index: Any = DiffusionPipeline.load_config(source)
        return index.get("_class_name") != "SCDPipeline"
    except OSError as error:
        raise UserError(f"--init {source}: no such folder, and no hub id within reach") from error


def resolve_device(name: str) -> torch.device:
    """auto = cuda, else mps, else cpu. Raises UserError for a device that is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(n for n, ok in there.items() if ok))
    if not there.get(name.split(":")[0], False):
        raise UserError(
            f"--device {name}: not available here; there is {', '.join(n for n, ok in there.items() if ok)}"
        )
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """auto = float16 on CUDA, float32 elsewhere."""
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def fit_codec(network: NetworkConfig, size: int) -> PatchCodec:
    """The codec of the world's training people at (size, size)."""
    from scd import world

    pictures = np.stack(
        [
            world.Scene.from_seed(FIRST_TRAINING_SEED + i).view(0, size=size).image
            for i in range(network.codec_pictures)
        ]
    )
    pixels = signed(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    return PatchCodec.fit(pixels, network.latent_channels, network.patch_size, network.whitening)


def build(config: TrainConfig) -> SCDPipeline:
    """A pipeline with random weights (seeded by the config) and a codec fitted on the world's training
    people."""
    from scd import body, world

    network = config.network
    vae = fit_codec(network, config.data.size)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        unet = build_unet(network, config.data.size // network.patch_size)
        pose_encoder = build_pose_encoder(network)
    pipe = SCDPipeline(
        vae,
        unet,
        pose_encoder,
        build_scheduler(network),
        default_size=config.data.size,
        default_guidance=1.0,
        world_version=world.VERSION,
    )
    if network.body_steps:
        directions = body.Directions.of(
            network.block_out_channels[0], network.latent_channels, network.pose_frequencies
        )
        body.teach(pipe.pose_encoder, directions, config.data.size, network.body_steps)
        body.start_reading(pipe, directions)
    return pipe


def build_unet(network: NetworkConfig, sample_size: int) -> UNet2DConditionModel:
    """A small network of Stable Diffusion's shape."""
    num_heads: Any = tuple(channels // network.head_channels for channels in network.block_out_channels)
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=network.latent_channels,
        out_channels=network.latent_channels,
        block_out_channels=network.block_out_channels,
        layers_per_block=network.layers_per_block,
        down_block_types=tuple(f"{'CrossAttn' * a}DownBlock2D" for a in network.attention_down),
        up_block_types=tuple(f"{'CrossAttn' * a}UpBlock2D" for a in reversed(network.attention_up)),
        attention_head_dim=num_heads,  # diffusers' historic misnomer
        cross_attention_dim=network.block_out_channels[0],
        use_linear_projection=True,
    )


def build_pose_encoder(network: NetworkConfig) -> PoseEncoder:
    return PoseEncoder(
        network.block_out_channels[0],
        network.pose_channels,
        network.pose_stride,
        network.pose_frequencies,
        network.pose_dilations,
    )


def build_scheduler(network: NetworkConfig) -> DDIMScheduler | LCMScheduler:
    """Zero-terminal SNR with trailing spacing (Lin et al. 2023), as one bundle: what is trained is what is
    sampled."""
    schedule: dict[str, Any] = {
        "beta_start": network.beta_start, "beta_end": network.beta_end, "beta_schedule": "scaled_linear",
        "prediction_type": network.prediction_type, "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": True, "steps_offset": 0,
    }  # fmt: skip
    if network.sampler == "lcm":
        return LCMScheduler(**schedule, original_inference_steps=100)  # the most steps it can take
    return DDIMScheduler(**schedule)
