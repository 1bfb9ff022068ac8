"""What the reference costs: a denoising step without it, with its cache, with it read again each step, and
with its features projected anew for every frame and step, as the code of Animate Anyone's family does.

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
from scd.attention import KVCache
from scd.backbones import unet as backbone

WARM_UP = 2  # rounds that are not counted: first calls choose kernels and take memory
NUM_PICTURES = 3  # whole pictures timed, at most


@torch.no_grad()
def bench_pipeline(
    pipe, num_rounds: int = 15, seed: int = 0, progress: Callable[[int], None] | None = None,
    num_frames: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Milliseconds of one guided step (two rows a frame) of each kind, and their ratios; seconds of a whole
    picture at the pipeline's settings; bytes of the cache, of what stands in its place where features are
    projected anew, and peak memory (on CUDA of each kind of step; elsewhere only the process's is known).

    Raises ValueError for more frames than the model's motion modules can tell apart.

    `progress` is called with 1 after each of `num_rounds + WARM_UP` rounds.
    """
    size, device = pipe.config.default_size, pipe.unet.device
    scene = world.Scene.from_seed(seed)
    first, second = scene.view(0, size=size), scene.view(1, size=size)
    kinds, held = _steps(pipe, first, second, num_frames)
    peaks = {name: _peak_of(step, device) for name, step in kinds.items()}

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
    none, cached, again, anew = times.values()
    memory, what = _peak_memory(device)
    return {
        "step_without_reference_ms": 1000 * statistics.median(none),
        "step_cached_ms": 1000 * statistics.median(cached),
        "step_read_again_ms": 1000 * statistics.median(again),
        "step_projected_anew_ms": 1000 * statistics.median(anew),
        "cached_over_without": _ratio(cached, none),
        "read_again_over_cached": _ratio(again, cached),
        "projected_anew_over_cached": _ratio(anew, cached),
        "encode_reference_seconds": encoding,
        "picture_seconds": statistics.median(pictures),
        "cache_bytes": reference.cache.num_bytes,
        "features_of_all_frames_bytes": held,
        **{f"peak_{name}_bytes": peak for name, peak in peaks.items() if peak is not None},
        "peak_memory_bytes": memory,
        "peak_memory_of": what,
        "num_rounds": num_rounds,
        "num_frames": num_frames,
        "size": size,
        "num_steps": pipe.config.default_steps,
        "guidance": pipe.config.default_guidance,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "dtype": str(pipe.unet.dtype).removeprefix("torch."),
        "num_parameters": sum(p.numel() for p in pipe.unet.parameters()),
    }  # fmt: skip


def _steps(pipe, first, second, num_frames: int) -> tuple[dict[str, Callable[[], Any]], int]:
    """The four kinds of one guided step, rows [unconditional, conditional], on the same latents and pose; and
    the bytes of features that are held to be projected anew."""
    unet, size = pipe.unet, pipe.config.default_size
    pixels = pipe._pixels(first.image)
    latents, context = pipe.encode_pictures(pixels), pipe.encode_context(pixels)
    own_pose = pipe.encode_poses([first.pose], (size, size)) if pipe.config.reference_pose else None
    features = pipe.encode_poses([second.pose] * 2 * num_frames, (size, size))
    rows = torch.randn((2 * num_frames, *latents.shape[1:]), generator=torch.Generator().manual_seed(0))
    rows = rows.to(latents)
    timesteps = torch.full(
        (len(rows),), pipe.scheduler.config.num_train_timesteps // 2, device=latents.device
    )
    contexts = torch.cat([torch.zeros_like(context), context]).repeat_interleave(num_frames, 0)
    shown = latents, pipe.config.reference_timestep, own_pose, context
    nobody = (-1,) * num_frames

    def step(cache, owner):
        return backbone.denoise(unet, rows, timesteps, features, contexts, cache, nobody + owner, num_frames)

    def extract():
        return backbone.extract(unet, *shown, pipe.reference_unet)

    # A group for every frame: what a layer reads is projected as often as there are frames
    collected = backbone.collect(pipe.reference_unet or unet, *shown)
    of_frames = KVCache.stack([collected] * num_frames)
    cache, one = extract(), (0,) * num_frames
    return {
        "without": lambda: step(None, nobody),
        "cached": lambda: step(cache, one),
        "again": lambda: step(extract(), one),
        "anew": lambda: step(of_frames, tuple(range(num_frames))),
    }, of_frames.num_bytes


def _peak_of(work: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes of tensors at most during `work`, on CUDA; None elsewhere."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device)


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
