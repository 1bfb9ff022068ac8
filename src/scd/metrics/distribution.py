"""How far a set of pictures or clips is from a set of real ones: FID and KID on the features of Inception v3,
FVD on those of I3D."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch.nn.functional import interpolate

from scd.metrics.video import Frames
from scd.types import Picture, UserError

WEIGHTS = "pt_inception-2015-12-05"  # torch-fidelity's name for them
FLAVOUR = "torch-fidelity's Inception v3; KID raw, over all pairs of pictures"
I3D = "i3d_torchscript.pt"  # StyleGAN-V's name for its weights of Kinetics-400
WINDOW, SIDE = 16, 224  # frames; pixels
FVD_FLAVOUR = f"StyleGAN-V's I3D, all windows of {WINDOW} frames, {SIDE} x {SIDE} bilinear, in [-1, 1]"

Features = NDArray[np.float64]  # (N, D)


def frechet_distance(a: Features, b: Features) -> float:
    """FID of two sets: |mean difference|^2 + tr(A + B - 2 (A B)^(1/2)) of their covariances A and B, in
    float64. Raises ValueError for a set of one."""
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance takes two pictures, not {min(len(a), len(b))}")
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T  # A^(1/2): then all is symmetric, and real
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    means = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(means + np.trace(first) + np.trace(second) - 2 * shared)


def kernel_distance(a: Features, b: Features) -> float:
    """KID of two sets: the unbiased squared maximum mean discrepancy with the kernel (x y / D + 1)^3. Raises
    ValueError for a set of one."""
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a pair takes two pictures, not {min(len(a), len(b))}")

    def kernel(x: Features, y: Features) -> Features:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Features) -> float:
        values = kernel(x, x)
        return (values.sum() - np.trace(values)) / (len(x) * (len(x) - 1))

    return float(within(a) + within(b) - 2 * kernel(a, b).mean())


class Distribution(Protocol):
    """FID and KID, or their like: pictures go in one by one, numbers come out."""

    def add(self, picture: Picture, real: bool) -> None: ...

    def numbers(self) -> dict[str, float | None]: ...


class InceptionDistance:
    """Pictures go in one by one; FID and KID of the generated against the real ones come out."""

    def __init__(self, features: Callable[[torch.Tensor], torch.Tensor]):
        """features: of pictures (1, 3, H, W) uint8, (1, D)."""
        self.features = features
        self.seen: dict[bool, list[NDArray]] = {True: [], False: []}

    @torch.no_grad()
    def add(self, picture: NDArray[np.uint8], real: bool) -> None:
        pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
        self.seen[real].append(self.features(pixels)[0].cpu().double().numpy())

    def numbers(self) -> dict[str, float | None]:
        """None for sets of one."""
        if min(len(rows) for rows in self.seen.values()) < 2:
            return {"fid": None, "kid": None}
        generated, real = (np.stack(self.seen[name]) for name in (False, True))
        return {"fid": frechet_distance(generated, real), "kid": kernel_distance(generated, real)}


class VideoDistance:
    """Clips go in one by one; FVD of the painted against the true ones comes out.

    Of a clip every window of 16 frames counts, one frame apart: of fewer frames none does (DisCo's protocol,
    on arrays; another number of windows makes another number).
    """

    def __init__(self, features: Callable[[torch.Tensor], torch.Tensor]):
        """features: of windows (1, 3, 16, 224, 224) in [-1, 1], (1, D)."""
        self.features = features
        self.seen: dict[bool, list[NDArray]] = {True: [], False: []}

    @torch.no_grad()
    def add(self, frames: Frames, real: bool) -> None:
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)  # (T, 3, H, W)
        for start in range(len(pixels) - WINDOW + 1):
            window = pixels[start : start + WINDOW].float() / 127.5 - 1
            window = interpolate(window, (SIDE, SIDE), mode="bilinear", align_corners=False)
            self.seen[real].append(self.features(window.transpose(0, 1)[None])[0].cpu().double().numpy())

    def numbers(self) -> dict[str, float | int | None]:
        """None for fewer than two windows."""
        number = min(len(rows) for rows in self.seen.values())
        if number < 2:
            return {"fvd": None, "num_windows": number}
        painted, real = (np.stack(self.seen[name]) for name in (False, True))
        return {"fvd": frechet_distance(painted, real), "num_windows": number}


def load_i3d(weights: Path, device: str | torch.device = "cpu") -> VideoDistance:
    """With the network that lies at this path as TorchScript, and is called as StyleGAN-V's is. Raises
    UserError."""

    def features(window: torch.Tensor) -> torch.Tensor:
        return network(window.to(device), rescale=False, resize=False, return_features=True)

    try:
        network = torch.jit.load(weights, map_location=device).eval()
        with torch.no_grad():
            shape = tuple(features(torch.zeros(1, 3, WINDOW, SIDE, SIDE)).shape)
        if len(shape) != 2:
            raise ValueError(f"its features have shape {shape}, not (1, D)")
    except Exception as error:  # TorchScript raises what its code raises
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{weights}: not StyleGAN-V's {I3D} ({reason}); see docs/evaluation.md") from error
    return VideoDistance(features)


def load_inception(weights: Path, device: str | torch.device = "cpu") -> InceptionDistance:
    """With torch-fidelity's network, whose weights lie at this path as .safetensors. Raises UserError."""
    if find_spec("torch_fidelity") is None:
        raise UserError("--inception: FID and KID need torch-fidelity: pip install 'scd[fid]'")
    from torch_fidelity.feature_extractor_inceptionv3 import (  # pyright: ignore[reportMissingImports]
        FeatureExtractorInceptionV3,
    )

    # The class reads pickles only, and executes what is in them: it is given one of our own making
    pickled = io.BytesIO()
    try:
        torch.save(load_file(weights), pickled)
        pickled.seek(0)
        network: Any = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=pickled
        )
    except Exception as error:  # safetensors has errors of its own
        reason = str(error).splitlines()[0]  # of a wrong file it goes on with every name
        raise UserError(
            f"{weights}: not torch-fidelity's {WEIGHTS} as .safetensors ({reason}); docs/evaluation.md says "
            "how to make it"
        ) from error
    network = network.to(device).eval()
    return InceptionDistance(lambda pixels: network(pixels.to(device))[0])
