"""A network made from nothing starts out knowing what a body is, and reading the same place of its reference.

Trained by the denoising loss alone, a pose encoder hardly told a wrist from an ankle after 80,000 targets,
and attention in the layers that fetch detail stayed spread over a third of the picture (LOG.md). Three things
with exact truth, set before training, and learnt on like everything else after that [ours]:

1. The pose encoder learns from drawings how near each latent pixel is to each place of the body.
2. In every self-attention layer one head starts as a matcher of places of the body and one of places in the
   picture: a wrist looks at the reference's wrist, a piece of wall at the same piece.
3. In the first of these layers both heads hand on the reference's latents that they find there: what the
   network begins with is the reference's picture, bent into the target's pose, beside an unbent copy.

Each of these has its own orthonormal directions among the first level's channels (`Directions`), so that none
disturbs another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scd import process, world
from scd.backbones.unet import joint, spatial_layers
from scd.data.augment import as_detected, seen_in_training
from scd.data.world import FIRST_TRAINING_SEED
from scd.encoders import signed
from scd.pose.draw import draw_pose
from scd.pose_encoder import place_features
from scd.types import BODY, Pose

LIMBS = ((1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
         (1, 0), (2, 8), (5, 11), (8, 11))  # fmt: skip
NUM_PLACES = 15 + len(LIMBS)  # 14 joints, the top of the head, and the middle of each limb
FIRST_SEED = FIRST_TRAINING_SEED + 500_000
# Of the blur around a place, in lengths of the trunk: half the distance of neighbouring places; arms, legs
WIDTHS = np.full(NUM_PLACES, 0.22)
WIDTHS[[3, 4, 6, 7, 16, 17, 19, 20]] = 0.14
WIDTHS[[9, 10, 12, 13, 22, 23, 25, 26]] = 0.17
# Lengths of the codes in the features: about what the latents have beside them, 16 channels of unit deviation
BODY_STRENGTH, PLACE_STRENGTH = 5.0, 1.5
# Of perfect matches, against 0 for tokens that have nothing in common. Neighbouring latent pixels are 0.9 of
# a perfect match on a body and 0.95 in a picture: they get a fifth of its share
LOGIT_BODY, LOGIT_PLACE = 16.0, 32.0
PLACE_FREQUENCIES = 4  # of the codes by which places in the picture match
LOGIT_OWN = 6.0  # by how much a target's own tokens, noise at first, stand behind the reference's
RESIDUE = 0.1  # what is left at first of random branches beside what is set here


@dataclass(frozen=True)
class Directions:
    """Orthonormal rows among `width` channels, by what they carry."""

    body: Tensor  # (31, width) places of the body, from the pose encoder
    place: Tensor  # (4 num_frequencies, width) place in the picture, from the pose encoder
    latents: Tensor  # (C, width) the latents themselves
    bent: Tensor  # (C, width) the reference's latents at the same place of the body
    copied: Tensor  # (C, width) the reference's latents at the same place in the picture
    flag: Tensor  # (1, width) whether a row is a reference

    @classmethod
    def of(cls, width: int, latent_channels: int, num_frequencies: int) -> Directions:
        """Raises ValueError when the channels are too few for all of them."""
        counts = (NUM_PLACES, 4 * num_frequencies, *(latent_channels,) * 3, 1)
        if sum(counts) > width:
            raise ValueError(f"{width} channels of the first level cannot carry {sum(counts)} directions")
        square = torch.randn(width, width, generator=torch.Generator().manual_seed(0))
        return cls(*torch.linalg.qr(square)[0][: sum(counts)].split(counts))


def place_code(pose: Pose, side: int) -> NDArray[np.float32]:
    """How near each cell of a (side, side) grid is to each place of the body: (side, side, 31), of length 1
    on the body and falling to 0 around it. A place outside the picture is nowhere in it."""
    j, seen = pose.joints[BODY], pose.scores[BODY] > 0
    top = 1.5 * j[0] - 0.5 * j[1]
    places = np.concatenate([j[:14], top[None], [(j[a] + j[b]) / 2 for a, b in LIMBS]])
    there = np.concatenate([seen[:14], [seen[0] & seen[1]], [seen[a] & seen[b] for a, b in LIMBS]])
    trunk = max(float(np.linalg.norm(j[1] - (j[8] + j[11]) / 2)), 0.08) if seen[[1, 8, 11]].all() else 0.2
    centres = (np.arange(side) + 0.5) / side
    cells = np.stack(np.meshgrid(centres, centres), -1)
    square = ((cells[:, :, None] - places) ** 2).sum(-1)
    near = there * np.exp(-square / (2 * (WIDTHS * trunk) ** 2))
    length = np.linalg.norm(near, axis=-1, keepdims=True)
    return (near / np.maximum(length, 0.5)).astype(np.float32)


def teach(encoder: Any, directions: Directions, size: int, steps: int, num_scenes: int = 800) -> float:
    """Fit the pose encoder, in place, to the body codes of the world's people at (size, size) pixels, and to
    each latent pixel's place in the picture. Returns the share of the body codes' variance that it explains
    in the last 50 steps."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    num_frequencies = encoder.config.num_frequencies
    # Poses only: a scene remembers its cloth and backdrop, 10 GB for 800 of them
    poses = []
    for seed in range(FIRST_SEED, FIRST_SEED + num_scenes):
        scene = world.Scene.from_seed(seed)
        poses += [scene.view(k, size=size).pose for k in (0, 1)]
    torch.nn.init.normal_(encoder.conv_out.weight, std=0.02, generator=generator)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    encoder.train().requires_grad_(True)
    explained = []
    for _ in range(steps):
        chosen = [poses[i] for i in rng.integers(len(poses), size=24)]
        seen = [seen_in_training(pose, rng) for pose in chosen]
        drawings = np.stack([draw_pose(pose, (size, size)) for pose in seen])
        features = encoder(torch.from_numpy(drawings).permute(0, 3, 1, 2).float() / 255).permute(0, 2, 3, 1)
        codes = torch.from_numpy(np.stack([place_code(pose, features.shape[1]) for pose in chosen]))
        truth = BODY_STRENGTH * codes @ directions.body
        place = place_features(features.permute(0, 3, 1, 2), num_frequencies).permute(0, 2, 3, 1)
        error = (features - truth - PLACE_STRENGTH * place @ directions.place).square()
        error.mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        explained.append(1 - float(error.detach().sum() / (truth - truth.mean((0, 1, 2))).square().sum()))
    encoder.eval()
    return float(np.mean(explained[-50:]))


@torch.no_grad()
def start_reading(pipe: Any, directions: Directions, num_scenes: int = 80) -> dict[str, tuple[float, float]]:
    """Set the first convolution and the matching heads, in place.

    Returns by layer how much of the body's and of the picture's places its hidden states explain.
    """
    unet = pipe.unet
    block = unet.down_blocks[0].attentions[0]
    unet.conv_in.weight.zero_()
    unet.conv_in.weight[:, :, 1, 1] = directions.latents.T
    unet.conv_in.bias.zero_()
    for branch in (unet.down_blocks[0].resnets[0].conv2, block.transformer_blocks[0].ff.net[2]):
        branch.weight *= RESIDUE
    for projection in (block.proj_in, block.proj_out):
        torch.nn.init.eye_(projection.weight)
        torch.nn.init.zeros_(projection.bias)

    _start_flag(unet, pipe.config.reference_timestep, directions.flag)

    hidden, truth = _hidden_states(pipe, num_scenes)
    shares = {}
    for number, (name, layer) in enumerate(spatial_layers(unet).items()):
        x = hidden.pop(name)
        shares[name] = _start_matching(layer, x, truth)
        if number == 0:  # the first layer: values are latents, and each head has its way out
            _start_handing_on(layer, x, truth.latents, directions)
    return shares


def _start_flag(unet: Any, reference_timestep: int, direction: Tensor) -> None:
    """The first block tells references, by their timestep, from targets: in one GroupNorm group after its
    first convolution only the timestep is left, of one sign for references and of the other for targets."""
    resnet, strength = unet.down_blocks[0].resnets[0], 3.0
    timesteps = torch.tensor([reference_timestep] * 200 + list(range(40, 1000)))
    embedding = torch.nn.functional.silu(unet.time_embedding(unet.time_proj(timesteps)))
    sign = torch.where(timesteps == reference_timestep, 1.0, -1.0)[:, None]
    rise = _ridge(torch.cat([embedding, torch.ones(len(embedding), 1)], 1), sign)[:, 0]
    group = slice(0, resnet.norm2.num_channels // resnet.norm2.num_groups)
    resnet.conv1.weight[group] = 0
    resnet.conv1.bias[group] = 0
    resnet.time_emb_proj.weight[group] = 0
    resnet.time_emb_proj.bias[group] = 0
    resnet.conv2.weight[:, group] = 0
    for channel, side in ((0, 1), (1, -1)):
        resnet.time_emb_proj.weight[channel] = side * rise[:-1]
        resnet.time_emb_proj.bias[channel] = side * rise[-1]
        resnet.conv2.weight[:, channel, 1, 1] = side * strength * direction[0]


@dataclass(frozen=True)
class _Truth:
    """What is known of the rows that passed the network: references first, then as many targets."""

    poses: list[Pose]
    latents: Tensor  # (rows, C, h, w), clean


def _start_matching(layer: Any, x: Tensor, truth: _Truth) -> tuple[float, float]:
    """The first head's query and key become one linear map from the hidden state x (rows, N, channels) to
    the place on the body, the second's to the place in the picture, by ridge regression over the world's
    people."""
    rows, side, depth = len(x), round(x.shape[1] ** 0.5), x.shape[2] // layer.heads
    body = torch.from_numpy(np.stack([place_code(p, side) for p in truth.poses])).flatten(0, 2)
    place = place_features(torch.zeros(1, 1, side, side), PLACE_FREQUENCIES)[0].flatten(1).T.repeat(rows, 1)
    is_reference = (torch.arange(rows) < rows // 2).float().repeat_interleave(side * side)[:, None] * 2 - 1
    x = x.flatten(0, 1)
    always, reference = _ridge(x, torch.ones(len(x), 1)), _ridge(x, is_reference)
    found = []
    for head, (code, logit) in enumerate(((body, LOGIT_BODY), (place, LOGIT_PLACE))):
        directions = torch.linalg.eigh(code.T @ code)[1].flip(1)[:, : depth - 1]  # what a head can hold
        weights = _ridge(x, code @ directions)  # (channels, <= depth - 1)
        read = x @ weights
        lengths = read.norm(dim=1)[code.norm(dim=1) > 0.9]
        gain = (logit * depth**0.5) ** 0.5 / lengths.median()
        first, last = head * depth, (head + 1) * depth
        for projection, aside in ((layer.to_q, always), (layer.to_k, reference)):
            projection.weight[first:last] = 0
            projection.weight[first : first + weights.shape[1]] = gain * weights.T
            projection.weight[last - 1] = (LOGIT_OWN / 2 * depth**0.5) ** 0.5 * aside[:, 0]
        error = (read @ directions.T - code).square().sum()
        found.append(1 - float(error / (code - code.mean(0)).square().sum()))
    return found[0], found[1]


def _start_handing_on(layer: Any, x: Tensor, latents: Tensor, directions: Directions) -> None:
    """Both matching heads' values become the latents; each head writes them into directions of its own."""
    half, depth, channels = len(x) // 2, x.shape[2] // layer.heads, latents.shape[1]
    clean = latents[:half].flatten(2).transpose(1, 2).flatten(0, 1)
    weights = _ridge(x[:half].flatten(0, 1), clean)
    layer.to_out[0].weight *= RESIDUE
    for head, way_out in enumerate((directions.bent, directions.copied)):
        first, last = head * depth, (head + 1) * depth
        layer.to_v.weight[first:last] = 0
        layer.to_v.weight[first : first + channels] = weights.T
        layer.to_out[0].weight[:, first:last] = 0
        layer.to_out[0].weight[:, first : first + channels] = way_out.T


def _ridge(x: Tensor, y: Tensor) -> Tensor:
    """Weights (channels, n) that predict y (samples, n) from x (samples, channels)."""
    gram = x.T @ x / len(x)
    return torch.linalg.solve(gram + 1e-3 * gram.diagonal().mean() * torch.eye(x.shape[1]), x.T @ y / len(x))


def _hidden_states(pipe: Any, num_scenes: int) -> tuple[dict[str, Tensor], _Truth]:
    """What enters every self-attention layer, (rows, N, channels), when references and noised targets of the
    world's people pass the network."""
    size, per_pass = pipe.config.default_size, 10
    layers = spatial_layers(pipe.unet)
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}
    hooks = [
        layer.to_q.register_forward_hook(lambda _, args, __, n=name: seen[n].append(args[0].chunk(2)))
        for name, layer in layers.items()
    ]
    generator = torch.Generator().manual_seed(1)
    poses: tuple[list[Pose], list[Pose]] = ([], [])
    latents: tuple[list[Tensor], list[Tensor]] = ([], [])
    for first in range(FIRST_SEED, FIRST_SEED + num_scenes, per_pass):
        scenes = [world.Scene.from_seed(seed) for seed in range(first, first + per_pass)]
        both = [[scene.view(k, size=size) for scene in scenes] for k in (0, 1)]
        pixels = [torch.from_numpy(np.stack([v.image for v in views])).permute(0, 3, 1, 2) for views in both]
        z_r, z_0 = (pipe.encode_pictures(signed(x)) for x in pixels)
        timesteps = torch.randint(100, 1000, (per_pass,), generator=generator)
        alpha, sigma = process.noise_levels(pipe.scheduler, timesteps)
        z_t = process.noise(z_0, torch.randn(z_0.shape, generator=generator), alpha, sigma)
        features = [pipe.encode_poses([as_detected(v.pose) for v in views], (size, size)) for views in both]
        context = torch.zeros(per_pass, 1, pipe.unet.config.cross_attention_dim)
        joint(
            pipe.unet, z_r[:, None], z_t, pipe.config.reference_timestep, timesteps,
            (features[0], features[1]), (context, context), range(per_pass),
        )  # fmt: skip
        for half, (views, z) in enumerate(zip(both, (z_r, z_0), strict=True)):
            poses[half].extend(view.pose for view in views)
            latents[half].append(z)
    for hook in hooks:
        hook.remove()
    hidden = {n: torch.cat([part[half] for half in (0, 1) for part in parts]) for n, parts in seen.items()}
    return hidden, _Truth(poses[0] + poses[1], torch.cat(latents[0] + latents[1]))
