"""Training: `data -> Batch -> latents -> noise -> joint pass -> loss` (METHOD 4), resumable by running the
same command again."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    DistributedDataParallelKwargs,
    GradientAccumulationPlugin,
    LoggerType,
    ProjectConfiguration,
    is_tensorboard_available,
)
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.utils.data import DataLoader

from scd import checkpoint, latents, learning, records, sharding
from scd.backbones.motion import has_motion
from scd.config import DRESSED, PICTURES, TRYON, TrainConfig
from scd.data.collate import collate
from scd.data.dataset import make_dataset
from scd.data.mixed import pairs_config
from scd.data.world import FIRST_TRAINING_SEED
from scd.machine import keep_freed_memory, processes, resolve_precision, yield_the_cores
from scd.pipeline import SCDPipeline
from scd.records import Tally
from scd.reference import hash_weights
from scd.run_folder import claim, describe, learnt
from scd.step import Trainee, step_loss
from scd.types import Batch, UserError

log = logging.getLogger("scd")


class Turns:
    """A sampler for one of `processes`, which take batches of `size` samples in turn: the indices of its
    batches from `start` on, each used once. So many processes see what one would see with as many times the
    accumulation."""

    def __init__(self, start: int, stop: int, size: int, rank: int = 0, processes: int = 1):
        batches = range(start + rank, stop, processes)
        self.indices = [index for batch in batches for index in range(batch * size, (batch + 1) * size)]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


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

    In several processes (`accelerate launch`) each takes its turn of the batches, gradients are averaged, and
    the first one writes.

    Raises UserError when the folder holds a run with other settings, or a loss is not a number.
    """
    processes(pipe.device)
    # Pictures never enter temporal layers; several processes would wait for their gradients
    silent = has_motion(pipe.unet) and config.data.frames == 1
    accelerator = Accelerator(
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=silent)],
        mixed_precision=resolve_precision(config.precision, pipe.device),
        # As a plugin: of two, the number in the environment would win over the plain argument
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.accumulation),
        log_with=trackers(config.tracker),
        project_config=ProjectConfiguration(project_dir=str(run), logging_dir=str(run)),
        cpu=pipe.device.type == "cpu",
    )
    rank, num_processes, writes = (
        accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    )  # fmt: skip
    if writes:
        claim(run, config)
    accelerator.wait_for_everyone()
    keep_freed_memory()
    learning.choose(pipe, config)
    sharded = sharding.is_sharded(accelerator)
    if config.matching_weight and (sharded or pipe.reference_unet is not None):
        # What layers saw does not leave a sharded network, and two networks never see one joint pass
        what = "shards of parameters" if sharded else "a model that has a network of its own for references"
        raise UserError(f"--matching-weight: not with {what}; leave it out")
    if config.learn == "lora" and sharded:  # its base's hash and its merged copy read whole weights
        raise UserError("--learn lora: not with shards of parameters, which so few do not need")
    shown = sharding.duplicate(pipe) if sharded and writes else pipe
    pipe.to(accelerator.device)
    trainee = Trainee(pipe).train()
    # Not where temporal layers alone learn: in this layout torch 2.13's GroupNorm crashes in its backward
    # pass when its weights learn, its input does not, and it has 1024 positions or fewer (16 frames of 8 x 8)
    if accelerator.device.type == "cpu" and not sharded and config.learn != "motion":
        trainee.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a tenth of the time
    if config.checkpointing:
        for network in filter(None, (pipe.unet, pipe.reference_unet)):
            network.enable_gradient_checkpointing()
    # fused: one kernel a tensor; the plain loop costs a tenth of a step here
    learnable = [p for p in trainee.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        learnable, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )
    wrapped, optimizer = accelerator.prepare(trainee, optimizer)
    names = [name for name, p in trainee.named_parameters() if p.requires_grad]
    learnable = [p for p in trainee.parameters() if p.requires_grad]  # shards are new ones
    averaged = learnable if config.ema_decay else []
    ema = EMAModel(averaged, decay=config.ema_decay, use_ema_warmup=True, power=0.75)
    saved = checkpoint.checkpoints(run)
    step, seen, done, tally, skipped = 0, 0.0, 0, Tally(), 0
    # A LoRA means something only on the weights it was trained on
    frozen = hash_weights(pipe.unet) if config.learn == "lora" else ""
    if saved:
        meta = checkpoint.load_checkpoint(saved[-1], trainee, _plain(optimizer), ema.shadow_params)
        if meta.get("frozen", "") != frozen:
            raise UserError(f"{run}: its LoRA belongs to other weights than --init {config.init} has now")
        step, seen, ema.optimization_step = meta["step"], meta["seconds"], meta["ema_step"]
        done, tally = meta.get("batches", step * config.accumulation), Tally(**meta.get("tally", {}))
        skipped = meta.get("skipped", 0)
        if not writes:
            tally = Tally(tally.losses)  # the first process has everybody's
    if writes:
        records.cut(run, step)
    turn = config.accumulation * num_processes  # batches in an optimizer step
    targets = config.data.groups * config.data.rows  # in a batch
    stop = done + (config.steps - step) * turn
    dataset = make_dataset(config, stop * config.data.groups)
    if config.data.latents:
        with accelerator.main_process_first():
            dataset = latents.with_latents(pipe, dataset, Path(config.data.latents))
    loader = _loader(dataset, config, Turns(done, stop, config.data.groups, rank, num_processes))
    accelerator.init_trackers("tensorboard" if config.tracker == "tensorboard" else run.name)

    def added(counts: list[float]) -> list[float]:
        """Over all processes."""
        here = torch.tensor(counts, device=accelerator.device)
        return cast(Tensor, accelerator.reduce(here)).tolist()

    def share() -> None:
        if num_processes > 1:
            tally.share(added, writes)

    def show() -> None:
        """Bring the averaged weights into `shown`; all processes. `hide` takes them out again."""
        if sharded:
            sharding.assemble(names, ema.shadow_params or learnable, Trainee(shown) if writes else None)
        else:
            ema.store(averaged)
            ema.copy_to(averaged)
        trainee.eval()

    def hide() -> None:
        if not sharded:
            ema.restore(averaged)
        elif writes:  # the VAE is shared and stays
            for network in filter(None, (shown.unet, shown.reference_unet)):
                network.to("cpu")
        trainee.train()

    def export() -> None:
        learning.export(shown, run)
        describe(run, step, done * targets, seen + time.monotonic() - began)

    def save() -> None:
        share()
        state = checkpoint.gather(trainee, _plain(optimizer), ema.shadow_params, keep=writes)
        if not writes:
            return
        meta = {
            "seconds": seen + time.monotonic() - began, "ema_step": ema.optimization_step, "frozen": frozen,
            "batches": done, "tally": asdict(tally), "skipped": skipped,
        }  # fmt: skip
        checkpoint.save_checkpoint(run, step, state, meta)

    def write(row: dict[str, float]) -> None:
        records.append(run, row)
        accelerator.log({k: v for k, v in row.items() if k != "step"}, step=step)

    began, since = time.monotonic(), (time.monotonic(), step)
    with _batches(loader) as iterator:
        while step < config.steps:
            total, batches = 0.0, []
            for part in range(config.accumulation):
                generator = torch.Generator().manual_seed(
                    _mix(config.seed, step, part * num_processes + rank)
                )
                batches.append(next(iterator))
                with accelerator.accumulate(wrapped):
                    with accelerator.autocast():
                        value = step_loss(wrapped, pipe, batches[-1], generator, config, tally)
                    accelerator.backward(value)  # outside, or what is float32 for a reason loses it here
                    total += value.item() / config.accumulation
            done += turn
            if num_processes > 1:  # one process's is everybody's: all stop at the same step
                shares = accelerator.gather(torch.tensor([total], device=accelerator.device))
                total = cast(Tensor, shares).mean().item()
            norm = cast(Tensor, accelerator.clip_grad_norm_(learnable, config.clip))
            # fp16 seeks its loss scale by trial and leaves out steps; at a scale below 1 it is not the scale
            seeks = accelerator.scaler is not None and accelerator.scaler.get_scale() >= 1
            sound = math.isfinite(total) and (seeks or bool(norm.isfinite()))
            skipped = 0 if sound else skipped + 1
            if skipped > config.skip_broken:
                raise records.broken(
                    run, f"{step:08d}-{rank}", batches, step=step, rank=rank, seed=config.seed
                )
            if sound:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(config, step)
                optimizer.step()
                ema.step(averaged)
                tally.losses.append(total)
            elif accelerator.scaler is not None:  # fp16's has looked at the gradient, and waits for a step
                accelerator.scaler.update()
            if writes and not sound:
                log.warning(f"step {step}: its loss or gradient is not a number; left out")
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % config.log_every == 0 or step == config.steps:
                now = time.monotonic()
                share()
                row = {
                    "step": step,
                    "targets": done * targets,
                    **tally.row(),
                    "lr": learning_rate(config, step - 1),
                    "seconds": seen + now - began,
                    "targets_per_second": (step - since[1]) * turn * targets / (now - since[0]),
                }
                tally, since = Tally(), (now, step)
                if writes:
                    write(row)
            sampled = step % config.sample_every == 0 or step == config.steps
            if sampled or step % config.save_every == 0:  # what is exported is never newer than what is kept
                save()
            if sampled:
                show()
                if writes:
                    export()
                    write({"step": step, **_sample(shown.to(accelerator.device), run, step, config)})
                hide()
                accelerator.wait_for_everyone()
            if progress is not None:
                try:
                    progress(step, total)
                except KeyboardInterrupt:
                    # The moment to stop; of several processes not all may have been told
                    if num_processes == 1 and step % config.save_every and not sampled:
                        save()
                    raise
    show()
    if writes and learnt(run) < step:  # a kill came between the last checkpoint and its model
        export()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return shown


def _loader(dataset: Any, config: TrainConfig, turns: Turns) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=config.data.groups,
        collate_fn=collate,
        num_workers=config.data.workers,
        sampler=turns,  # pyright: ignore[reportArgumentType]
        prefetch_factor=4 if config.data.workers else None,
        worker_init_fn=yield_the_cores,
    )


@contextmanager
def _batches(loader: DataLoader) -> Iterator[Iterator[Batch]]:
    """The loader's batches. The processes that read end with the block: they heed no SIGTERM, by which Python
    would end them, and an error would wait for them for ever."""
    iterator = iter(loader)
    try:
        yield iterator
    finally:
        getattr(iterator, "_shutdown_workers", lambda: None)()  # without processes there is none


def _sample(pipe: SCDPipeline, run: Path, step: int, config: TrainConfig) -> dict[str, float]:
    from scd.evaluate import sample_grid  # verbs beside this one
    from scd.evaluate_clips import sample_clips
    from scd.evaluate_real import sample_pairs, sample_real
    from scd.evaluate_tryon import sample_tryon

    data, num = config.data, config.sample_pictures
    if not num:
        return {}
    path = run / "samples" / f"step-{step:08d}.png"
    if data.is_tryon:
        return sample_pairs(pipe, path, config)
    if data.kind != "world":
        row = sample_real(pipe, path, config)
        if data.tryon:
            beside = path.with_name(f"{path.stem}-tryon.png")
            row |= sample_pairs(pipe, beside, replace(config, data=pairs_config(data)))
        return row
    if data.frames > 1:
        return sample_clips(pipe, path, data.size, num, data.frames)
    shown: dict[str, Any] = {}
    if config.overfit:  # the people that it has to know by heart
        num, shown = min(num, config.overfit), {"first_seed": FIRST_TRAINING_SEED * (1 + config.seed)}
    row = {} if data.tasks[PICTURES] == 0 else sample_grid(pipe, path, data.size, num, **shown)
    if data.tasks[TRYON] or data.tasks[DRESSED]:
        row |= sample_tryon(pipe, path.with_name(f"{path.stem}-tryon.png"), data.size, num)
    return row


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def trackers(name: str) -> str | None:
    """What accelerate logs with; TensorBoard, the default, only where it is installed. Raises UserError."""
    if name == "none" or (name == "tensorboard" and not is_tensorboard_available()):
        return None
    known = [one.value for one in LoggerType if one.value != "all"]
    if name not in known:
        raise UserError(f"--tracker {name}: not known; use none, {', '.join(known)}")
    if name not in {one.value for one in get_available_trackers()}:
        raise UserError(f"--tracker {name}: not installed here: pip install {name}")
    return name


def _plain(optimizer) -> torch.optim.Optimizer:
    return getattr(optimizer, "optimizer", optimizer)


if __name__ == "__main__":  # accelerate launch -m scd.train PRESET ...: `scd train` in several processes
    import sys

    from scd.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
