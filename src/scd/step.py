"""One step of training: what learns, and its loss on a batch (METHOD 4 and 6)."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d

from scd import latents, process
from scd.backbones.motion import is_temporal
from scd.backbones.unet import collect, denoise, extract, joint
from scd.config import TrainConfig
from scd.matching import Seen, matching_loss
from scd.pipeline import SCDPipeline
from scd.records import Tally
from scd.types import Batch


class Trainee(nn.Module):
    """What learns, behind the one `forward` that accelerate wraps: the denoising network and the pose
    encoder."""

    def __init__(self, pipe: SCDPipeline):
        super().__init__()
        self.unet, self.pose_encoder = pipe.unet, pipe.pose_encoder
        self.reference_unet = pipe.reference_unet  # None: `unet` reads references too
        self.reference_timestep = pipe.config.reference_timestep

    def forward(
        self, references, z_t, timesteps, reference_drawings, target_drawings, context, owner,
        num_frames: int = 1, seen: Seen | None = None,
    ) -> Tensor:  # fmt: skip
        """The predictions of the targets. Pictures: one joint pass, which fills `seen`
        (scd.attention.Joint). Clips of `num_frames` rows, or a network of its own for references: first the
        references, then the targets; where only temporal layers learn, nothing of the former needs a
        gradient."""
        drawings = torch.cat([reference_drawings.flatten(0, 1), target_drawings])
        rows = references.shape[0] * references.shape[1]
        of_references, of_targets = self.pose_encoder(drawings).split([rows, len(z_t)])
        # A reference without a pose, a garment, has no features (METHOD 3)
        shown = reference_drawings.flatten(0, 1).flatten(1).any(1)[:, None, None, None]
        features = torch.where(shown, of_references, torch.zeros_like(of_references)), of_targets
        if num_frames == 1 and self.reference_unet is None:
            return joint(
                self.unet, references, z_t, self.reference_timestep, timesteps, features, context, owner,
                seen,
            )  # fmt: skip
        read = references.flatten(0, 1), self.reference_timestep, features[0], context[0]
        spatial = (p for n, p in self.unet.named_parameters() if not is_temporal(n))
        frozen = not any(p.requires_grad for p in spatial)
        with torch.no_grad() if frozen else contextlib.nullcontext():
            if self.reference_unet is None:
                cache = extract(self.unet, *read)
            else:
                cache = collect(self.reference_unet, *read)
        cache = cache.grouped(references.shape[1])
        output = denoise(self.unet, z_t, timesteps, features[1], context[1], cache, owner, num_frames)
        if self.reference_unet is not None and max(owner) < 0:
            # Nobody reads: zero times it, or its weights have no gradient, where several processes stop
            output = output + 0 * sum(entry[0].sum() for entry in cache.entries.values())
        return output


def step_loss(
    trainee: nn.Module,
    pipe: SCDPipeline,
    batch: Batch,
    generator: torch.Generator,
    config: TrainConfig,
    tally: Tally | None = None,
) -> Tensor:
    """The loss of one batch; all randomness (timesteps, noise, dropped references) comes from the generator.
    `tally` counts the targets' errors by noise level."""
    groups, num_targets = batch.targets.shape[:2]
    references = latents.encode(pipe, batch.references.flatten(0, 1)).unflatten(0, (groups, -1))
    z_0 = latents.encode(pipe, batch.targets.flatten(0, 1), generator)
    num_frames, device = config.data.frames, pipe.device
    draws = len(z_0) // num_frames  # a clip's frames share theirs

    timesteps = _timesteps(draws, pipe, config, generator).repeat_interleave(num_frames)
    eps = _noise(z_0, pipe, config, generator)
    alpha, sigma = process.noise_levels(pipe.scheduler, timesteps)
    region = _on_latents(batch.regions, z_0)
    z_t = process.noise(z_0, eps, alpha, sigma, region)

    dropped = (torch.rand(draws, generator=generator) < config.drop_reference).repeat_interleave(num_frames)
    owner = [-1 if drop else row // num_targets for row, drop in enumerate(dropped.tolist())]
    given = (
        _drawing(batch.reference_drawings, device), _drawing(batch.target_drawings, device).flatten(0, 1),
        pipe.training_context(batch.references, owner, batch.reference_tokens), owner, num_frames,
    )  # fmt: skip
    own = None
    if config.own_predictions:
        own = (torch.rand(draws, generator=generator) < config.own_predictions).to(device)
        own = own.repeat_interleave(num_frames)
        start = _alike(torch.randn(z_0.shape, generator=generator).to(device), pipe, num_frames)
        guess = own_prediction(trainee, pipe, references, z_0, start, region, given)
        replaced = own[:, None, None, None] if region is None else own[:, None, None, None] & region.bool()
        z_t = torch.where(replaced, alpha * guess + sigma * eps, z_t)
        eps = (z_t - alpha * z_0) / sigma  # what leads from the truth to what is shown
    seen: Seen | None = {} if config.matching_weight else None
    prediction = trainee(references, z_t, timesteps, *given, seen)
    soft_region = _weigh(region, _on_latents(batch.heads, z_0), config.head_weight)
    sums, weights = process.errors(
        prediction, z_0, eps, alpha, sigma, process.objective_name(pipe.scheduler),
        region=soft_region,
        channel_weights=getattr(pipe.vae, "loss_weights", None),
        num_frames=num_frames, change_weight=config.change_weight,
    )  # fmt: skip
    if own is not None:  # a guess is as uncertain as the noise it was made from, whatever t is
        sums = torch.where(own, sums / process.x0_weight(alpha, sigma).flatten(), sums)
    if tally is not None:
        tally.count(timesteps / pipe.scheduler.config.num_train_timesteps, sums.detach(), weights)
    loss = process.loss(sums, weights)
    if seen is None:
        return loss
    matches = _matches(seen, references, z_0, owner, region, soft_region, generator)
    if tally is not None and math.isfinite(value := matches.item()):
        tally.matches.append(value)
    return loss + config.matching_weight * matches


@torch.no_grad()
def own_prediction(
    trainee: nn.Module, pipe: SCDPipeline, references: Tensor, z_0: Tensor, eps: Tensor,
    region: Tensor | None, given: tuple,
) -> Tensor:  # fmt: skip
    """The network's x0 (B, C, h, w) at the terminal noise level, which sampling goes on from (ADR 9). `eps`:
    the noise that it starts from; `given`: what else `Trainee` is given, from drawings to frames."""
    last = pipe.scheduler.config.num_train_timesteps - 1
    timesteps = torch.full((len(z_0),), last, device=z_0.device)
    alpha, sigma = process.noise_levels(pipe.scheduler, timesteps)
    z_t = process.noise(z_0, eps, alpha, sigma, region)
    prediction = trainee(references, z_t, timesteps, *given)
    torch.clear_autocast_cache()  # PyTorch before 2.13 may keep half-precision weights without gradients
    objective = process.OBJECTIVES[process.objective_name(pipe.scheduler)]
    return objective.x0(prediction.float(), z_t, alpha, sigma)


def _timesteps(draws: int, pipe: SCDPipeline, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """One for each draw, (draws,), from each of as many equal parts of the schedule: the loss of a step
    varies less."""
    parts = (torch.randperm(draws, generator=generator) + torch.rand(draws, generator=generator)) / draws
    num = pipe.scheduler.config.num_train_timesteps
    timesteps = (shift(parts, config.timestep_shift) * num).long().to(pipe.device)
    return timesteps.clamp(max=num - 1)  # a part just below 1 may have been rounded up


def _noise(z_0: Tensor, pipe: SCDPipeline, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """eps, of the shape of z_0."""
    eps = torch.randn(z_0.shape, generator=generator).to(pipe.device)
    if config.noise_offset:
        offset = torch.randn((*z_0.shape[:2], 1, 1), generator=generator).to(pipe.device)
        eps = eps + config.noise_offset * offset
    return _alike(eps, pipe, config.data.frames)


def _matches(
    seen: Seen, references: Tensor, z_0: Tensor, owner: list[int], region: Tensor | None,
    soft_region: Tensor | None, generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """The loss on what attention read, of rows that are painted whole: a garment has no skin to be matched
    with."""
    asked = torch.ones_like(z_0[:, :1]) if soft_region is None else soft_region
    if region is not None:
        asked = asked * region.flatten(1).all(1)[:, None, None, None]
    offset = torch.rand(2, generator=generator).tolist()
    return matching_loss(seen, references, z_0, owner, asked, (offset[0], offset[1]))


def _alike(noise: Tensor, pipe: SCDPipeline, num_frames: int) -> Tensor:
    """A clip's first frame's noise for all its frames, where the model has it so."""
    if not pipe.config.shared_noise:
        return noise
    return noise[::num_frames].repeat_interleave(num_frames, 0)


def shift(parts: Tensor, by: float) -> Tensor:
    """Parts of the schedule in [0, 1), moved to more noise: half of them lie above by / (1 + by) (Esser et
    al. 2024, Equation 23)."""
    return by * parts / (1 + (by - 1) * parts)


def _on_latents(mask: Tensor | None, z_0: Tensor) -> Tensor | None:
    """A mask of pixels (G, K, 1, H, W) on the latent grid, (N, 1, h, w): 1 where any of its pixels is 1."""
    return None if mask is None else adaptive_max_pool2d(mask.flatten(0, 1).to(z_0), z_0.shape[-2:])


def _weigh(region: Tensor | None, heads: Tensor | None, head_weight: float) -> Tensor | None:
    """The loss's soft region, (N, 1, h, w): M, and `head_weight` times that at heads; None where all is 1."""
    if heads is None or head_weight == 1:
        return region
    weights = 1 + (head_weight - 1) * heads
    return weights if region is None else weights * region


def _drawing(drawings: Tensor, device) -> Tensor:
    return drawings.to(device).float() / 255
