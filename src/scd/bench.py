"""What the reference costs: a denoising step without it, with its cache, with it read again each step, and
with its features projected anew for every frame and step, as the code of Animate Anyone's family does.

Each round times every kind of step once, one right after the other, and the ratios are medians over rounds:
what else the machine does meanwhile slows all kinds alike and cancels. Where it works in fits and starts,
ratios of processor time tell more, best with one thread (OMP_NUM_THREADS=1). Memory is measured before, one
kind at a time: of the others nothing is held then but the networks.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from scd import world
from scd.attention import KVCache
from scd.backbones import unet as backbone

KINDS = ("without", "cached", "again", "anew")
WARM_UP = 2  # calls of each kind that are not timed: the first is counted, the second tells its memory
NUM_PICTURES = 3  # whole pictures timed, at most

# Makes what a kind of step holds from step to step; the step, and the bytes of that
Maker = Callable[[], tuple[Callable[[], Any], int]]


@torch.no_grad()
def bench_pipeline(
    pipe, num_rounds: int = 15, seed: int = 0, progress: Callable[[int], None] | None = None,
    num_frames: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Milliseconds of one guided step (two rows a frame) of each kind, and their ratios, on the CPU those of
    processor time too; its floating-point operations, which no other load can change; seconds of a whole
    picture at the pipeline's settings; bytes of the cache, of what stands in its place where features are
    projected anew, and peak memory, of each kind of step and of all.

    Peaks are of tensors on CUDA; on the CPU of the process, its networks and libraries included, which Linux
    alone tells for each kind. None where nobody tells.

    `progress` is called with 1 after each of `len(KINDS) * (num_rounds + WARM_UP)` steps. Raises ValueError
    for more frames than the model's motion modules can tell apart.
    """
    size, device = pipe.config.default_size, pipe.unet.device
    on_cpu = device.type == "cpu"
    scene = world.Scene.from_seed(seed)
    first, second = scene.view(0, size=size), scene.view(1, size=size)
    makers = _makers(pipe, first, second, num_frames)
    advance = progress or (lambda _: None)

    flops, peaks, highest = {}, {}, []
    for name in KINDS:
        step, _ = makers[name]()
        flops[name] = _flops_of(step)
        advance(1)
        highest.append(_peak_memory(device)[0])  # measuring a kind begins a new count
        peaks[name] = _peak_of(step, device)
        advance(1)
        del step

    made = {name: makers[name]() for name in KINDS}
    times: dict[str, list[float]] = {name: [] for name in KINDS}
    processor: dict[str, list[float]] = {name: [] for name in KINDS}
    for _ in range(num_rounds):
        for name in KINDS:
            began = time.process_time()
            times[name].append(_timed(made[name][0], device))
            processor[name].append(time.process_time() - began)
            advance(1)
    held = {name: num_bytes for name, (_, num_bytes) in made.items()}
    del made

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
    memory, what = _peak_memory(device)
    known = [peak for peak in (memory, *highest, *peaks.values()) if peak is not None]
    return {
        "step_without_reference_ms": 1000 * statistics.median(times["without"]),
        "step_cached_ms": 1000 * statistics.median(times["cached"]),
        "step_read_again_ms": 1000 * statistics.median(times["again"]),
        "step_projected_anew_ms": 1000 * statistics.median(times["anew"]),
        **_ratios(times),
        **({f"{name}_cpu": ratio for name, ratio in _ratios(processor).items()} if on_cpu else {}),
        **{f"flops_{name}": count for name, count in flops.items()},
        "encode_reference_seconds": encoding,
        "picture_seconds": statistics.median(pictures),
        "cache_bytes": held["cached"],
        "features_of_all_frames_bytes": held["anew"],
        **{f"peak_{name}_bytes": peak for name, peak in peaks.items()},
        "peak_memory_bytes": max(known, default=None),
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


def _makers(pipe, first, second, num_frames: int) -> dict[str, Maker]:
    """Of the four kinds of one guided step, rows [unconditional, conditional], on the same latents and
    pose."""
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
    nobody, one = (-1,) * num_frames, (0,) * num_frames

    def step(cache, owner):
        return backbone.denoise(unet, rows, timesteps, features, contexts, cache, nobody + owner, num_frames)

    def extract():
        return backbone.extract(unet, *shown, pipe.reference_unet)

    def without():
        return lambda: step(None, nobody), 0

    def cached():
        cache = extract()
        return lambda: step(cache, one), cache.num_bytes

    def again():
        return lambda: step(extract(), one), 0

    def anew():
        # A group for every frame: what a layer reads is projected as often as there are frames
        collected = backbone.collect(pipe.reference_unet or unet, *shown)
        of_frames = KVCache.stack([collected] * num_frames)
        return lambda: step(of_frames, tuple(range(num_frames))), of_frames.num_bytes

    return dict(zip(KINDS, (without, cached, again, anew), strict=True))


def _flops_of(work: Callable[[], Any]) -> int:
    """Of convolutions, matrix products and attention, as torch counts them."""

    def attention(query, key, value, *_, **__) -> int:
        return sdpa_flop_count(query, key, value)

    # It knows the kernels of accelerators; the CPU's it would leave out
    known = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        work()
    return counter.get_total_flops()


def _peak_of(work: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes at most during `work`: of tensors on CUDA, of the process on the CPU where Linux begins a new
    count; else None."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    counted = device.type == "cpu" and sys.platform == "linux" and _count_anew()
    work()
    return _peak_memory(device)[0] if counted else None


def _count_anew() -> bool:
    """Begin a new count of this process's peak resident memory (Linux, proc(5): clear_refs); False where the
    system does not let it."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # glibc's; it keeps what was freed, which counts as resident
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


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


def _ratios(times: dict[str, list[float]]) -> dict[str, float]:
    return {
        "cached_over_without": _ratio(times["cached"], times["without"]),
        "read_again_over_cached": _ratio(times["again"], times["cached"]),
        "projected_anew_over_cached": _ratio(times["anew"], times["cached"]),
    }


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
