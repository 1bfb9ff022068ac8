"""The method's idea: in self-attention a reference sees itself only, a target sees its reference and itself.

    F_r' = Attn(Q_r, K_r, V_r)                    (Equation 1, the reference)
    F'   = Attn(Q, [K_r ; K], [V_r ; V])          (Equation 2, the target)

Nothing about a reference depends on a target, hence two stages that share one network: *extract* runs the
references once and keeps every layer's projected `K_r, V_r`; *generate* runs the targets and reads them. In
training both are rows of one *joint* batch.

The stage is an argument that travels through stock diffusers networks as
`cross_attention_kwargs={"reference": ...}`: `Extract`, `Cached`, `Joint`, or None, which is the stock network
to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from scd.matching import Seen


def causal_mask(num_reference_tokens: int, num_target_tokens: int) -> Tensor:
    """The paper's mask over joined tokens `[F_r ; F]`, (N_r + N, N_r + N) bool, True = may look.

    Only "query F_r, key F" is forbidden.

    The slow truth that tests compare with; running code never builds it, so flash kernels stay usable.
    """
    is_target = torch.arange(num_reference_tokens + num_target_tokens) >= num_reference_tokens
    return is_target[:, None] | ~is_target[None, :]


@dataclass(frozen=True)
class KVCache:
    """What one or several references left behind in every self-attention layer: a value."""

    # layer name -> K_r, V_r, each (groups, N_r, channels), before heads are split; or alone what they are
    # projected from, which every reading layer then does anew (Collect)
    entries: Mapping[str, tuple[Tensor, ...]]

    def __add__(self, other: KVCache) -> KVCache:
        """Both references' tokens side by side, in order: exact, since no reference sees another."""
        if self.entries.keys() != other.entries.keys():
            raise ValueError("these references come from different networks: their layers differ")
        return KVCache({n: _join([kv, other.entries[n]], dim=1) for n, kv in self.entries.items()})

    @staticmethod
    def stack(caches: Sequence[KVCache]) -> KVCache:
        """One reference per target row, all with the same number of tokens: groups are joined."""
        if len({tuple(kv[0].shape[1:] for kv in cache.entries.values()) for cache in caches}) > 1:
            raise ValueError("references of one batch need one size and number: call once for each size")
        return KVCache({n: _join([cache.entries[n] for cache in caches], dim=0) for n in caches[0].entries})

    def grouped(self, num_references: int) -> KVCache:
        """Rows of references, `num_references` of each group in a row -> as many side by side in a group."""
        joined = {
            name: tuple(x.reshape(len(x) // num_references, -1, x.shape[-1]) for x in kv)
            for name, kv in self.entries.items()
        }
        return KVCache(joined)

    def to(self, *args, **kwargs) -> KVCache:
        """As `Tensor.to`, for every entry."""
        return KVCache({n: tuple(x.to(*args, **kwargs) for x in kv) for n, kv in self.entries.items()})

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for kv in self.entries.values() for t in kv)


def _join(entries: Iterable[tuple[Tensor, ...]], dim: int) -> tuple[Tensor, ...]:
    return tuple(torch.cat(parts, dim) for parts in zip(*entries, strict=True))


@dataclass(frozen=True)
class Extract:
    """Every row is a reference; each layer writes its keys and values into `entries`. With `collected`, what
    another network saw of the same references, those are projected in place of the rows."""

    entries: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    collected: Mapping[str, tuple[Tensor, ...]] | None = None


@dataclass(frozen=True)
class Collect:
    """Every row is a reference, in a network of its own (the ReferenceNet of Animate Anyone, Hu et al. 2023):
    each layer writes what it sees, for the denoising network's projections."""

    entries: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Cached:
    """Every row is a target. `owner[row]` is the group of the cache that the row reads; -1 reads nothing."""

    cache: KVCache
    owner: tuple[int, ...]


@dataclass(frozen=True)
class Joint:
    """Rows are the references of all groups, `num_references` each, then the targets with their `owner`. With
    `seen`, each layer writes there what scd.matching judges its attention by."""

    num_groups: int
    num_references: int
    owner: tuple[int, ...]
    seen: Seen | None = None


Stage = Extract | Collect | Cached | Joint | None  # what travels as `reference`


class CausalSelfAttention(AttnProcessor2_0):
    """Self-attention under the causal interaction: a stock processor with one more argument."""

    def __init__(self, name: str = ""):
        super().__init__()
        self.name = name  # the layer's name in the network: the key of its entries in a cache

    def __repr__(self) -> str:  # what diffusers' `set_default_attn_processor` quotes as it refuses
        return f"CausalSelfAttention of layer {self.name}, which reads the reference"

    def __call__(
        self, attn: Any, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None,
        *, reference: Stage = None,
    ) -> Tensor:  # fmt: skip
        if reference is None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        if encoder_hidden_states is not None or attention_mask is not None or hidden_states.ndim != 3:
            raise ValueError(f"{self.name}: the causal interaction is for unmasked self-attention")
        query, key, value = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        match reference:
            # setdefault: gradient checkpointing runs a layer twice, and the first pass was the one read
            case Extract(entries, collected):
                kv = (key, value) if collected is None else _projected(attn, collected[self.name])
                entries.setdefault(self.name, kv)
                out = attend(query, key, value, attn.heads)
            case Collect(entries):
                entries.setdefault(self.name, (hidden_states,))
                out = attend(query, key, value, attn.heads)
            case Cached(cache, owner):
                if self.name not in cache.entries:
                    raise ValueError(f"no keys for {self.name}: the reference comes from another network")
                kv = _projected(attn, cache.entries[self.name])
                out = attend_with_reference(query, key, value, kv, owner, attn.heads)
            case Joint(num_groups, num_references, owner, seen):
                rows = num_groups * num_references
                kv = tuple(x[:rows].reshape(num_groups, -1, x.shape[-1]) for x in (key, value))
                if seen is not None:
                    seen.setdefault(self.name, _split((query[rows:], kv[0], key[rows:]), attn.heads))
                out = torch.cat([
                    attend(query[:rows], key[:rows], value[:rows], attn.heads),
                    attend_with_reference(query[rows:], key[rows:], value[rows:], kv, owner, attn.heads),
                ])  # fmt: skip
        out = attn.to_out[1](attn.to_out[0](out))
        if attn.residual_connection:
            out = out + hidden_states
        return out / attn.rescale_output_factor


def _projected(attn: Any, entry: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """K_r, V_r of a cache's entry, which may hold only what they are projected from."""
    return entry if len(entry) == 2 else (attn.to_k(entry[0]), attn.to_v(entry[0]))


class ContextAttention(AttnProcessor2_0):
    """Stock cross-attention; it names `reference` only because diffusers warns of what a processor lacks."""

    def __call__(
        self, attn: Any, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None,
        *, reference: Stage = None,
    ) -> Tensor:  # fmt: skip
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


def attend(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    """(Equation 1) Query (rows, N, channels), key and value (rows, M, channels) -> (rows, N, channels)."""
    query, key, value = _split((query, key, value), num_heads)
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2)


def _split(tokens: tuple[Tensor, Tensor, Tensor], num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(rows, N, channels) -> (rows, heads, N, channels of a head), of each."""
    a, b, c = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in tokens)
    return a, b, c


def attend_with_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    reference: tuple[Tensor, ...],
    owner: tuple[int, ...],
    num_heads: int,
) -> Tensor:
    """(Equation 2) Targets see `[K_r ; K]`; rows without a reference are split off and do not pay for it.

    query, key, value: (rows, N, channels); reference: K_r, V_r (groups, N_r, channels); owner: the group of
    each row, or -1.
    """
    if len(owner) != len(query):
        raise ValueError(f"{len(query)} target rows, but {len(owner)} owners")
    readers = [row for row, group in enumerate(owner) if group >= 0]
    if not readers:
        return attend(query, key, value, num_heads)
    if len(readers) < len(owner):
        free = [row for row, group in enumerate(owner) if group < 0]
        out = torch.empty_like(query)
        out[free] = attend(query[free], key[free], value[free], num_heads)
        read = tuple(owner[row] for row in readers)
        out[readers] = attend_with_reference(
            query[readers], key[readers], value[readers], reference, read, num_heads
        )
        return out
    # One group for all rows is a view; other owners are gathered. The joined keys live for the moment of this
    # layer only.
    keys_r, values_r = (x.expand(len(owner), -1, -1) if len(x) == 1 else x[list(owner)] for x in reference)
    return attend(query, torch.cat([keys_r, key], 1), torch.cat([values_r, value], 1), num_heads)
