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
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.utils.data import DataLoader

from scd import checkpoint, latents, learning, records, sharding
from scd.config import DRESSED, PICTURES, TRYON, TrainConfig
from scd.data.collate import collate
from scd.data.dataset import make_dataset
from scd.data.mixed import pairs_config
from scd.data.world import FIRST_TRAINING_SEED
from scd.machine import accelerator_of, keep_freed_memory, yield_the_cores
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
    newest. Returns the pipeline with averaged weights. `progress(step, loss)` is called after each step; a
    KeyboardInterrupt of it ends the run at that step.

    In several processes (`accelerate launch`) each takes its turn of the batches, gradients are averaged, and
    the first one writes.

    Raises UserError when the folder holds a run with other settings, or a loss is not a number.
    """
    trainer = Trainer(config, run, pipe)
    with _batches(trainer.loader) as batches:
        while trainer.step < config.steps:
            loss = trainer.learn(batches)
            step, last = trainer.step, trainer.step == config.steps
            if last or step % config.log_every == 0:
                trainer.write_row()
            published = last or step % config.sample_every == 0
            saved = published or step % config.save_every == 0  # what is published is never newer than this
            if saved:
                trainer.save()
            if published:
                trainer.publish()
            try:
                if progress is not None:
                    progress(step, loss)
            except KeyboardInterrupt:  # the moment to stop; of several processes not all may have been told
                if trainer.num_processes == 1 and not saved:
                    trainer.save()
                raise
    return trainer.finish()


class Trainer:
    """A run in this process, one of `num_processes`: what learns and how, what it learns from, and where it
    stands, which is where its newest checkpoint left it. Methods are called by all processes together."""

    def __init__(self, config: TrainConfig, run: Path, pipe: SCDPipeline):
        self.config, self.run, self.pipe = config, run, pipe
        self.accelerator = accelerator = accelerator_of(config, run, pipe)
        self.rank, self.num_processes = accelerator.process_index, accelerator.num_processes
        self.writes = accelerator.is_main_process
        self.sharded = sharding.is_sharded(accelerator)
        _require_whole(config, pipe, self.sharded)
        if self.writes:
            claim(run, config)
        accelerator.wait_for_everyone()
        keep_freed_memory()
        self._prepare()
        self.step, self.taken, self.before, self.skipped = 0, 0, 0.0, 0  # taken: batches
        self.tally = Tally()  # of what the log does not have yet
        # A LoRA means something only on the weights it was trained on
        self.frozen = hash_weights(pipe.unet) if config.learn == "lora" else ""
        self._restore()
        self.turn = config.accumulation * self.num_processes  # batches in an optimizer step
        self.targets = config.data.groups * config.data.rows  # in a batch
        self.loader = self._loader()
        accelerator.init_trackers("tensorboard" if config.tracker == "tensorboard" else run.name)
        self.began = time.monotonic()
        self.since = self.began, self.step  # the last row of the log

    def _prepare(self) -> None:
        """The networks, the optimizer and the running average."""
        config, pipe, accelerator = self.config, self.pipe, self.accelerator
        learning.choose(pipe, config)
        # What sheets are painted with, and what is published
        self.shown = sharding.duplicate(pipe) if self.sharded and self.writes else pipe
        pipe.to(accelerator.device)
        self.trainee = Trainee(pipe).train()
        # Not where temporal layers alone learn: in this layout torch 2.13's GroupNorm crashes in its backward
        # pass when its weights learn, its input does not, and it has 1024 positions or fewer (16 frames of
        # 8 x 8)
        if accelerator.device.type == "cpu" and not self.sharded and config.learn != "motion":
            # A tenth of the time
            self.trainee.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if config.checkpointing:
            for network in filter(None, (pipe.unet, pipe.reference_unet)):
                network.enable_gradient_checkpointing()
        # fused: one kernel a tensor; the plain loop costs a tenth of a step here
        optimizer = torch.optim.AdamW(
            [p for p in self.trainee.parameters() if p.requires_grad],
            lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True,
        )  # fmt: skip
        self.wrapped, self.optimizer = accelerator.prepare(self.trainee, optimizer)
        learnable = {name: p for name, p in self.trainee.named_parameters() if p.requires_grad}
        self.names, self.learnable = list(learnable), list(learnable.values())  # shards are new ones
        self.averaged = self.learnable if config.ema_decay else []
        self.ema = EMAModel(self.averaged, decay=config.ema_decay, use_ema_warmup=True, power=0.75)

    def _restore(self) -> None:
        """Go on from the newest checkpoint."""
        if saved := checkpoint.checkpoints(self.run):
            meta = checkpoint.load_checkpoint(
                saved[-1], self.trainee, _plain(self.optimizer), self.ema.shadow_params
            )
            if meta.get("frozen", "") != self.frozen:
                raise UserError(
                    f"{self.run}: its LoRA belongs to other weights than --init {self.config.init} has now"
                )
            self.step, self.before = meta["step"], meta["seconds"]
            self.ema.optimization_step = meta["ema_step"]
            self.taken = meta.get("batches", self.step * self.config.accumulation)
            self.tally, self.skipped = Tally(**meta.get("tally", {})), meta.get("skipped", 0)
            if not self.writes:
                self.tally = Tally(self.tally.losses)  # the first process has everybody's
        if self.writes:
            records.cut(self.run, self.step)

    def _loader(self) -> DataLoader:
        """The batches of this process that are still to come."""
        config, data = self.config, self.config.data
        stop = self.taken + (config.steps - self.step) * self.turn
        dataset: Any = make_dataset(config, stop * data.groups)
        if data.latents:
            with self.accelerator.main_process_first():
                dataset = latents.with_latents(self.pipe, dataset, Path(data.latents))
        turns = Turns(self.taken, stop, data.groups, self.rank, self.num_processes)
        return DataLoader(
            dataset,
            batch_size=data.groups,
            collate_fn=collate,
            num_workers=data.workers,
            sampler=turns,  # pyright: ignore[reportArgumentType]
            prefetch_factor=4 if data.workers else None,
            worker_init_fn=yield_the_cores,
        )

    def learn(self, batches: Iterator[Batch]) -> float:
        """An optimizer step; its loss. Raises UserError for one loss too many that is not a number."""
        config, accelerator = self.config, self.accelerator
        total, seen = 0.0, []
        for part in range(config.accumulation):
            number = part * self.num_processes + self.rank
            generator = torch.Generator().manual_seed(_mix(config.seed, self.step, number))
            seen.append(next(batches))
            with accelerator.accumulate(self.wrapped):
                with accelerator.autocast():
                    value = step_loss(self.wrapped, self.pipe, seen[-1], generator, config, self.tally)
                accelerator.backward(value)  # outside, or what is float32 for a reason loses it here
                total += value.item() / config.accumulation
        if self.num_processes > 1:  # one process's is everybody's: all stop at the same step
            shares = accelerator.gather(torch.tensor([total], device=accelerator.device))
            total = cast(Tensor, shares).mean().item()
        norm = cast(Tensor, accelerator.clip_grad_norm_(self.learnable, config.clip))
        # fp16 seeks its loss scale by trial and leaves out steps; at a scale below 1 it is not the scale
        seeks = accelerator.scaler is not None and accelerator.scaler.get_scale() >= 1
        sound = math.isfinite(total) and (seeks or bool(norm.isfinite()))
        self.skipped = 0 if sound else self.skipped + 1
        if self.skipped > config.skip_broken:
            name, about = f"{self.step:08d}-{self.rank}", {"rank": self.rank, "seed": config.seed}
            raise records.broken(self.run, name, seen, step=self.step, **about)
        if sound:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(config, self.step)
            self.optimizer.step()
            self.ema.step(self.averaged)
            self.tally.losses.append(total)
        elif accelerator.scaler is not None:  # fp16's has looked at the gradient, and waits for a step
            accelerator.scaler.update()
        if self.writes and not sound:
            log.warning(f"step {self.step}: its loss or gradient is not a number; left out")
        self.optimizer.zero_grad(set_to_none=True)
        self.taken += self.turn
        self.step += 1
        return total

    def write_row(self) -> None:
        """Write down the losses since the last row."""
        self._share()
        now, (then, step) = time.monotonic(), self.since
        self._write(
            {
                "targets": self.taken * self.targets,
                **self.tally.row(),
                "lr": learning_rate(self.config, self.step - 1),
                "seconds": self._seconds(),
                "targets_per_second": (self.step - step) * self.turn * self.targets / (now - then),
            }
        )
        self.tally, self.since = Tally(), (now, self.step)

    def save(self) -> None:
        """Write a checkpoint."""
        self._share()
        state = checkpoint.gather(
            self.trainee, _plain(self.optimizer), self.ema.shadow_params, keep=self.writes
        )
        if self.writes:
            meta = {
                "seconds": self._seconds(), "ema_step": self.ema.optimization_step, "frozen": self.frozen,
                "batches": self.taken, "tally": asdict(self.tally), "skipped": self.skipped,
            }  # fmt: skip
            checkpoint.save_checkpoint(self.run, self.step, state, meta)

    def publish(self) -> None:
        """Write `model/`, a sheet and its measures, with the averaged weights."""
        self._show()
        if self.writes:
            self._export()
            self._write(_sample(self.shown.to(self.accelerator.device), self.run, self.step, self.config))
        self._hide()
        self.accelerator.wait_for_everyone()

    def finish(self) -> SCDPipeline:
        """The pipeline with the averaged weights."""
        self._show()
        if self.writes and learnt(self.run) < self.step:  # killed between the last checkpoint and its model
            self._export()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.shown

    def _share(self) -> None:
        """Bring what all processes counted to the first one."""

        def added(counts: list[float]) -> list[float]:
            here = torch.tensor(counts, device=self.accelerator.device)
            return cast(Tensor, self.accelerator.reduce(here)).tolist()

        if self.num_processes > 1:
            self.tally.share(added, self.writes)

    def _show(self) -> None:
        """Bring the averaged weights into `shown`. `_hide` takes them out again."""
        if self.sharded:
            into = Trainee(self.shown) if self.writes else None
            sharding.assemble(self.names, self.ema.shadow_params or self.learnable, into)
        else:
            self.ema.store(self.averaged)
            self.ema.copy_to(self.averaged)
        self.trainee.eval()

    def _hide(self) -> None:
        if not self.sharded:
            self.ema.restore(self.averaged)
        elif self.writes:  # the VAE is shared and stays
            for network in filter(None, (self.shown.unet, self.shown.reference_unet)):
                network.to("cpu")
        self.trainee.train()

    def _export(self) -> None:
        learning.export(self.shown, self.run)
        describe(self.run, self.step, self.taken * self.targets, self._seconds())

    def _write(self, row: dict[str, float]) -> None:
        if self.writes:
            records.append(self.run, {"step": self.step, **row})
            self.accelerator.log(row, step=self.step)

    def _seconds(self) -> float:
        """That the run has taken, with the time before it was resumed."""
        return self.before + time.monotonic() - self.began


def _require_whole(config: TrainConfig, pipe: SCDPipeline, sharded: bool) -> None:
    """UserError for what is not done with shards of parameters."""
    if config.matching_weight and (sharded or pipe.reference_unet is not None):
        # What layers saw does not leave a sharded network, and two networks never see one joint pass
        what = "shards of parameters" if sharded else "a model that has a network of its own for references"
        raise UserError(f"--matching-weight: not with {what}; leave it out")
    if config.learn == "lora" and sharded:  # its base's hash and its merged copy read whole weights
        raise UserError("--learn lora: not with shards of parameters, which so few do not need")


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


def _plain(optimizer) -> torch.optim.Optimizer:
    return getattr(optimizer, "optimizer", optimizer)


if __name__ == "__main__":  # accelerate launch -m scd.train PRESET ...: `scd train` in several processes
    import sys

    from scd.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
