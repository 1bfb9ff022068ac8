"""The diffusion process: noising (whole or in a region), what the network predicts, the loss and guidance
(METHOD 4 and 6).

Letters: `alpha`, `sigma` with `z_t = alpha z_0 + sigma eps`; for the variance-preserving schedules alpha^2 =
abar and sigma^2 = 1 - abar, for flow alpha = 1 - sigma. `S = alpha^2 / sigma^2` is the signal-to-noise ratio.
All are (B, 1, 1, 1), one per sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_WEIGHT = 5.0  # min-SNR's gamma (Hang et al. 2023), the value of every public recipe in this family


@dataclass(frozen=True)
class Objective:
    """One row of the table below: what the network is asked for, how x0 follows from it, and the weight of
    its squared error."""

    target: Callable[
        [Tensor, Tensor, Tensor, Tensor], Tensor
    ]  # z_0, eps, alpha, sigma -> what the network should say
    x0: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # prediction, z_t, alpha, sigma -> z_0
    weight: Callable[[Tensor, Tensor], Tensor]  # alpha, sigma -> w(t)


def x0_weight(alpha: Tensor, sigma: Tensor) -> Tensor:
    """min(S + 1, 5): the weight of the squared error of x0. The `+ 1` keeps the terminal step, the first one
    sampled, in the loss."""
    return (1 / sigma**2 * (alpha**2 + sigma**2)).clamp(max=MAX_WEIGHT)


# Keys are diffusers' names for `scheduler.config.prediction_type`. For v and flow d(x0)/d(prediction) = sigma
# (v: VP schedules only).
OBJECTIVES: dict[str, Objective] = {
    "epsilon": Objective(
        target=lambda z_0, eps, alpha, sigma: eps,
        x0=lambda prediction, z_t, alpha, sigma: (z_t - sigma * prediction) / alpha,
        weight=lambda alpha, sigma: (MAX_WEIGHT * sigma**2 / alpha**2).clamp(max=1.0),  # min(S, 5) / S
    ),
    "v_prediction": Objective(
        target=lambda z_0, eps, alpha, sigma: alpha * eps - sigma * z_0,
        x0=lambda prediction, z_t, alpha, sigma: alpha * z_t - sigma * prediction,
        weight=lambda alpha, sigma: x0_weight(alpha, sigma) * sigma**2,  # min(S + 1, 5) / (S + 1)
    ),
    "sample": Objective(
        target=lambda z_0, eps, alpha, sigma: z_0,
        x0=lambda prediction, z_t, alpha, sigma: prediction,
        weight=x0_weight,
    ),
    "flow": Objective(
        target=lambda z_0, eps, alpha, sigma: eps - z_0,
        x0=lambda prediction, z_t, alpha, sigma: z_t - sigma * prediction,
        weight=lambda alpha, sigma: x0_weight(alpha, sigma) * sigma**2,
    ),
}


def objective_name(scheduler) -> str:
    """Which row of OBJECTIVES a diffusers scheduler's saved config asks for."""
    if "flow" in type(scheduler).__name__.lower():
        return "flow"
    name = scheduler.config.prediction_type
    if name not in OBJECTIVES:
        raise ValueError(f"prediction_type {name!r} is not known; one of {', '.join(OBJECTIVES)}")
    if name == "epsilon" and scheduler.config.get("rescale_betas_zero_snr"):
        raise ValueError(
            "epsilon with zero-terminal SNR has no first step (x0 = z / 0): use v_prediction or sample"
        )
    return name


def noise_levels(scheduler, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma, each (B, 1, 1, 1) float32, of integer timesteps (B,) under the scheduler that is saved
    with the weights."""
    if objective_name(scheduler) == "flow":
        num = scheduler.config.num_train_timesteps
        sigma = ((timesteps.float() + 1) / num)[:, None, None, None]
        return 1 - sigma, sigma
    abar = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()[:, None, None, None]
    return abar.sqrt(), (1 - abar).sqrt()


def noise(z_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor, region: Tensor | None = None) -> Tensor:
    """z_t = (alpha z_0 + sigma eps) * M + z_0 * (1 - M); without a region M = 1 (METHOD 4, 6). Latents (B, C,
    h, w), M (B, 1, h, w)."""
    z_t = alpha * z_0 + sigma * eps
    return z_t if region is None else torch.where(region.bool(), z_t, z_0)


def loss(sums: Tensor, weights: Tensor) -> Tensor:
    """sum(M w(t) (prediction - objective)^2) / sum(M) over all targets, a scalar, of their `errors`."""
    return sums.sum() / weights.sum().clamp(min=1)


def errors(
    prediction: Tensor,
    z_0: Tensor,
    eps: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    name: str,
    region: Tensor | None = None,
    channel_weights: Tensor | None = None,
    num_frames: int = 1,
    change_weight: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Of every row (B,): sum(M w(t) (prediction - objective)^2), averaged over channels, and sum(M). M (B, 1,
    h, w) may be soft: a weight of each place. `channel_weights` (C,), mean 1, weigh latent channels that
    matter differently [ours].

    `num_frames` rows in a row are a clip at one timestep; what its error changes by from frame to frame
    counts besides, squared and `change_weight` times [ours]: an error that stays is not seen, one that
    flickers is.
    """
    objective = OBJECTIVES[name]
    off = prediction.float() - objective.target(z_0, eps, alpha, sigma).float()
    squared = off**2
    if change_weight:
        change = off.unflatten(0, (-1, num_frames)).diff(dim=1)
        squared = squared + change_weight * F.pad(change**2, (0, 0, 0, 0, 0, 0, 1, 0)).flatten(0, 1)
    error = squared * objective.weight(alpha, sigma)
    if channel_weights is not None:
        error = error * channel_weights[:, None, None]
    places = error.mean(1, keepdim=True)
    inside = torch.ones_like(places) if region is None else region.to(places).expand_as(places)
    return (inside * places).sum((1, 2, 3)), inside.sum((1, 2, 3))


def guide(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: unconditional + scale (conditional - unconditional); scale 1 is never
    computed (METHOD 3)."""
    return unconditional + scale * (conditional - unconditional)
