"""Training: `data -> Batch -> latents -> noise -> joint pass -> loss` (METHOD 4), resumable by running the
same command again."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d
from torch.utils.data import DataLoader

from scd import checkpoint, latents, learning, process
from scd.backbones.unet import collect, denoise, extract, joint
from scd.config import TrainConfig, load_config, same_run, to_json
from scd.data.collate import collate
from scd.data.real import RealPictures, open_real
from scd.data.tryon import TRYON_LAYOUTS
from scd.data.tryon_pictures import TryOnPictures, open_tryon
from scd.data.world import FIRST_TRAINING_SEED, WorldClips, WorldPictures
from scd.data.world_tryon import WorldTryOn
from scd.pipeline import SCDPipeline
from scd.reference import hash_weights
from scd.types import Batch, UserError


class Trainee(nn.Module):
    """What learns, behind the one `forward` that accelerate wraps: the denoising network and the pose
    encoder."""

    def __init__(self, pipe: SCDPipeline):
        super().__init__()
        self.unet, self.pose_encoder = pipe.unet, pipe.pose_encoder
        self.reference_unet = pipe.reference_unet  # None: `unet` reads references too
        self.reference_timestep = pipe.config.reference_timestep

    def forward(
        self, references, z_t, timesteps, reference_drawings, target_drawings, context, owner,
        num_frames: int = 1,
    ) -> Tensor:  # fmt: skip
        """The predictions of the targets. Pictures: one joint pass. Clips of `num_frames` rows, or a network
        of its own for references: first the references, then the targets; where only temporal layers learn,
        nothing of the former needs a gradient."""
        drawings = torch.cat([reference_drawings.flatten(0, 1), target_drawings])
        rows = references.shape[0] * references.shape[1]
        of_references, of_targets = self.pose_encoder(drawings).split([rows, len(z_t)])
        # A reference without a pose, a garment, has no features (METHOD 3)
        shown = reference_drawings.flatten(0, 1).flatten(1).any(1)[:, None, None, None]
        features = torch.where(shown, of_references, torch.zeros_like(of_references)), of_targets
        if num_frames == 1 and self.reference_unet is None:
            return joint(
                self.unet, references, z_t, self.reference_timestep, timesteps, features, context, owner
            )
        shown = references.flatten(0, 1), self.reference_timestep, features[0], context[0]
        spatial = (p for n, p in self.unet.named_parameters() if ".motion_modules." not in n)
        frozen = not any(p.requires_grad for p in spatial)
        with torch.no_grad() if frozen else contextlib.nullcontext():
            if self.reference_unet is None:
                cache = extract(self.unet, *shown)
            else:
                cache = collect(self.reference_unet, *shown)
        cache = cache.grouped(references.shape[1])
        return denoise(self.unet, z_t, timesteps, features[1], context[1], cache, owner, num_frames)


def step_loss(
    trainee: nn.Module, pipe: SCDPipeline, batch: Batch, generator: torch.Generator, config: TrainConfig
) -> Tensor:
    """The loss of one batch; all randomness (timesteps, noise, dropped references) comes from the
    generator."""
    device = pipe.device
    groups, num_targets = batch.targets.shape[:2]
    references = latents.encode(pipe, batch.references.flatten(0, 1)).unflatten(0, (groups, -1))
    z_0 = latents.encode(pipe, batch.targets.flatten(0, 1), generator)
    num, num_frames = len(z_0), config.data.frames

    # One timestep per target (a clip's frames share theirs), one from each of as many equal parts of the
    # schedule: the loss of a step varies less
    draws = num // num_frames
    parts = (torch.randperm(draws, generator=generator) + torch.rand(draws, generator=generator)) / draws
    timesteps = (parts * pipe.scheduler.config.num_train_timesteps).long().to(device)
    timesteps = timesteps.repeat_interleave(num_frames)
    eps = torch.randn(z_0.shape, generator=generator).to(device)
    if config.noise_offset:
        eps = eps + config.noise_offset * torch.randn((*z_0.shape[:2], 1, 1), generator=generator).to(device)
    if pipe.config.shared_noise:
        eps = eps[::num_frames].repeat_interleave(num_frames, 0)
    alpha, sigma = process.noise_levels(pipe.scheduler, timesteps)
    region = _on_latents(batch.regions, z_0)
    z_t = process.noise(z_0, eps, alpha, sigma, region)

    dropped = (torch.rand(draws, generator=generator) < config.drop_reference).repeat_interleave(num_frames)
    owner = [-1 if drop else row // num_targets for row, drop in enumerate(dropped.tolist())]
    context = pipe.training_context(batch.references, owner, batch.reference_tokens)
    prediction = trainee(
        references,
        z_t,
        timesteps,
        _drawing(batch.reference_drawings, device),
        _drawing(batch.target_drawings, device).flatten(0, 1),
        context,
        owner,
        num_frames,
    )
    return process.loss(
        prediction, z_0, eps, alpha, sigma, process.objective_name(pipe.scheduler),
        region=_weigh(region, _on_latents(batch.heads, z_0), config.head_weight),
        channel_weights=getattr(pipe.vae, "loss_weights", None),
        num_frames=num_frames, change_weight=config.change_weight,
    )  # fmt: skip


def _on_latents(mask: Tensor | None, z_0: Tensor) -> Tensor | None:
    """A mask of pixels (G, K, 1, H, W) on the latent grid, (N, 1, h, w): 1 where any of its pixels is 1."""
    return None if mask is None else adaptive_max_pool2d(mask.flatten(0, 1).to(z_0), z_0.shape[-2:])


def _weigh(region: Tensor | None, heads: Tensor | None, head_weight: float) -> Tensor | None:
    """The loss's soft region, (N, 1, h, w): M, and `head_weight` times that at heads; None where all is 1."""
    if heads is None or head_weight == 1:
        return region
    weights = 1 + (head_weight - 1) * heads
    return weights if region is None else weights * region


def _drawing(drawings: Tensor, device) -> Tensor:
    return drawings.to(device).float() / 255


class _From:
    """A sampler that starts in the middle: the indices of a run from `start` on, each used once."""

    def __init__(self, start: int, stop: int):
        self.range = range(start, stop)

    def __iter__(self) -> Iterator[int]:
        return iter(self.range)

    def __len__(self) -> int:
        return len(self.range)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, constant, linear cool-down to zero over the last `cooldown` steps."""
    factor = min(1.0, (step + 1) / max(config.warmup, 1))
    if config.cooldown:
        factor = min(factor, (config.steps - step) / config.cooldown)
    return config.lr * factor


def train(config: TrainConfig, run: Path, pipe: SCDPipeline, progress=None) -> SCDPipeline:
    """Train `pipe` in place in the run folder: config.json, log.jsonl, tensorboard/, samples/, checkpoint-*/
    and model/ (the averaged weights in diffusers layout). A folder with checkpoints continues from the
    newest. Returns the pipeline with averaged weights.

    Raises UserError when the folder holds a run with other settings, or a loss is not a number.
    """
    run.mkdir(parents=True, exist_ok=True)
    _claim(run, config)
    _keep_freed_memory()
    accelerator = Accelerator(
        mixed_precision=resolve_precision(config.precision, pipe.device),
        gradient_accumulation_steps=config.accumulation,
        log_with="tensorboard" if _has_tensorboard() else None,
        project_config=ProjectConfiguration(project_dir=str(run), logging_dir=str(run)),
        cpu=pipe.device.type == "cpu",
    )
    pipe.to(accelerator.device)
    trainee = Trainee(pipe).train()
    learning.choose(pipe, config)
    if accelerator.device.type == "cpu":
        trainee.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a tenth of the time
    if config.checkpointing:
        pipe.unet.enable_gradient_checkpointing()
    # fused: one kernel a tensor; the plain loop costs a tenth of a step here
    learnable = [p for p in trainee.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        learnable, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )
    averaged = learnable if config.ema_decay else []
    ema = EMAModel(averaged, decay=config.ema_decay, use_ema_warmup=True, power=0.75)
    saved = checkpoint.checkpoints(run)
    step, seen = 0, 0.0
    # A LoRA means something only on the weights it was trained on
    frozen = hash_weights(pipe.unet) if config.learn == "lora" else ""
    if saved:
        meta = checkpoint.load_checkpoint(saved[-1], trainee, optimizer, ema.shadow_params)
        if meta.get("frozen", "") != frozen:
            raise UserError(f"{run}: its LoRA belongs to other weights than --init {config.init} has now")
        step, seen, ema.optimization_step = meta["step"], meta["seconds"], meta["ema_step"]
    batches = config.steps * config.accumulation
    dataset = _dataset(config, batches * config.data.groups)
    if config.data.latents:
        dataset = latents.with_latents(pipe, dataset, Path(config.data.latents))
    rest = _From(step * config.accumulation * config.data.groups, len(dataset))
    loader = DataLoader(
        dataset,  # pyright: ignore[reportArgumentType]
        batch_size=config.data.groups,
        collate_fn=collate,
        num_workers=config.data.workers,  # pyright: ignore[reportArgumentType]
        sampler=rest,  # pyright: ignore[reportArgumentType]
        prefetch_factor=4 if config.data.workers else None,
        worker_init_fn=_yield_the_cores,
    )
    wrapped, optimizer = accelerator.prepare(trainee, optimizer)
    accelerator.init_trackers("tensorboard")

    def save() -> None:
        meta = {
            "seconds": seen + time.monotonic() - began, "ema_step": ema.optimization_step, "frozen": frozen,
        }  # fmt: skip
        checkpoint.save_checkpoint(run, step, trainee, _plain(optimizer), ema.shadow_params, meta)

    began, since, losses = time.monotonic(), (time.monotonic(), step), []
    iterator = iter(loader)
    while step < config.steps:
        total = 0.0
        for part in range(config.accumulation):
            generator = torch.Generator().manual_seed(_mix(config.seed, step, part))
            with accelerator.accumulate(wrapped), accelerator.autocast():
                value = step_loss(wrapped, pipe, next(iterator), generator, config)
                accelerator.backward(value)
                total += value.item() / config.accumulation
        if not math.isfinite(total):
            raise UserError(
                f"{run}: the loss of step {step} is not a number; "
                "the last checkpoint is whole: lower --lr and run again"
            )
        if accelerator.sync_gradients:
            accelerator.clip_grad_norm_(learnable, config.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.step(averaged)
        step += 1
        losses.append(total)
        if progress is not None:
            progress(step, total)
        if step % config.log_every == 0 or step == config.steps:
            now = time.monotonic()
            row = {
                "step": step,
                "targets": step * config.targets_per_step,
                "loss": float(np.mean(losses)),
                "lr": learning_rate(config, step - 1),
                "seconds": seen + now - began,
                "targets_per_second": (step - since[1]) * config.targets_per_step / (now - since[0]),
            }
            losses, since = [], (now, step)
            _log(run, row)
            accelerator.log({k: v for k, v in row.items() if k != "step"}, step=step)
        if step % config.save_every == 0 or step == config.steps:
            save()
        if step % config.sample_every == 0 or step == config.steps:
            ema.store(averaged)
            ema.copy_to(averaged)
            trainee.eval()
            learning.export(pipe, run)
            row = {"step": step, **_sample(pipe, run, step, config)}
            trainee.train()
            ema.restore(averaged)
            _log(run, row)
            accelerator.log({k: v for k, v in row.items() if k != "step"}, step=step)
    accelerator.end_training()
    ema.copy_to(averaged)
    trainee.eval()
    learning.export(pipe, run)
    return pipe


def resolve_precision(name: str, device: torch.device) -> str:
    """auto = bf16 where the device computes in it, else no."""
    if name != "auto":
        return name
    if device.type == "cpu":
        able = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch before 2.10 has none
        return "bf16" if any(able.get(one) for one in ("avx512_bf16", "amx_bf16", "bf16")) else "no"
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "no"
    return "bf16"


def _dataset(config: TrainConfig, length: int) -> WorldPictures | RealPictures | TryOnPictures:
    data = config.data
    if data.kind in TRYON_LAYOUTS:
        return open_tryon(data, length, config.seed, config.overfit)
    if data.kind != "world":
        return open_real(data, length, config.seed, config.overfit, heads=config.head_weight != 1)
    options = {
        "references": data.references, "group": data.groups, "augment": data.augment, "reuse": data.reuse,
        "first_seed": FIRST_TRAINING_SEED * (1 + config.seed), "repeat": config.overfit or None,
        "heads": config.head_weight != 1,
    }  # fmt: skip
    if data.frames > 1:
        return WorldClips(length, data.size, data.frames, data.strides, **options)
    if data.tasks[1:] != (0, 0):
        return WorldTryOn(length, data.size, data.targets, data.garments, data.tasks, **options)
    return WorldPictures(length, data.size, data.targets, **options)


def _sample(pipe: SCDPipeline, run: Path, step: int, config: TrainConfig) -> dict[str, float]:
    from scd.evaluate import sample_grid  # verbs beside this one
    from scd.evaluate_clips import sample_clips
    from scd.evaluate_real import sample_pairs, sample_real
    from scd.evaluate_tryon import sample_tryon

    data, num = config.data, config.sample_pictures
    if not num:
        return {}
    path = run / "samples" / f"step-{step:08d}.png"
    if data.kind in TRYON_LAYOUTS:
        return sample_pairs(pipe, path, config)
    if data.kind != "world":
        return sample_real(pipe, path, config)
    if data.frames > 1:
        return sample_clips(pipe, path, data.size, num, data.frames)
    row = {} if data.tasks[0] == 0 else sample_grid(pipe, path, data.size, num)
    if data.tasks[1] or data.tasks[2]:
        row |= sample_tryon(pipe, path.with_name(f"{path.stem}-tryon.png"), data.size, num)
    return row


def _yield_the_cores(worker: int) -> None:
    """Let rendering run only while the network waits: every layer waits for its slowest thread, so a renderer
    beside two compute threads cost 15 % more than its own time."""
    os.nice(19)


def _keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks instead of returning them to the system after every layer: the page
    faults of taking them anew made a CPU step 4.1 s instead of 0.87 s. Elsewhere than on glibc nothing
    happens."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for option, value in (
            (-3, 1 << 30),
            (-1, (1 << 31) - 1),
            (-2, 1 << 28),
        ):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD
            libc.mallopt(option, value)


def _claim(run: Path, config: TrainConfig) -> None:
    """A run folder belongs to one config; only how long it goes on and what is written may change."""
    path = run / "config.json"
    if path.exists() and not same_run(load_config(path), config) and checkpoint.checkpoints(run):
        raise UserError(
            f"{run}: holds a run with other settings (config.json); "
            "choose another --run, or the same settings to resume"
        )
    path.write_text(to_json(config))


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def _log(run: Path, row: dict) -> None:
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def _has_tensorboard() -> bool:
    from importlib.util import find_spec

    return find_spec("tensorboard") is not None


def _plain(optimizer) -> torch.optim.Optimizer:
    return getattr(optimizer, "optimizer", optimizer)
