"""What a training run asks of the machine: its processes, its precision, its trackers, memory that stays,
cores for those who wait."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    DistributedDataParallelKwargs,
    GradientAccumulationPlugin,
    LoggerType,
    ProjectConfiguration,
    is_tensorboard_available,
)

from scd.backbones.motion import has_motion
from scd.config import TrainConfig
from scd.pipeline import SCDPipeline
from scd.types import UserError


def processes(device: torch.device) -> PartialState:
    """This process among those of `accelerate launch`. The first one encodes, paints and writes while the
    others wait, which may take longer than the half hour that torch gives them."""
    options: dict[str, Any] = {"cpu": device.type == "cpu"}
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        options["timeout"] = timedelta(days=1)
    return PartialState(**options)


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


def accelerator_of(config: TrainConfig, run: Path, pipe: SCDPipeline) -> Accelerator:
    """What runs the steps of a run. Raises UserError for a tracker that is not there."""
    processes(pipe.device)
    # Pictures never enter temporal layers; several processes would wait for their gradients
    silent = has_motion(pipe.unet) and config.data.frames == 1
    return Accelerator(
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=silent)],
        mixed_precision=resolve_precision(config.precision, pipe.device),
        # As a plugin: of two, the number in the environment would win over the plain argument
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.accumulation),
        log_with=trackers(config.tracker),
        project_config=ProjectConfiguration(project_dir=str(run), logging_dir=str(run)),
        cpu=pipe.device.type == "cpu",
    )


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


def yield_the_cores(worker: int) -> None:
    """Of a process that reads data. Let rendering run only while the network waits: every layer waits for its
    slowest thread, so a renderer beside two compute threads cost 15 % more than its own time. And let the
    training process alone decide when to stop: Ctrl-C and a cluster's SIGTERM reach all of them."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no third
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(os, "nice"):  # not on Windows
        os.nice(19)


def keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks instead of returning them to the system after every layer: the page
    faults of taking them anew made a CPU step 4.1 s instead of 0.87 s. Elsewhere than on glibc nothing
    happens."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD
        for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 1 << 28)):
            libc.mallopt(option, value)
