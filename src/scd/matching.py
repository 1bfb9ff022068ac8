"""A loss on what attention reads [ours, after Leffa: Zhou et al. 2024, arXiv 2412.08486].

A place's way back to where it is in the reference is what a network of this kind learns last: every other
error tells it only that a colour is wrong. Here a layer's attention, averaged over its heads, is itself the
answer: the reference's latents, moved by it, have to look like the target. Leffa turns attention into a flow
and moves the picture; latents under the attention itself need no coordinates, and several references add up
as ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

SMALLEST = 16  # places on a layer's shorter side: in coarser ones a place holds several parts of the body
QUERIES = 8  # on each side, of a row in a layer: with 16 a step of the embedded model takes a third longer


def matching_loss(
    seen: Mapping[str, tuple[Tensor, Tensor, Tensor]],
    references: Tensor,
    z_0: Tensor,
    owner: Sequence[int],
    weights: Tensor,
    offset: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Mean squared difference of z_0 and of the reference's latents as attention moves them, over the layers
    of at least SMALLEST x SMALLEST places, the rows that read, and places as `weights` count them: a scalar,
    0 where nothing is read.

    seen: Q, K_r, K by layer (scd.attention.Joint); references (G, R, C, h, w); z_0 (B, C, h, w); owner: the
    group of each row, or -1; weights (B, 1, h, w) at least 0; offset: in [0, 1)^2, which of a layer's places
    are asked, a grid of QUERIES to each side.
    """
    rows = [row for row, group in enumerate(owner) if group >= 0 and weights[row].any()]
    losses = []
    for query, keys_r, keys in seen.values() if rows else ():
        size = _size_of(query.shape[2], z_0.shape[-2:])
        if min(size) < SMALLEST:
            continue
        chosen = _grid(size, offset, query.device)
        groups = [owner[row] for row in rows]
        scale = query.shape[-1] ** -0.5
        asked = query[rows][:, :, chosen] * scale
        logits = torch.cat([asked @ k.transpose(-1, -2) for k in (keys_r[groups], keys[rows])], -1)
        read = logits.float().softmax(-1)[..., : keys_r.shape[2]].mean(1)  # (rows, queries, N_r)
        shown = adaptive_avg_pool2d(references.flatten(0, 1), size).unflatten(0, references.shape[:2])
        shown = shown.flatten(3).permute(0, 1, 3, 2).flatten(1, 2)[groups]  # (rows, N_r, C)
        moved = read @ shown.float() / read.sum(-1, keepdim=True).clamp(min=1e-6)
        wanted, counts = (
            adaptive_avg_pool2d(x[rows].float(), size).flatten(2)[..., chosen].transpose(1, 2)
            for x in (z_0, weights)
        )
        losses.append((counts * (moved - wanted) ** 2).mean(-1).sum() / counts.sum())
    return torch.stack(losses).mean() if losses else z_0.new_zeros(())


def _size_of(num: int, size: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a layer with `num` places, in a network whose input has `size`."""
    h, w = size
    while h * w > num:
        h, w = -(-h // 2), -(-w // 2)
    if h * w != num:
        raise ValueError(f"a layer of {num} places does not belong to latents of {size[0]} x {size[1]}")
    return h, w


def _grid(size: tuple[int, int], offset: tuple[float, float], device: torch.device) -> Tensor:
    """Indices of the places that are asked."""
    strides = [n // QUERIES for n in size]
    ys, xs = (
        torch.arange(int(o * s), n, s, device=device) for n, s, o in zip(size, strides, offset, strict=True)
    )
    return (ys[:, None] * size[1] + xs).flatten()
