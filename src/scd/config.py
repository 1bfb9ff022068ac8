"""Typed settings of a training run, and the presets. Plain values: a config is written into the run's folder
and read back as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_type_hints

from scd.types import UserError

TRYON_KINDS = ("vitonhd", "dresscode")  # datasets of pairs: a person and a garment
CLIP_KINDS = ("tiktok", "ubc", "folder")  # datasets of clips
EMBEDDED, SCRATCH = "embedded", "scratch"  # weights to start from: the package's own, and none
PICTURES, TRYON, DRESSED = range(3)  # what a step's block asks for: places in DataConfig.tasks


@dataclass(frozen=True)
class NetworkConfig:
    """A denoising network made from nothing. When training starts from saved weights all is ignored but what
    the schedule and the sampler are made of; and that too where temporal layers alone learn, if the model's
    own schedule is another."""

    block_out_channels: tuple[int, ...] = (96, 128, 192)  # one level each
    # Which levels have attention, on the way down and up (from fine to coarse in both)
    attention_down: tuple[bool, ...] = (True, True, True)
    attention_up: tuple[bool, ...] = (False, True, True)
    layers_per_block: int = 1  # residual blocks of a level, on the way down; one more on the way up
    head_channels: int = 32  # of an attention head
    patch_size: int = 4  # of the codec: pixels of a latent pixel
    latent_channels: int = 16  # of the codec
    whitening: float = 0.5  # of the codec's components (PatchCodec.fit)
    codec_pictures: int = 600  # that it is fitted to: 614,400 patches at 128 px for 48 dimensions
    pose_channels: tuple[int, ...] = (32, 64)  # of the pose encoder's convolutions
    pose_dilations: tuple[int, ...] = (1, 2, 4)  # of those that follow
    # Of fitting the pose encoder to places of the body before training, which also starts matching heads
    # (scd.body); 0 = neither
    body_steps: int = 500
    # Stride of the pose encoder's first convolution: at full resolution it would cost a twentieth of a step
    pose_stride: int = 2
    pose_frequencies: int = 4  # place features (pose_encoder.place_features); 0 = none
    # Noise itself (epsilon) has no first step where the schedule ends in pure noise (METHOD 4)
    prediction_type: Literal["v_prediction", "sample"] = "sample"
    # Scaled-linear as Stable Diffusion's (0.00085, 0.012), moved to more noise: S = 1 at t = 170. Below that
    # level the noised target itself shows what should be read from the reference.
    beta_start: float = 0.003
    beta_end: float = 0.025  # of the same schedule
    # How it samples by default. "lcm" draws fresh noise at every step, so that what one step got wrong is
    # noise again for the next: masked PSNR 14.0 instead of 13.2, detail 1.1 instead of 1.4 (LOG.md)
    sampler: Literal["lcm", "ddim"] = "lcm"


@dataclass(frozen=True)
class DataConfig:
    """What a step sees: `groups` people, each with its references and `targets` pictures of the same clip."""

    kind: Literal["world", "tiktok", "ubc", "folder", "vitonhd", "dresscode"] = "world"
    # Of real data: its manifest (docs/data.md), which also says the kind; or the dataset's folder
    root: str = ""
    # Beside a root of clips: a manifest of try-on pairs, or their folder, which `tasks` mixes in (the joint
    # stage); "" = none
    tryon: str = ""
    # Of a step's block in the world, or with `tryon`: the chances of pictures (METHOD 4), of try-on (METHOD
    # 6), and of a person shown in other clothes who is painted whole, in the garments (the world alone)
    tasks: tuple[float, float, float] = (1.0, 0.0, 0.0)
    # Folder in which the latents of real frames are kept, so that no step decodes or encodes them; "" = none
    latents: str = ""
    size: int = 128  # pixels, both sides; of real clips' buckets the square root of the area
    groups: int = 4  # people in a step
    targets: int = 5  # pictures of each; they share one extract pass
    # N > 1: the targets are instead N successive frames of a motion clip, and `targets` is not used (stage 2)
    frames: int = 1
    strides: tuple[int, ...] = (1, 2, 3, 4)  # of those frames, in frames of 30 a second; one is drawn a clip
    gap: int = 30  # between a reference and a target of a real clip, at least, in frames of 30 a second
    references: tuple[float, ...] = (0.75, 0.15, 0.1)  # chances of 1, 2, 3 references a person
    garments: tuple[float, ...] = (0.7, 0.3)  # of the world: chances of 1, 2 garments in try-on
    reuse: int = 3  # blocks of steps that a scene of the world serves, its pictures in other roles
    workers: int = 1  # processes that render or decode; the order of the world's scenes depends on it
    augment: bool = True  # detector-like errors of the poses; real clips' have the detector's own
    exact: float = 0.0  # of the world, with `augment`: the chance that a person's poses have none after all
    # Of the world's pictures: the chance of a person of whom every second one is a frame of a motion clip
    moving: float = 0.0

    @property
    def is_tryon(self) -> bool:
        """Whether it is a try-on dataset: of each person one garment and one picture."""
        return self.kind in TRYON_KINDS

    @property
    def most_references(self) -> int:
        """Of one person."""
        return 1 if self.is_tryon else len(self.references)

    @property
    def rows(self) -> int:
        """Targets of one person in a step."""
        return 1 if self.is_tryon else self.frames if self.frames > 1 else self.targets


@dataclass(frozen=True)
class TrainConfig:
    """One training run. `scd train PRESET --lr 1e-4 ...` overrides any of it."""

    name: str = "world-pictures"
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    # Where the weights come from: "scratch", "embedded", or the folder or hub id of an SCD model or of Stable
    # Diffusion 1.5
    init: str = "scratch"
    image_encoder: str = ""  # with Stable Diffusion: folder or hub id of CLIP ViT-L/14; "" = no embedding
    # Of the denoising network; the pose encoder learns too, except with "motion": temporal layers alone
    learn: Literal["all", "attention", "lora", "motion"] = "all"
    # Who reads references: the denoising network itself, or one of its own, which starts as a copy (Animate
    # Anyone's ReferenceNet; an ablation of METHOD 9: twice the parameters)
    reference_network: Literal["same", "separate"] = "same"
    # With "motion", for a model without one: folder or hub id, or a file of AnimateDiff's; "" = a new one
    motion_adapter: str = ""
    motion_heads: int = 8  # of a new one
    # With "motion": the frames of a clip have one noise, in training and ever after. Where a sampler draws
    # fresh noise at every step frames of their own noise flicker (LOG.md); AnimateDiff's weights expect own
    shared_noise: bool = False
    lora_rank: int = 32  # with "lora"
    steps: int = 30_000  # optimizer steps
    lr: float = 8e-4  # the highest
    betas: tuple[float, float] = (0.9, 0.95)  # AdamW
    weight_decay: float = 0.01  # AdamW
    warmup: int = 200  # steps of linear warm-up
    cooldown: int = 0  # last steps, over which the rate falls linearly to zero
    clip: float = 1.0  # gradient norm
    skip_broken: int = 0  # steps in a row that may be left out because their loss or gradient is no number
    accumulation: int = 1  # batches in an optimizer step
    checkpointing: bool = False  # gradient checkpointing: less memory, a third more time
    # Autocast; weights and optimizer stay float32. auto: bf16 where the machine computes in it; an Ice Lake
    # CPU, which does not, takes twice as long for a step in it
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    ema_decay: float = 0.9995  # running average of what learns; 0 = none, a fifth less memory
    drop_reference: float = 0.1  # chance that a target trains guidance's unconditional half
    # Which noise levels are drawn (scd.step.shift): 1 = all alike, 3 = half of them in the last quarter,
    # where nothing of the target is left and all has to be read from the reference
    timestep_shift: float = 1.0
    # Chance that a target (a clip) is noised from the network's own prediction, as in sampling, and not from
    # the truth (scd.step.own_prediction): a third more time for a step
    own_predictions: float = 0.0
    noise_offset: float = 0.0  # of a channel's mean, times the noise's own deviation
    head_weight: float = 1.0  # how often the loss counts a target's head (data.heads); 1 = as all else
    # Of pictures: what the loss of attention's matches counts (scd.matching)
    matching_weight: float = 0.0
    # Of clips: how often the loss counts what the error changes by from frame to frame (process.errors)
    change_weight: float = 0.0
    seed: int = 0  # of samples and noise
    # Besides log.jsonl: none, tensorboard, or another that accelerate knows and is installed (wandb, ...)
    tracker: str = "tensorboard"
    log_every: int = 20  # steps
    sample_every: int = 500  # steps, after which a sheet, measures and RUN/model are written
    sample_pictures: int = 32  # held-out pictures that are painted and measured then; 0 = none
    save_every: int = 250  # steps, after which a checkpoint is written
    overfit: int = 0  # N > 0: only N people exist; the loss must fall to nearly nothing

    @property
    def targets_per_step(self) -> int:
        return self.data.groups * self.data.rows * self.accumulation


# Of Stable Diffusion 1.5's recipes: its betas
_SD15 = NetworkConfig(prediction_type="v_prediction", beta_start=0.00085, beta_end=0.012, sampler="ddim")

PRESETS: dict[str, TrainConfig] = {
    # The embedded model; 11.9 M + 0.2 M parameters, about 10 targets a second on 2 cores (bfloat16, no matrix
    # units)
    "world-pictures": TrainConfig(),
    # Try-on alone; and the joint training of the embedded model, one network for pictures, try-on and both at
    # once
    "world-tryon": TrainConfig(
        name="world-tryon", init="embedded", data=DataConfig(tasks=(0.0, 1.0, 0.0)), head_weight=4.0,
    ),
    "world-joint": TrainConfig(
        name="world-joint", init="embedded", data=DataConfig(tasks=(0.4, 0.4, 0.2)), head_weight=4.0,
    ),
    # Its motion modules (METHOD 5, stage 2): the picture network is frozen
    "world-motion": TrainConfig(
        name="world-motion", init="embedded", learn="motion", shared_noise=True, change_weight=3.0,
        data=DataConfig(groups=1, frames=16, references=(0.8, 0.2), reuse=4),
        steps=1500, lr=5e-4, warmup=50, cooldown=500, ema_decay=0.998, sample_every=250, save_every=100,
        sample_pictures=4,
    ),
    # Stage 1 of Animate Anyone (arXiv 2311.17117) and its reproductions: 64 targets a step, v-prediction with
    # zero-terminal SNR on Stable Diffusion's betas. 860 M parameters: 24 GB of memory with --learn attention
    "sd15-pictures": TrainConfig(
        name="sd15-pictures",
        init="",
        data=DataConfig(size=512, groups=2, targets=4),
        network=_SD15,
        lr=1e-5, betas=(0.9, 0.999), warmup=500, accumulation=8, checkpointing=True, noise_offset=0.05,
        ema_decay=0.9999, sample_every=1000, sample_pictures=4, save_every=1000,
    ),
    # Stage 2 of the same recipes: 24 frames, temporal layers only
    "sd15-motion": TrainConfig(
        name="sd15-motion", init="", learn="motion",
        data=DataConfig(size=512, groups=1, frames=24, strides=(4,)),
        network=_SD15,
        steps=10_000, lr=1e-5, betas=(0.9, 0.999), warmup=500, accumulation=4, checkpointing=True,
        noise_offset=0.05, ema_decay=0.0, sample_every=1000, sample_pictures=2, save_every=1000,
    ),
    # Every part of the above in seconds; for tests and for looking at a change
    "world-tiny": TrainConfig(
        name="world-tiny",
        data=DataConfig(size=32, groups=2, targets=2, workers=0),
        network=NetworkConfig(
            block_out_channels=(32, 64), attention_down=(True, True), attention_up=(True, True),
            head_channels=16, patch_size=8, latent_channels=8, pose_channels=(8, 8, 16), pose_dilations=(),
            codec_pictures=20, body_steps=0,
        ),
        steps=20, warmup=2, precision="no", log_every=1, sample_every=10, save_every=5,
    ),
}  # fmt: skip


# The recipes of Stable Diffusion 1.5 on real clips
PRESETS |= {
    f"{kind}-{stage}": replace(
        PRESETS[recipe], name=f"{kind}-{stage}",
        data=replace(PRESETS[recipe].data, kind=kind, augment=False, workers=4),
    )
    for kind in ("tiktok", "ubc", "folder")
    for stage, recipe in (("stage1", "sd15-pictures"), ("stage2", "sd15-motion"))
}  # fmt: skip

# Try-on on pairs (METHOD 6) at 512 x 384; `--data.size 896` is 1024 x 768. Attention alone learns, as in
# CatVTON (arXiv 2407.15886); `--learn all` and `--learn lora` are the others. Without --image-encoder a
# garment has no embedding
PRESETS |= {
    kind: replace(
        PRESETS["sd15-pictures"], name=kind, learn="attention", steps=16_000,
        data=DataConfig(
            kind=kind, size=448, groups=4, targets=1, references=(1.0,), augment=False, workers=4
        ),
    )
    for kind in TRYON_KINDS
}  # fmt: skip


MEMORIES = (12, 24, 80)  # GB of an accelerator that `for_memory` knows


def for_memory(config: TrainConfig, gigabytes: int) -> TrainConfig:
    """A recipe of Stable Diffusion 1.5 on an accelerator of so much memory: what learns (LoRA, attention
    alone, everything), gradient checkpointing, and how a step's targets are split into batches; their number
    stays. docs/training.md has the estimates. Raises UserError."""
    if config.init:
        raise UserError(f"--memory: {config.name} is small and fits anywhere; leave it out")
    if gigabytes not in MEMORIES:
        raise UserError(f"--memory {gigabytes}: one of {', '.join(map(str, MEMORIES))}")
    data, motion = config.data, config.learn == "motion"
    if motion:
        if gigabytes < 24:
            raise UserError(f"--memory {gigabytes}: motion modules alone take 14 GiB to train; 24 at least")
        return replace(config, checkpointing=gigabytes < 80)
    learn: Any = {12: "lora", 24: "attention", 80: "all"}[gigabytes]
    config = replace(config, learn=learn, checkpointing=gigabytes < 80)
    if gigabytes == 12:  # a quarter of the batch: fewer people first, then fewer pictures of each
        groups = max(data.groups // 4, 1)
        targets = max(data.targets * data.groups // (4 * groups), 1)
        smaller = replace(data, groups=groups, targets=targets)
        # A LoRA starts from nothing, and wants ten times the rate
        config = replace(config, data=smaller, ema_decay=0.0, lr=10 * config.lr)
    if gigabytes == 80:
        config = replace(config, data=replace(data, groups=2 * data.groups))
    before = data.groups * data.targets * config.accumulation
    return replace(config, accumulation=max(before // (config.data.groups * config.data.targets), 1))


def to_json(config: Any) -> str:
    return json.dumps(asdict(config), indent=2)


def from_json(text: str) -> TrainConfig:
    """The inverse of `to_json`. Raises UserError naming an unknown setting."""
    return _build(TrainConfig, json.loads(text))


def _build(cls: type, values: dict[str, Any]) -> Any:
    hints = get_type_hints(cls)
    unknown = values.keys() - {f.name for f in fields(cls)}
    if unknown:
        close = [near for name in sorted(unknown) for near in get_close_matches(name, hints, 1)]
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise UserError(f"unknown settings {', '.join(sorted(unknown))} for {cls.__name__}{hint}")
    out = {}
    for name, value in values.items():
        if is_dataclass(hints[name]):
            value = _build(hints[name], value)  # pyright: ignore[reportArgumentType]
        out[name] = tuple(value) if isinstance(value, list) else value
    return cls(**out)


# What may differ when a run goes on: how long, how fast it learns, what it bears, how often it writes, and
# what changes no result
_FREE = (
    "steps", "cooldown", "lr", "skip_broken", "log_every", "sample_every", "save_every", "sample_pictures",
    "tracker", "checkpointing",
)  # fmt: skip
_PLACES = ("data.root", "data.tryon", "data.latents")  # of files, which may be moved


def differing(a: TrainConfig, b: TrainConfig) -> list[str]:
    """The settings that keep one run folder from holding both; none: it can."""
    # Workers order the world's scenes, and no files
    free = _FREE if a.data.kind == "world" else (*_FREE, *moved(a, b), "data.workers")
    one, other = _flat(asdict(a)), _flat(asdict(b))
    return [name for name in one if one[name] != other[name] and name not in free]


def moved(a: TrainConfig, b: TrainConfig) -> list[str]:
    """The settings by which both name files to learn from, and other places of them."""
    one, other = _flat(asdict(a)), _flat(asdict(b))
    return [name for name in _PLACES if one[name] and other[name] and one[name] != other[name]]


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return flat


def load_config(path: Path) -> TrainConfig:
    """A run folder's config.json. Raises UserError when it is missing or damaged."""
    try:
        return from_json(path.read_text())
    except (OSError, ValueError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"{path}: no readable training config ({error})") from error


__all__ = [
    "CLIP_KINDS",
    "DRESSED",
    "MEMORIES",
    "PICTURES",
    "PRESETS",
    "TRYON",
    "TRYON_KINDS",
    "DataConfig",
    "NetworkConfig",
    "TrainConfig",
    "differing",
    "for_memory",
    "from_json",
    "load_config",
    "replace",
    "to_json",
]
