"""What the reference costs: a denoising step without it, with its cache, and with it read again each step.

Each round times every kind of step once, one right after the other, and the ratios are medians over rounds:
what else the machine does meanwhile slows all kinds alike and cancels.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from scd import world
from scd.backbones import unet as backbone

WARM_UP = 2  # rounds that are not counted: first calls choose kernels and take memory
NUM_PICTURES = 3  # whole pictures timed, at most


@torch.no_grad()
def bench_pipeline(
    pipe, num_rounds: int = 15, seed: int = 0, progress: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Milliseconds of one guided step (two rows) of each kind, and their ratios; seconds of a whole picture
    at the pipeline's settings; bytes of the cache and peak memory.

    `progress` is called with 1 after each of `num_rounds + WARM_UP` rounds.
    """
    size, device = pipe.config.default_size, pipe.unet.device
    scene = world.Scene.from_seed(seed)
    first, second = scene.view(0, size=size), scene.view(1, size=size)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    kinds = _steps(pipe, first, second)

    times: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(num_rounds + WARM_UP):
        for name, step in kinds.items():
            seconds = _timed(step, device)
            if number >= WARM_UP:
                times[name].append(seconds)
        if progress is not None:
            progress(1)

    def picture() -> None:
        pipe(
            reference,
            second.pose,
            size,
            size,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        )

    reference = pipe.encode_reference(first.image, first.pose)
    encoding = _timed(lambda: pipe.encode_reference(first.image, first.pose), device)
    pictures = [_timed(picture, device) for _ in range(min(NUM_PICTURES, num_rounds))]
    none, cached, again = times.values()
    memory, what = _peak_memory(device)
    return {
        "step_without_reference_ms": 1000 * statistics.median(none),
        "step_cached_ms": 1000 * statistics.median(cached),
        "step_read_again_ms": 1000 * statistics.median(again),
        "cached_over_without": _ratio(cached, none),
        "read_again_over_cached": _ratio(again, cached),
        "encode_reference_seconds": encoding,
        "picture_seconds": statistics.median(pictures),
        "cache_bytes": reference.cache.num_bytes,
        "peak_memory_bytes": memory,
        "peak_memory_of": what,
        "num_rounds": num_rounds,
        "size": size,
        "num_steps": pipe.config.default_steps,
        "guidance": pipe.config.default_guidance,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "dtype": str(pipe.unet.dtype).removeprefix("torch."),
        "num_parameters": sum(p.numel() for p in pipe.unet.parameters()),
    }  # fmt: skip


def _steps(pipe, first, second) -> dict[str, Callable[[], Any]]:
    """The three kinds of one guided step, rows [unconditional, conditional], on the same latents and pose."""
    unet, size = pipe.unet, pipe.config.default_size
    pixels = pipe._pixels(first.image)
    latents, context = pipe.encode_pictures(pixels), pipe.encode_context(pixels)
    reference_features = pipe.encode_poses([first.pose], (size, size))
    features = pipe.encode_poses([second.pose] * 2, (size, size))
    rows = torch.randn((2, *latents.shape[1:]), generator=torch.Generator().manual_seed(0)).to(latents)
    timesteps = torch.full((2,), pipe.scheduler.config.num_train_timesteps // 2, device=latents.device)
    contexts = torch.cat([torch.zeros_like(context), context])

    def extract():
        return backbone.extract(unet, latents, pipe.config.reference_timestep, reference_features, context)

    def step(cache, owner):
        return backbone.denoise(unet, rows, timesteps, features, contexts, cache, owner)

    cache = extract()
    return {
        "without": lambda: step(None, (-1, -1)),
        "cached": lambda: step(cache, (-1, 0)),
        "again": lambda: step(extract(), (-1, 0)),
    }


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds, with the accelerator's queue empty before and after."""
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def _peak_memory(device: torch.device) -> tuple[int | None, str]:
    """Bytes, and of what: tensors on CUDA, else the whole process; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "CUDA tensors"
    try:
        import resource
    except ImportError:  # Windows
        return None, "unknown"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "the process"
