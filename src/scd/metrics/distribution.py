"""How far a set of pictures is from a set of real ones: FID and KID, on the features of Inception v3."""

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

from scd.types import Picture, UserError

WEIGHTS = "pt_inception-2015-12-05"  # torch-fidelity's name for them
FLAVOUR = "torch-fidelity's Inception v3; KID raw, over all pairs of pictures"

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
        self.seen[real].append(self.features(pixels)[0].double().cpu().numpy())

    def numbers(self) -> dict[str, float | None]:
        """None for sets of one."""
        if min(len(rows) for rows in self.seen.values()) < 2:
            return {"fid": None, "kid": None}
        generated, real = (np.stack(self.seen[name]) for name in (False, True))
        return {"fid": frechet_distance(generated, real), "kid": kernel_distance(generated, real)}


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
