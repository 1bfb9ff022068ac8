"""`scd train`: a preset with overrides, its run folder, and a Ctrl-C that leaves the run whole."""

from __future__ import annotations

import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

from scd.cli.data import ready, with_kind
from scd.cli.options import Train
from scd.cli.terminal import QUIET_SECONDS, no_bars_of_loading, progress
from scd.config import PICTURES, PRESETS, TRYON, TrainConfig
from scd.types import UserError

log = logging.getLogger("scd")


# The least that a setting may be
_LEAST = (
    ("steps", 1),
    ("data.groups", 1),
    ("data.targets", 1),
    ("data.reuse", 1),
    ("data.frames", 1),
    ("accumulation", 1),
    ("log-every", 1),
    ("sample-every", 1),
    ("save-every", 1),
    ("clip", 1e-9),
    ("skip-broken", 0),
    ("matching-weight", 0),
    ("own-predictions", 0),
    ("data.exact", 0),
    ("data.moving", 0),
    ("network.codec-pictures", 1),
    ("timestep-shift", 0.1),
)


def _require_sense(config: TrainConfig) -> None:
    """UserError for settings that mean nothing, alone or together."""
    for name, least in _LEAST:
        value = attrgetter(name.replace("-", "_"))(config)
        if value < least:
            raise UserError(f"--{name} {value}: {least} at least")
    data = config.data
    for name in ("tasks", "references", "garments"):
        chances = getattr(data, name)
        if abs(sum(chances) - 1) > 1e-6 or min(chances) < 0:
            raise UserError(f"--data.{name} {' '.join(map(str, chances))}: chances have to sum to 1")
    drawn, clips = data.kind == "world", data.frames > 1
    for wrong, said in (
        (clips and data.tasks[PICTURES] != 1,
         "--data.tasks: clips show people as they are; leave it out with --data.frames"),
        (config.matching_weight and (clips or config.reference_network != "same"),
         "--matching-weight: for pictures and one network; leave it out"),
        (config.matching_weight and (data.is_tryon or data.tasks[TRYON] == 1),
         "--matching-weight: for people who are painted whole, not for try-on; leave it out"),
        (data.exact and (not drawn or not data.augment),
         "--data.exact: of the drawn world's poses, with --data.augment; leave it out"),
        (data.moving and (not drawn or clips),
         "--data.moving: of the drawn world's pictures, not of clips; leave it out"),
        (not drawn and not data.is_tryon and data.tasks[PICTURES] != 1 and not data.tryon,
         "--data.tasks: real clips have pictures alone; --data.tryon names pairs to mix in"),
        (config.head_weight != 1 and data.is_tryon,
         "--head-weight: pairs for try-on do not say where heads are; leave it out"),
        (config.learn == "motion" and not clips,
         "--learn motion: temporal layers learn from clips; give --data.frames, as in --data.frames 16"),
        (config.motion_adapter and config.learn != "motion",
         "--motion-adapter: of stage 2, with --learn motion; leave it out"),
        (config.change_weight and not clips,
         "--change-weight: between the frames of clips, and --data.frames is 1; leave it out"),
        (data.size < 32 or data.size % 8,
         f"--data.size {data.size}: a multiple of 8, 32 at least"),
    ):  # fmt: skip
        if wrong:
            raise UserError(said)


def _of_its_data(config: TrainConfig) -> TrainConfig:
    """The config with the kind of data that `--data` names, without what a preset of the drawn world says of
    drawn people alone: pairs do not say where heads are, and clips have one task."""
    data = with_kind(config.data)
    preset = PRESETS.get(config.name, config)
    if preset.data.kind == "world" and data.is_tryon and config.head_weight == preset.head_weight:
        config = replace(config, head_weight=1.0)
    if preset.data.kind == "world" != data.kind and not data.tryon and data.tasks == preset.data.tasks:
        data = replace(data, tasks=(1.0, 0.0, 0.0))
    return replace(config, data=data)


def train(options: Train) -> None:
    """Run the verb. Raises UserError; KeyboardInterrupt with how to go on."""
    config = _of_its_data(options.config)
    _require_sense(config)
    if options.dry_run:
        from scd.cli.dry_run import dry_run
        from scd.model import resolve_device

        dry_run(replace(config, data=ready(config.data, look=False)), resolve_device(options.device))
        return

    from scd import overfit, records
    from scd.checkpoint import checkpoints, step_of
    from scd.machine import processes
    from scd.model import resolve_device, start
    from scd.train import train as run_training

    no_bars_of_loading()
    run = options.run_folder or Path("run") / config.name
    device = resolve_device(options.device)
    state = processes(device)
    if device.type == "cuda" and state.num_processes > 1:
        device = state.device  # one each
    with state.main_process_first():  # who finds what there is to find
        config = replace(config, data=ready(config.data))
    # The first process writes the model, and the others read it
    with progress("making the model", None), state.main_process_first():
        pipe = start(config, run, state.is_main_process).to(device)
    begun = checkpoints(run)
    if config.overfit and state.is_main_process:
        overfit.remember(config, run, pipe)
    first = step_of(begun[-1]) if begun else 0
    # A kill after the last checkpoint leaves an older model, and the same command writes the new one
    if first >= config.steps and records.learnt(run) >= first:
        log.info("%s: has its %d steps already; give more --steps to go on, or another --run", run, first)
        print(run / "model")
        return  # so that a script of several stages can be run again
    try:
        silent = nullcontext(lambda *_, **__: None)
        bar = progress("training", config.steps) if state.is_main_process else silent
        with bar as advance, _stopping_between_steps() as stopped:
            advance(first)
            trained = run_training(config, run, pipe, _reporter(config, state, first, advance, stopped))
    except KeyboardInterrupt:
        saved = checkpoints(run)
        where = f"continues after step {step_of(saved[-1])}" if saved else "starts again"
        raise KeyboardInterrupt(f"interrupted; the same command {where}") from None
    if state.is_main_process:
        print(run / "model")
        if config.overfit:
            print(overfit.verdict(config, run, trained))


def _reporter(
    config, state, first: int, advance: Callable[..., None], stopped: Callable[[], bool]
) -> Callable[[int, float], None]:
    """What the trainer calls after each step: the bar, or now and then a line of the first process; and the
    moment to stop."""
    began = spoken = time.monotonic()
    average: float | None = None

    def report(step: int, loss: float) -> None:
        nonlocal spoken, average
        if math.isfinite(loss):  # else the step was left out
            average = loss if average is None else average + (loss - average) / 20
        now = time.monotonic()
        rate = (step - first) * config.targets_per_step * state.num_processes / max(now - began, 1e-9)
        text = f"loss {math.nan if average is None else average:.4f}, {rate:.1f} targets/s"
        advance(1, text=text)
        if state.is_main_process and not sys.stderr.isatty() and now - spoken > QUIET_SECONDS:
            spoken = now
            left = (config.steps - step) * (now - began) / (step - first)
            print(f"step {step} of {config.steps}, {text}, {left / 60:.0f} min left", file=sys.stderr)
        if stopped():
            raise KeyboardInterrupt

    return report


@contextmanager
def _stopping_between_steps() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C, or the first polite kill, is only noted, so that no file is cut off; a second
    one acts at once."""
    noted = False

    def note(*_) -> None:
        nonlocal noted
        if noted:
            raise KeyboardInterrupt
        noted = True

    told = (signal.SIGINT, signal.SIGTERM)  # a cluster sends the second
    before = [signal.signal(number, note) for number in told]
    try:
        yield lambda: noted
    finally:
        for number, handler in zip(told, before, strict=True):
            signal.signal(number, handler)
