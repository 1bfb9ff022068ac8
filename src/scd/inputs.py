"""What a call of the pipeline is given, brought into one shape: a picture is a clip of one frame, and every
clip has its own generator."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scd.data.buckets import Buckets
from scd.types import Pose, PoseClip

log = logging.getLogger("scd")
STRETCHED = 1.1  # of the sides' ratios: from here on people look fat or thin


def as_clips(poses: Any, times: int = 1) -> tuple[bool, Sequence[Any]]:
    """Whether clips were asked for, and the poses as N clips, each `times` in a row; a picture is a clip of
    one frame. Raises ValueError."""
    if isinstance(poses, Pose | PoseClip):
        poses = [poses]
    poses = [pose for pose in poses or () for _ in range(times)]
    if not poses or any(isinstance(p, PoseClip) and len(p) == 0 for p in poses):
        raise ValueError("no poses: give a Pose, a PoseClip, or a list of them")
    if strange := [type(p).__name__ for p in poses if not isinstance(p, Pose | PoseClip)]:
        raise ValueError(
            f"a pose is a Pose or a PoseClip, not {strange[0]}; a pose that is not known, None, needs person "
            "and region"
        )
    if not any(isinstance(p, PoseClip) for p in poses):
        return False, [[pose] for pose in poses]
    if len({len(p) if isinstance(p, PoseClip) else 0 for p in poses}) > 1:
        raise ValueError("clips of one call have one length; call once for each")
    return True, poses


def painted_size(config: Any, height: int | None, width: int | None, pose: Pose) -> tuple[int, int]:
    """(height, width) of what is painted: what was asked for, else where the model is at home for pictures
    like the pose's. A line says so when the pose is stretched by it."""
    at_home = pose.size if config.default_size is None else Buckets.of(config).nearest(*pose.size)
    size = (height or at_home[0], width or at_home[1])
    if abs(math.log(size[0] / size[1] * pose.size[1] / pose.size[0])) > math.log(STRETCHED):
        log.warning(
            "a pose of a picture of %d x %d is stretched to %d x %d; keep its shape: "
            "scd.media.place(pose.size, size).apply_to_pose(pose)", *pose.size, *size,
        )  # fmt: skip
    return size


def outside(state: Tensor, is_clip: bool) -> Tensor:
    """The loop's state (N, T, C, h, w) as diffusers has it: (N, C, T, h, w), of pictures (N, C, h, w)."""
    return state.transpose(1, 2) if is_clip else state.squeeze(1)


def inside(latents: Tensor, is_clip: bool) -> Tensor:
    return latents.transpose(1, 2) if is_clip else latents.unsqueeze(1)


def initial_latents(
    pipe: Any, latents: Tensor | None, shape: tuple[int, int], is_clip: bool, size: tuple[int, int],
    generators: Sequence[torch.Generator | None], home: tuple[torch.device, torch.dtype],
) -> Tensor:  # fmt: skip
    """The state (N, T, C, h, w) before the first step, of unit variance, for `shape` (N, T) pictures of
    `size` (H, W) pixels: what was given, or noise. Raises ValueError for another shape."""
    channels, factor = pipe.unet.config.in_channels, pipe.vae_scale_factor
    whole = (*shape, channels, size[0] // factor, size[1] // factor)
    if latents is not None:
        expected = outside(torch.empty(whole, device="meta"), is_clip).shape
        if latents.shape != expected:
            raise ValueError(f"latents have shape {tuple(latents.shape)}, not {tuple(expected)}")
        return inside(latents, is_clip).to(*home)
    # Each clip's noise comes from its own generator, on that generator's device: the same on every machine;
    # and frame by frame, so that a frame's does not depend on how many follow
    draws = 1 if pipe.config.shared_noise else shape[1]
    noise = [
        torch.stack([
            torch.randn(whole[2:], generator=g, device=g.device if g else None, dtype=torch.float32)
            for _ in range(draws)
        ]).expand(shape[1], -1, -1, -1)
        for g in generators
    ]  # fmt: skip
    return torch.stack([n.to(*home) for n in noise])


def split_generator(generator, num: int) -> list[torch.Generator | None]:
    """N generators from one, by index: number i is the same whatever N is. A list of N passes through; None
    stays unseeded.

    Number 0 is the given generator itself, so that one picture is the same with `generator=g` and
    `generator=[g]`; the others are seeded from a copy of its state.
    """
    if generator is None:
        return [None] * num
    if isinstance(generator, list | tuple):
        if len(generator) != num:
            raise ValueError(f"{len(generator)} generators for {num} pictures")
        return list(generator)
    if not isinstance(generator, torch.Generator):
        raise ValueError(f"generator is torch.Generator().manual_seed(0), or a list, not {generator!r}")
    base = _seed_of(generator)
    seeds = [
        int(np.random.SeedSequence([base, i]).generate_state(1, np.uint64)[0]) >> 1 for i in range(1, num)
    ]
    return [generator, *(torch.Generator(generator.device).manual_seed(seed) for seed in seeds)]


def on_device(
    generators: Sequence[torch.Generator | None], device: torch.device
) -> list[torch.Generator | None]:
    """Generators that can draw there what a scheduler adds: of a CUDA generator, for a clip that lies on the
    host, another one, seeded from its state."""

    def moved(generator: torch.Generator) -> torch.Generator:
        return torch.Generator(device).manual_seed(_seed_of(generator))

    return [g if g is None or g.device.type in ("cpu", device.type) else moved(g) for g in generators]


def _seed_of(generator: torch.Generator) -> int:
    """A seed from a copy of its state, which stays."""
    copy = torch.Generator(generator.device)
    copy.set_state(generator.get_state())
    return int(torch.randint(2**62, (), generator=copy, device=copy.device))


def same_for_frames(generators: Sequence[torch.Generator], num_frames: int) -> list[torch.Generator]:
    """A generator for each of N clips' T frames, (N T): the clip's own for its first frame, and copies of it,
    which draw the same, for the others."""

    def copy(generator: torch.Generator) -> torch.Generator:
        return torch.Generator(generator.device).set_state(generator.get_state())

    return [g if frame == 0 else copy(g) for g in generators for frame in range(num_frames)]
