"""`scd train`: a preset with overrides, its run folder, and a Ctrl-C that leaves the run whole."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from math import inf
from operator import attrgetter
from pathlib import Path

from scd.cli.data import ready, with_kind
from scd.cli.options import Train
from scd.cli.signals import HANG_UP, answering
from scd.cli.terminal import no_bars_of_loading, progress
from scd.config import PICTURES, PRESETS, SCRATCH, TRYON, TrainConfig
from scd.types import UserError

log = logging.getLogger("scd")


# The least and the most that a setting may be; of several values each
_RANGES = (
    ("steps", 1, inf),
    ("data.groups", 1, inf),
    ("data.targets", 1, inf),
    ("data.reuse", 1, inf),
    ("data.frames", 1, inf),
    ("data.strides", 1, inf),
    ("data.gap", 0, inf),
    ("data.workers", 0, inf),
    ("data.exact", 0, 1),
    ("data.moving", 0, 1),
    ("accumulation", 1, inf),
    ("log-every", 1, inf),
    ("sample-every", 1, inf),
    ("sample-pictures", 0, inf),
    ("save-every", 1, inf),
    ("overfit", 0, inf),
    ("seed", 0, inf),
    ("lr", 0, 1e3),
    ("warmup", 0, inf),
    ("cooldown", 0, inf),
    ("betas", 0, 0.999999),
    ("weight-decay", 0, 1e3),
    ("ema-decay", 0, 0.999999),
    ("clip", 1e-9, inf),
    ("skip-broken", 0, inf),
    ("drop-reference", 0, 1),
    ("own-predictions", 0, 1),
    ("noise-offset", 0, 10),
    ("timestep-shift", 0.1, 1e3),
    ("head-weight", 0, 1e6),
    ("matching-weight", 0, 1e6),
    ("change-weight", 0, 1e6),
    ("lora-rank", 1, inf),
    ("motion-heads", 1, inf),
    ("network.block-out-channels", 32, inf),
    ("network.layers-per-block", 1, inf),
    ("network.head-channels", 1, inf),
    ("network.patch-size", 1, inf),
    ("network.latent-channels", 1, inf),
    ("network.whitening", 0, 1),
    ("network.codec-pictures", 1, inf),
    ("network.pose-channels", 1, inf),
    ("network.pose-dilations", 1, inf),
    ("network.body-steps", 0, inf),
    ("network.pose-stride", 1, inf),
    ("network.pose-frequencies", 0, inf),
    ("network.beta-start", 1e-9, 0.999999),
    ("network.beta-end", 1e-9, 0.999999),
)


def _require_ranges(config: TrainConfig) -> None:
    for name, least, most in _RANGES:
        value = attrgetter(name.replace("-", "_"))(config)
        values = value if isinstance(value, tuple) else (value,)
        said = f"--{name} {' '.join(map(str, values))}"
        if not values and name != "network.pose-dilations":
            raise UserError(f"--{name}: one value at least")
        if not all(least <= one for one in values):  # so written, what is no number fails too
            raise UserError(f"{said}: {least} at least")
        if not all(one <= most for one in values):
            raise UserError(f"{said}: {most:g} at most")


def _require_sense(config: TrainConfig) -> None:
    """UserError for settings that mean nothing, alone or together."""
    _require_ranges(config)
    data = config.data
    for name in ("tasks", "references", "garments"):
        chances = getattr(data, name)
        if abs(sum(chances) - 1) > 1e-6 or min(chances) < 0:
            raise UserError(f"--data.{name} {' '.join(map(str, chances))}: chances have to sum to 1")
    drawn, clips = data.kind == "world", data.frames > 1
    network, scratch = config.network, config.init == SCRATCH
    levels = network.block_out_channels
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
        (scratch and any(channels % 32 or channels % network.head_channels for channels in levels),
         f"--network.block-out-channels {' '.join(map(str, levels))}: multiples of 32 and of "
         "--network.head-channels"),
        (scratch and not len(levels) == len(network.attention_down) == len(network.attention_up),
         "--network.block-out-channels, .attention-down and .attention-up: as many values each"),
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

    from scd import overfit
    from scd.checkpoint import checkpoints, put_back, step_of
    from scd.machine import processes, trackers
    from scd.model import require_init, resolve_device, start
    from scd.run_folder import is_marked, is_own, learnt, require_room
    from scd.train import train as run_training

    no_bars_of_loading()
    run = options.run_folder or Path("run") / config.name
    device = resolve_device(options.device)
    state = processes(device)
    if device.type == "cuda" and state.num_processes > 1:
        device = state.device  # one each
    if state.is_main_process and is_marked(run):
        put_back(run / "model")
    state.wait_for_everyone()
    if is_own(run, config) and (done := learnt(run)) >= config.steps:
        if state.is_main_process:
            log.info("%s: has its %d steps already; give more --steps to go on, or another --run", run, done)
            print(run / "model")
        return  # so that a script of several stages can be run again
    with state.main_process_first():  # who finds what there is to find
        if state.is_main_process:  # what would stop the run, before poses are looked for
            trackers(config.tracker)
            require_room(run, config)
            if config.learn == "lora" or not is_own(run, config):
                require_init(config)
        config = replace(config, data=ready(config.data))
    # The first process writes the model, and the others read it
    with progress("making the model", None), state.main_process_first():
        pipe = start(config, run, state.is_main_process).to(device)
    begun = checkpoints(run)
    if config.overfit and state.is_main_process:
        overfit.remember(config, run, pipe)
    first = step_of(begun[-1]) if begun else 0
    try:
        silent = nullcontext(lambda *_, **__: None)
        bar = progress("training", config.steps, "steps", first) if state.is_main_process else silent
        with bar as advance, _stopping_between_steps() as stopped:
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
    """What the trainer calls after each step: the bar, and the moment to stop."""
    began = time.monotonic()
    average: float | None = None

    def report(step: int, loss: float) -> None:
        nonlocal average
        if math.isfinite(loss):  # else the step was left out
            average = loss if average is None else average + (loss - average) / 20
        seconds = max(time.monotonic() - began, 1e-9)
        rate = (step - first) * config.targets_per_step * state.num_processes / seconds
        advance(1, text=f"loss {math.nan if average is None else average:.4f}, {rate:.1f} targets/s")
        if stopped():
            raise KeyboardInterrupt

    return report


@contextmanager
def _stopping_between_steps() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C, polite kill or hang-up is only noted, so that no file is cut off; a second
    one acts at once. So does the first, until the function that this gives is called, after a step: before
    the first one latents may be encoded, for hours."""
    noted = asked = False

    def note() -> None:
        nonlocal noted
        if noted or not asked:
            raise KeyboardInterrupt
        noted = True

    def stopped() -> bool:
        nonlocal asked
        asked = True
        return noted

    with answering(note, [signal.SIGINT, signal.SIGTERM, *HANG_UP]):  # a cluster sends the second
        yield stopped
