"""Teach a model where on the body a latent pixel lies, and let attention use it: a stage of the embedded model.

    .venv/bin/python runs/body_places.py run/world-pictures-4/model run/body-places

Trained by the denoising loss alone, the pose encoder hardly told a wrist from an ankle (a linear probe of its
features explains 0.4 of "near this wrist", 0.9 of "near the neck"), and attention in the network's second half,
where detail should be fetched, was spread over 100 to 200 of 512 tokens (LOG.md). Two things with exact truth:

1. The pose encoder learns, from drawings alone, to add to its features a code of 31 places of the body.
2. In the attention layers of the second half two heads start as matchers: query and key are one linear map of
   the hidden state to the body code in one, to the place in the picture in the other. They look from a wrist at
   the reference's wrist, and from a piece of wall at the same piece. All of it goes on learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor

from scd import process, world
from scd.backbones.unet import joint
from scd.checkpoint import export
from scd.data.augment import as_detected, perturb
from scd.data.world import FIRST_TRAINING_SEED
from scd.pipeline import SCDPipeline
from scd.pose.draw import draw_pose
from scd.pose_encoder import place_features
from scd.types import BODY, Pose

LIMBS = ((1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
         (1, 0), (2, 8), (5, 11), (8, 11))  # fmt: skip
NUM_PLACES = 15 + len(LIMBS)  # 14 joints, the top of the head, and the middle of each limb
FIRST_SEED = FIRST_TRAINING_SEED + 500_000
# Layers, and what two of their heads match: the width of the body code (of the picture), or 0 for the place in
# the picture. The first layer keeps two of its four heads, which look at the same place already
MATCHERS = {
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1": {2: 0.05, 3: 0.09},
    "up_blocks.1.attentions.0.transformer_blocks.0.attn1": {3: 0.08, 4: 0.0},
    "up_blocks.1.attentions.1.transformer_blocks.0.attn1": {2: 0.08, 4: 0.0},
    "up_blocks.2.attentions.0.transformer_blocks.0.attn1": {0: 0.05, 3: 0.0},
    "up_blocks.2.attentions.1.transformer_blocks.0.attn1": {2: 0.05, 3: 0.0},
}
LOGIT = 8.0  # of a perfect match; 1 token of 512 then gets e^8 / (e^8 + 511) = 0.85 of a head


@dataclass
class Options:
    source: Annotated[Path, tyro.conf.Positional]
    target: Annotated[Path, tyro.conf.Positional]
    steps: int = 500
    batch: int = 32
    scenes: int = 1200
    strength: float = 5.0
    """Norm of the code at a joint; the features' own is 14."""


def body_code(pose: Pose, side: int, width: float) -> Tensor:
    """How near each cell of a (side, side) grid is to each place of the body, 1 = there: (side^2, 31)."""
    j = pose.joints[BODY]
    top = j[0] + 0.5 * (j[0] - j[1])
    places = np.concatenate([j[:14], top[None], [(j[a] + j[b]) / 2 for a, b in LIMBS]])
    centres = (np.arange(side) + 0.5) / side
    cells = np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 2)
    square = ((cells[:, None] - places) ** 2).sum(-1)
    return torch.from_numpy(np.exp(-square / (2 * width**2)).astype(np.float32))


def moved(pose: Pose, rng: np.random.Generator) -> Pose:
    """The pose turned by up to 20 degrees, scaled and shifted: more poses than were rendered."""
    angle, scale = rng.normal(0, 0.15), np.exp(rng.normal(0, 0.15))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    joints = (pose.joints - 0.5) @ turn.T + 0.5 + rng.normal(0, 0.06, 2)
    return Pose(np.where(pose.scores[:, None] > 0, joints, 0).astype(np.float32), pose.scores, pose.size)


def teach_encoder(pipe: Any, poses: list[Pose], options: Options) -> Tensor:
    """Fit the encoder to (its features before) + strength Q code; returns Q (128, 31), orthonormal."""
    size, rng = pipe.config.default_size, np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    width = pipe.pose_encoder.config.out_channels
    code_basis = torch.linalg.qr(torch.randn(width, NUM_PLACES, generator=generator))[0]
    before = SCDPipeline.from_pretrained(options.source).pose_encoder.float().requires_grad_(False)
    encoder = pipe.pose_encoder.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=options.steps)
    for step in range(options.steps):
        chosen = [moved(poses[i], rng) for i in rng.integers(len(poses), size=options.batch)]
        drawn = [perturb(as_detected(p, keep_head=rng.random() < 0.5), rng) for p in chosen]
        drawings = np.stack([draw_pose(p, (size, size)) for p in drawn])
        x = torch.from_numpy(drawings).permute(0, 3, 1, 2).float() / 255
        code = torch.stack([body_code(p, size // 8, 0.05) for p in chosen])
        truth = before(x).flatten(2).transpose(1, 2) + options.strength * code @ code_basis.T
        error = (encoder(x).flatten(2).transpose(1, 2) - truth).square()
        in_code = (error @ code_basis.square()).mean()  # weigh the part that is new
        loss = error.mean() + 0.2 * in_code
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if step % 50 == 0 or step == options.steps - 1:
            print(f"step {step}: {loss.item():.4f}", flush=True)
    encoder.eval().requires_grad_(False)
    return code_basis


@torch.no_grad()
def start_matchers(pipe: Any, scenes: list[tuple[world.View, world.View]]) -> None:
    """Query and key of two heads a layer become one map: hidden state -> body code, hidden state -> place."""
    layers = dict(pipe.unet.named_modules())
    seen: dict[str, list[Tensor]] = {name: [] for name in MATCHERS}
    hooks = [
        layers[name].to_q.register_forward_hook(lambda _, args, __, n=name: seen[n].append(args[0]))
        for name in MATCHERS
    ]
    generator, size, poses = torch.Generator().manual_seed(1), pipe.config.default_size, []
    for start in range(0, len(scenes), 10):
        part = scenes[start : start + 10]
        views = [[pair[k] for pair in part] for k in (0, 1)]
        pixels = [
            torch.from_numpy(np.stack([v.image for v in vs])).permute(0, 3, 1, 2) / 127.5 - 1 for vs in views
        ]
        z_r, z_0 = (pipe.encode_pictures(x) for x in pixels)
        timesteps = torch.randint(200, 1000, (len(part),), generator=generator)
        alpha, sigma = process.noise_levels(pipe.scheduler, timesteps)
        z_t = process.noise(z_0, torch.randn(z_0.shape, generator=generator), alpha, sigma)
        features = tuple(pipe.encode_poses([as_detected(v.pose) for v in vs], (size, size)) for vs in views)
        context = torch.zeros(len(part), 1, pipe.unet.config.cross_attention_dim)
        owner = range(len(part))
        joint(pipe.unet, z_r[:, None], z_t, 0, timesteps, features, (context, context), owner)
        poses += [v.pose for vs in views for v in vs]
    for hook in hooks:
        hook.remove()
    for name, heads in MATCHERS.items():
        x = torch.cat(seen[name])
        side, channels = int(x.shape[1] ** 0.5), x.shape[2]
        place = place_features(torch.zeros(1, 1, side, side), 4)[0].flatten(1).T.expand(len(poses), -1, -1)
        x = x.flatten(0, 1)
        gram = x.T @ x / len(x) + 1e-3 * torch.eye(channels)
        layer = layers[name]
        depth = channels // layer.heads
        for head, width in heads.items():
            code = torch.stack([body_code(p, side, width) for p in poses]) if width else place
            truth = code.flatten(0, 1)
            weights = torch.linalg.solve(gram, x.T @ truth / len(x))  # ridge regression, (channels, n)
            found = x @ weights
            targets = slice(len(truth) // 2, None)
            missed = 1 - (found - truth)[targets].square().sum() / (truth - truth.mean(0))[targets].square().sum()
            explained = 1 - (found - truth).square().sum() / (truth - truth.mean(0)).square().sum()
            strong = found.norm(dim=1).quantile(0.95)  # few cells lie on the body
            gain = (LOGIT * depth**0.5) ** 0.5 / strong
            rows = slice(head * depth, head * depth + truth.shape[1])
            for projection in (layer.to_q, layer.to_k):
                projection.weight[head * depth : (head + 1) * depth] = 0
                projection.weight[rows] = gain * weights.T
            print(f"{name} head {head}: explains {explained:.2f} of its {truth.shape[1]} values, {missed:.2f} second half", flush=True)


def main(options: Options) -> None:
    pipe = SCDPipeline.from_pretrained(options.source).to(torch.float32)
    size = pipe.config.default_size
    scenes = []
    for seed in range(FIRST_SEED, FIRST_SEED + options.scenes):
        scene = world.Scene.from_seed(seed)
        scenes.append((scene.view(0, size=size), scene.view(1, size=size)))
    if options.steps:
        teach_encoder(pipe, [view.pose for pair in scenes for view in pair], options)
    start_matchers(pipe, scenes[:120])
    export(pipe, options.target)
    print(options.target)


if __name__ == "__main__":
    main(tyro.cli(Options))
