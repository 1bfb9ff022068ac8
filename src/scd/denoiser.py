"""The guided prediction of one call: whole clips, window by window, each row reading its reference
(METHOD 3, 5).

A picture is a clip of one frame. What stands on the execution device at once is one window; the state of a
clip of several windows stays on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scd import process
from scd.backbones import unet as backbone
from scd.reference import Reference
from scd.types import Pose
from scd.windows import Window, windows


class Denoiser:
    """N clips of T poses each, and the reference (one for all, or one each) that their frames read."""

    def __init__(
        self, pipe: Any, reference: Reference | None, clips: Sequence[Sequence[Pose]], size: tuple[int, int],
        guidance: float, window: int, overlap: int,
    ):  # fmt: skip
        """pipe: the networks and encoders. size: (height, width) in pixels. guidance: 1 or less is none, as
        in diffusers, and computes nothing twice. window, overlap: frames, for clips that are longer. Raises
        ValueError for an overlap that leaves no stride."""
        self.pipe, self.reference, self.clips, self.size = pipe, reference, clips, size
        self.guidance = guidance  # may change between two calls
        self.window, self.overlap = window, overlap
        self.num, self.num_frames = len(clips), len(clips[0])
        self.one_window = len(windows(self.num_frames, window, overlap)) == 1
        # With one window the features are the same at every step; else they are made anew and dropped
        self.features = None
        if self.one_window:
            self.features = pipe.encode_poses([pose for clip in clips for pose in clip], size)

    @property
    def home(self) -> tuple[torch.device, torch.dtype]:
        """Where the loop's state lives, and as what: long clips in float32 on the host."""
        if self.one_window:
            return self.pipe._execution_device, self.pipe.unet.dtype
        return torch.device("cpu"), torch.float32

    @property
    def guided(self) -> bool:
        return self.guidance > 1 and self.reference is not None

    def __call__(self, state: Tensor, t: Tensor, step: int) -> Tensor:
        """The guided prediction for a state (N, T, C, h, w), scaled as the scheduler wants it, at timestep t,
        the `step`-th of the loop: the same shape."""
        if self.one_window:
            return self._predict(state, t, self.features, self.num_frames)
        out = torch.zeros_like(state)
        for part in windows(self.num_frames, self.window, self.overlap, step):
            poses = [pose for clip in self.clips for pose in _frames(clip, part)]
            features = self.pipe.encode_poses(poses, self.size)
            prediction = self._predict(state[:, part.frames], t, features, part.stop - part.start)
            out[:, part.frames] += part.weights[:, None, None, None] * prediction.to(out)
        return out

    def _predict(self, state: Tensor, t: Tensor, features: Tensor | None, num_frames: int) -> Tensor:
        """One window of all clips (N, W, C, h, w): rows are [unconditional, conditional] when guided."""
        unet, device = self.pipe.unet, self.pipe._execution_device
        assert features is not None
        rows = state.flatten(0, 1).to(device, unet.dtype)
        context, owner, cache = self._reading(num_frames)
        if self.guided:
            rows, features = torch.cat([rows, rows]), torch.cat([features, features])
        timesteps = t.to(device).repeat(len(rows))
        out = backbone.denoise(unet, rows, timesteps, features, context, cache, owner, num_frames)
        if self.guided:
            free, read = out.chunk(2)
            out = process.guide(free, read, self.guidance)
        return out.unflatten(0, (self.num, num_frames))

    def _reading(self, num_frames: int) -> tuple[Tensor, tuple[int, ...], Any]:
        """Context rows, each row's owner and the cache (METHOD 3). All frames of a clip read one group: the
        cache holds a reference once, however many frames there are."""
        unet, num_rows = self.pipe.unet, self.num * num_frames
        if self.reference is None:
            zero = torch.zeros(num_rows, 1, unet.config.cross_attention_dim, dtype=unet.dtype)
            return zero.to(self.pipe._execution_device), (-1,) * num_rows, None
        # One group for all, or one for each pose, whose pictures are in a row
        groups = [n * self.reference.num_groups // self.num for n in range(self.num)]
        owner = tuple(group for group in groups for _ in range(num_frames))
        context = self.reference.context[list(owner)]
        if self.guided:
            context, owner = torch.cat([torch.zeros_like(context), context]), (-1,) * num_rows + owner
        return context, owner, self.reference.cache


def _frames(clip: Sequence[Pose], part: Window) -> list[Pose]:
    return [clip[i] for i in range(part.start, part.stop)]
