"""A loss on what attention reads [ours, after Leffa: Zhou et al. 2024, arXiv 2412.08486].

A place's way back to where it is in the reference is what a network of this kind learns last: every other
error tells it only that a colour is wrong. Here a layer's attention, averaged over its heads, is itself the
answer: the reference's latents, moved by it, have to look like the target. Leffa turns attention into a flow
and moves the picture; latents under the attention itself need no coordinates, and several references add up
as ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from scd.types import UserError

SMALLEST = 16  # places on a layer's shorter side: in coarser ones a place holds several parts of the body
QUERIES = 8  # on each side, of a row in a layer: with 16 a step of the embedded model takes a third longer

# What a joint pass leaves of each layer, by name: Q, K_r, K of the targets and their references, heads split
# off: (B, heads, N, c), (groups, heads, N_r, c), (B, heads, N, c)
Seen = dict[str, tuple[Tensor, Tensor, Tensor]]


def matching_loss(
    seen: Seen,
    references: Tensor,
    z_0: Tensor,
    owner: Sequence[int],
    weights: Tensor,
    offset: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Mean squared difference of z_0 and of the reference's latents as attention moves them, over the layers
    of at least SMALLEST x SMALLEST places, the rows that read, and places as `weights` count them: a scalar,
    0 where nothing is read. In float32 under any autocast: what is read of a reference may be next to nothing
    beside what a target reads of itself, and half precision cannot divide by that.

    references (G, R, C, h, w); z_0 (B, C, h, w); owner: the
    group of each row, or -1; weights (B, 1, h, w) at least 0; offset: in [0, 1)^2, which of a layer's places
    are asked, a grid of QUERIES or somewhat more to each side. Raises UserError when no layer is so fine.
    """
    sizes = {name: _size_of(query.shape[2], z_0.shape[-2:]) for name, (query, _, _) in seen.items()}
    fine = [name for name, size in sizes.items() if min(size) >= SMALLEST]
    if not fine:
        raise UserError(
            f"--matching-weight: no attention of this network has {SMALLEST} x {SMALLEST} places at this "
            "size; leave it out, or train on larger pictures"
        )
    counted = weights.flatten(1).any(1).tolist()
    rows = [row for row, group in enumerate(owner) if group >= 0 and counted[row]]
    if not rows:
        return z_0.new_zeros(())
    groups = [owner[row] for row in rows]
    with torch.autocast(z_0.device.type, enabled=False):
        losses = []
        for name in fine:
            query, keys_r, keys = seen[name]
            size = sizes[name]
            chosen = _grid(size, offset, query.device)
            asked = query[:, :, chosen][rows].float() * query.shape[-1] ** -0.5
            logits = [asked @ k.float().transpose(-1, -2) for k in (keys_r[groups], keys[rows])]
            read = torch.cat(logits, -1).softmax(-1)[..., : keys_r.shape[2]].mean(1)  # (rows, queries, N_r)
            shown = adaptive_avg_pool2d(references.flatten(0, 1).float(), size)
            shown = shown.unflatten(0, references.shape[:2]).flatten(3).transpose(2, 3).flatten(1, 2)
            moved = read @ shown[groups] / read.sum(-1, keepdim=True).clamp(min=1e-6)
            wanted, counts = (
                adaptive_avg_pool2d(x.float(), size).flatten(2)[:, :, chosen][rows].transpose(1, 2)
                for x in (z_0, weights)
            )
            off = (counts * (moved - wanted) ** 2).mean(-1).sum()
            losses.append(off / counts.sum().clamp(min=1e-6))
        return torch.stack(losses).mean()


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
