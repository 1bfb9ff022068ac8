"""A network made from nothing starts out knowing what a body is, and where a reference shows the same place.

Trained by the denoising loss alone, a pose encoder hardly told a wrist from an ankle after 80,000 targets,
and attention in the layers that fetch detail stayed spread over a third of the picture (LOG.md). Two things
with exact truth, fitted in minutes before training, and learnt on like everything else after that [ours]:

1. The pose encoder learns from drawings which places and visible parts of the body lie in each latent pixel.
2. In every self-attention layer one head starts as a matcher of places of the body and one of places in the
   picture: a wrist looks at the reference's wrist, a piece of wall at the same piece.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scd import process, world
from scd.backbones.unet import joint, spatial_layers
from scd.data.augment import as_detected, perturb
from scd.data.world import FIRST_TRAINING_SEED
from scd.pose.draw import draw_pose
from scd.pose_encoder import place_features
from scd.types import BODY, Pose

LIMBS = ((1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
         (1, 0), (2, 8), (5, 11), (8, 11))  # fmt: skip
NUM_PLACES = 15 + len(LIMBS)  # 14 joints, the top of the head, and the middle of each limb
NUM_PARTS = len(world.LABELS) - 1
FIRST_SEED = FIRST_TRAINING_SEED + 500_000
WIDTH = 0.22  # of the blur around a place, in lengths of the trunk: half the distance of neighbouring places
# In the features, whose other summand, the first convolution of noised latents, is about 0.6 in each channel
BODY_STRENGTH, PLACE_STRENGTH = 8.0, 1.5
LOGIT = 8.0  # of a perfect match; 1 token of 512 then gets e^8 / (e^8 + 511) = 0.85 of a head


def place_code(pose: Pose, side: int) -> NDArray[np.float32]:
    """How near each cell of a (side, side) grid is to each place of the body, 1 = there: (side, side, 31)."""
    j = pose.joints[BODY]
    top = 1.5 * j[0] - 0.5 * j[1]
    places = np.concatenate([j[:14], top[None], [(j[a] + j[b]) / 2 for a, b in LIMBS]])
    trunk = max(float(np.linalg.norm(j[1] - (j[8] + j[11]) / 2)), 0.08)
    centres = (np.arange(side) + 0.5) / side
    cells = np.stack(np.meshgrid(centres, centres), -1)
    square = ((cells[:, :, None] - places) ** 2).sum(-1)
    return np.exp(-square / (2 * (WIDTH * trunk) ** 2)).astype(np.float32)


def part_code(labels: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """The share of each cell that each part of `world.LABELS` but the background covers: (side, side, 16)."""
    masks = (labels[:, :, None] == np.arange(1, NUM_PARTS + 1)).astype(np.float32)
    return cv2.resize(masks, (side, side), interpolation=cv2.INTER_AREA)  # pyright: ignore[reportReturnType]


def teach(encoder: Any, size: int, steps: int, num_scenes: int = 800) -> float:
    """Fit the pose encoder, in place, to codes of the world's people at (size, size) pixels.

    A fixed orthonormal basis spreads the codes, and each latent pixel's place in the picture, over the
    encoder's channels. Returns the share of the codes' variance that it explains in the last 50 steps.
    """
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    width, num_frequencies = encoder.config.out_channels, encoder.config.num_frequencies
    strengths = [BODY_STRENGTH] * (NUM_PLACES + NUM_PARTS) + [PLACE_STRENGTH] * 4 * num_frequencies
    square = torch.randn(max(width, len(strengths)), len(strengths), generator=generator)
    basis = torch.tensor(strengths)[:, None] * torch.linalg.qr(square)[0][:width].T  # (codes, channels)
    # Pose and labels only: a scene remembers its cloth and backdrop, 10 GB for 800 of them
    truths = []
    for seed in range(FIRST_SEED, FIRST_SEED + num_scenes):
        scene = world.Scene.from_seed(seed)
        truths += [(view.pose, view.labels) for view in (scene.view(k, size=size) for k in (0, 1))]
    torch.nn.init.normal_(encoder.conv_out.weight, std=0.02, generator=generator)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    encoder.train().requires_grad_(True)
    explained = []
    for _ in range(steps):
        chosen = [truths[i] for i in rng.integers(len(truths), size=24)]
        poses = [perturb(as_detected(pose, keep_head=rng.random() < 0.5), rng) for pose, _ in chosen]
        drawings = np.stack([draw_pose(p, (size, size)) for p in poses])
        features = encoder(torch.from_numpy(drawings).permute(0, 3, 1, 2).float() / 255)
        side = features.shape[-1]
        codes = [np.concatenate([place_code(p, side), part_code(labels, side)], -1) for p, labels in chosen]
        truth = torch.from_numpy(np.stack(codes)) @ basis[: NUM_PLACES + NUM_PARTS]
        place = place_features(features, num_frequencies).permute(0, 2, 3, 1) @ basis[len(codes[0][0, 0]) :]
        error = (features.permute(0, 2, 3, 1) - truth - place).square()
        error.mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        spread = (truth - truth.mean((0, 1, 2))).square().sum()
        explained.append(1 - float(error.detach().sum() / spread))
    encoder.eval()
    return float(np.mean(explained[-50:]))


@torch.no_grad()
def start_matchers(pipe: Any, num_scenes: int = 80) -> dict[str, tuple[float, float]]:
    """In every self-attention layer, the first head's query and key become one linear map from the hidden
    state to the place on the body, the second head's to the place in the picture (ridge regression over the
    world's people), with a gain that lets a good match outweigh all other tokens.

    Returns by layer how much of both codes' variance the hidden state explains.
    """
    hidden, poses = _hidden_states(pipe, num_scenes)
    layers, shares = spatial_layers(pipe.unet), {}
    for name, layer in layers.items():
        x = hidden.pop(name)
        side, depth = round(x.shape[1] ** 0.5), x.shape[2] // layer.heads
        body = torch.from_numpy(np.stack([place_code(p, side) for p in poses])).flatten(0, 2)
        place = place_features(torch.zeros(1, 1, side, side), 4)[0].flatten(1).T.repeat(len(poses), 1)
        x = x.flatten(0, 1)
        gram = x.T @ x / len(x) + 1e-2 * x.square().mean() * torch.eye(x.shape[1])
        found = []
        # Few cells lie on the body, all in the picture: what counts as a strong code differs
        for head, (truth, strong) in enumerate(((body, 0.95), (place, 0.5))):
            directions = torch.linalg.eigh(truth.T @ truth)[1].flip(1)[:, :depth]  # what a head can hold
            weights = torch.linalg.solve(gram, x.T @ (truth @ directions) / len(x))  # (channels, <= depth)
            code = x @ weights
            gain = (LOGIT * depth**0.5) ** 0.5 / code.norm(dim=1).quantile(strong)
            rows = slice(head * depth, head * depth + weights.shape[1])
            for projection in (layer.to_q, layer.to_k):
                projection.weight[head * depth : (head + 1) * depth] = 0
                projection.weight[rows] = gain * weights.T
            error = (code @ directions.T - truth).square().sum()
            found.append(1 - float(error / (truth - truth.mean(0)).square().sum()))
        shares[name] = (found[0], found[1])
    return shares


def _hidden_states(pipe: Any, num_scenes: int) -> tuple[dict[str, Tensor], list[Pose]]:
    """What enters every self-attention layer, (rows, N, channels), when references and noised targets of the
    world's people pass the network, and the rows' true poses."""
    size, per_pass = pipe.config.default_size, 10
    seen: dict[str, list[Tensor]] = {}
    hooks = [
        layer.to_q.register_forward_hook(lambda _, args, __, n=name: seen.setdefault(n, []).append(args[0]))
        for name, layer in spatial_layers(pipe.unet).items()
    ]
    generator, poses = torch.Generator().manual_seed(1), []
    for first in range(FIRST_SEED, FIRST_SEED + num_scenes, per_pass):
        scenes = [world.Scene.from_seed(seed) for seed in range(first, first + per_pass)]
        both = [[scene.view(k, size=size) for scene in scenes] for k in (0, 1)]
        pixels = [torch.from_numpy(np.stack([v.image for v in views])).permute(0, 3, 1, 2) for views in both]
        z_r, z_0 = (pipe.encode_pictures(x / 127.5 - 1) for x in pixels)
        timesteps = torch.randint(100, 1000, (per_pass,), generator=generator)
        alpha, sigma = process.noise_levels(pipe.scheduler, timesteps)
        z_t = process.noise(z_0, torch.randn(z_0.shape, generator=generator), alpha, sigma)
        features = [pipe.encode_poses([as_detected(v.pose) for v in views], (size, size)) for views in both]
        context = torch.zeros(per_pass, 1, pipe.unet.config.cross_attention_dim)
        joint(
            pipe.unet, z_r[:, None], z_t, pipe.config.reference_timestep, timesteps,
            (features[0], features[1]), (context, context), range(per_pass),
        )  # fmt: skip
        poses += [v.pose for views in both for v in views]
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(states) for name, states in seen.items()}, poses
