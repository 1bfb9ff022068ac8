"""Painting in a region of a given picture (METHOD 6): the network sees the rest as it is, at every step, and
the rest comes out as it went in.

A whole picture is the special case M = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from scd.encoders import as_pixels
from scd.pose.skeleton import empty_pose
from scd.region import HALF, latent_region, paste_back
from scd.types import PoseClip, Region

AnyRegion = Region | Image.Image  # (H, W) bool, True = generate; PIL of mode L or 1, white = generate


@dataclass(frozen=True)
class Canvas:
    """The persons of one call and where each is painted, on both grids: latents and pixels."""

    z_0: Tensor  # (N, 1, C, h, w) latents of the persons, the posterior's mode
    region: Tensor  # (N, 1, 1, h, w) bool, M on the latent grid: True = generate
    pixels: Sequence[NDArray[np.float32]]  # N persons (H, W, 3) in [0, 1]
    regions: Sequence[Region]  # N (H, W)

    @classmethod
    def of(cls, pipe: Any, person: Any, region: Any, num: int, times: int = 1) -> Canvas:
        """Of `num` pictures, `times` in a row for each pose. person, region: one for all poses, or one each.
        Raises ValueError for counts and sizes that do not fit."""
        pixels = [as_pixels(picture, pipe.vae_scale_factor) for picture in _several(person)]
        regions = [_as_region(one) for one in _several(region)]
        for name, given in (("persons", pixels), ("regions", regions)):
            if len(given) not in (1, num // times):
                raise ValueError(f"{len(given)} {name} for {num // times} poses: one for all, or one each")
        height, width = pixels[0].shape[1:]
        sizes = [("person", p.shape[1:]) for p in pixels] + [("region", r.shape) for r in regions]
        for name, (h, w) in sizes:
            if (h, w) != (height, width):
                raise ValueError(f"a {name} of {h} x {w} pixels does not fit a person of {height} x {width}")
        # One by one: a person's latents do not depend on who else is in the call
        device = pipe._execution_device
        z_0 = torch.cat([pipe.encode_pictures(p[None].to(device) * 2 - 1) for p in pixels])
        inside = torch.from_numpy(latent_region(np.stack(regions), pipe.vae_scale_factor)).to(device)
        return cls(
            z_0[:, None].repeat_interleave(num // len(z_0), 0),
            inside[:, None, None].repeat_interleave(num // len(inside), 0),
            [p.permute(1, 2, 0).cpu().numpy() for p in pixels for _ in range(num // len(pixels))],
            [one for one in regions for _ in range(num // len(regions))],
        )

    def compose(self, latents: Tensor) -> Tensor:
        """M * latents + (1 - M) * z_0, exact on either side: the model's input at every step, scaled as the
        scheduler wants it, and the state after the last one."""
        return torch.where(self.region, latents, self.z_0)

    def paste(self, pixels: Tensor) -> Tensor:
        """Decoded pictures (N, 3, H, W) in [0, 1] with the persons' own pixels outside the regions."""
        pictures = pixels.movedim(1, -1).cpu().numpy()
        pasted = map(paste_back, pictures, self.pixels, self.regions)
        return torch.from_numpy(np.stack(list(pasted))).movedim(-1, 1).contiguous().to(pixels)


def as_targets(
    person: Any, region: Any, poses: Any, reference: Any, size: tuple[int | None, int | None], factor: int
) -> tuple[Any, tuple[int | None, int | None]]:
    """Poses and (height, width) of a call. With a person the size is its own, and a pose that is not known is
    empty; without one they are what was given. Raises ValueError."""
    if person is None and region is None:
        return poses, size
    if person is None or region is None:
        raise ValueError(
            "person and region go together: the picture, and where to paint in it (True = generate)"
        )
    height, width = as_pixels(_several(person)[0], factor).shape[1:]
    if size[0] not in (None, height) or size[1] not in (None, width):
        raise ValueError(f"height and width are the person's, {height} x {width}, not {size[0]} x {size[1]}")
    if poses is None:
        stacked = sum(getattr(one, "num_groups", 1) for one in _several(reference))
        poses = [None] * max(len(_several(person)), len(_several(region)), stacked)
    poses = _several(poses)
    if any(isinstance(pose, PoseClip) for pose in poses):
        raise ValueError("a person is painted in pictures, not in clips: give the poses as a list of Pose")
    return [empty_pose((height, width)) if pose is None else pose for pose in poses], (height, width)


def _several(given: Any) -> Sequence[Any]:
    if not isinstance(given, list | tuple):
        return [given]
    if not given:
        raise ValueError("an empty list: give one person, region or reference for all, or one each")
    return given


def _as_region(region: Any) -> Region:
    if isinstance(region, Image.Image) and region.mode in ("1", "L"):
        return np.asarray(region.convert("L")) > HALF
    if isinstance(region, np.ndarray) and region.dtype == bool and region.ndim == 2:
        return region
    names = ("mode",) if isinstance(region, Image.Image) else ("dtype", "shape")
    kinds = (getattr(region, name, None) for name in names)
    what = " ".join([type(region).__name__, *(str(kind) for kind in kinds if kind is not None)])
    raise ValueError(f"a region is bool (H, W), True = generate, or a PIL picture of mode L or 1; not {what}")
