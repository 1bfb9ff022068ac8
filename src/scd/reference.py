"""A reference is a value: read once, kept, saved, moved, shared, and added to others (METHOD 7)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from scd.attention import KVCache
from scd.backbones.motion import is_temporal, picture_config
from scd.media.files import replacing
from scd.types import UserError

FORMAT = "scd-reference-1"

# The parts of a stamp, and what a user reads when one differs
STAMP_PARTS = {
    "format": "another version of this software",
    "config": "another network configuration",
    "weights": "other network weights",
    "adapters": "other LoRA adapters or scales",
    "freeu": "other settings of FreeU",
    "reference_unet": "another reference network",
    "pose_encoder": "another pose encoder",
    "reference_timestep": "another reference timestep",
    "dtype": "another precision",
}

# diffusers 0.42 names the files of a group by its layer alone, and takes a file that is there for its own
NOT_TO_DISK = (
    "group offload to disk would mix up weights: those of components whose layers have one name, of an "
    "earlier run, and of a LoRA loaded later; leave out offload_to_disk_path, and they are kept in memory"
)


class StaleReference(ValueError):
    """A reference was extracted by another network than the one that would read it."""


@dataclass(frozen=True)
class Reference:
    """What the network keeps of one or several reference pictures."""

    cache: KVCache  # K_r, V_r per self-attention layer, (groups, N_r, channels)
    context: Tensor  # (groups, n, D) context tokens of the same pictures, zeros without an image encoder
    stamp: Mapping[str, str]  # which network extracted it

    def __add__(self, other: Reference) -> Reference:
        """Both pictures at once: front and back of a person, a person and a garment. Tokens are joined in
        order, not averaged. Raises ValueError for a stack and a single one."""
        if not isinstance(other, Reference):
            return NotImplemented
        check_stamp(other.stamp, self.stamp)
        if other.num_groups != self.num_groups:
            raise ValueError(
                f"references of {self.num_groups} and {other.num_groups} pictures: stack the sums"
            )
        other = other.to(self.context.device)  # one may come from a file
        return Reference(self.cache + other.cache, torch.cat([self.context, other.context], 1), self.stamp)

    @staticmethod
    def stack(references: Sequence[Reference]) -> Reference:
        """N references for N pictures, one each. Raises ValueError when their sizes or numbers of pictures
        differ."""
        for reference in references[1:]:
            check_stamp(reference.stamp, references[0].stamp)
        references = [reference.to(references[0].context.device) for reference in references]
        if len({reference.context.shape[1:] for reference in references}) > 1:
            raise ValueError("references of one batch need one size and number: call once for each")
        cache = KVCache.stack([r.cache for r in references])  # says what does not fit
        return Reference(cache, torch.cat([r.context for r in references]), references[0].stamp)

    def to(self, *args, **kwargs) -> Reference:
        """As `Tensor.to`. A change of dtype is the network's affair as well: encode again after
        `pipe.to(dtype)`."""
        return Reference(self.cache.to(*args, **kwargs), self.context.to(*args, **kwargs), self.stamp)

    @property
    def num_groups(self) -> int:
        return self.context.shape[0]

    def save(self, path: str | Path) -> None:
        """One safetensors file, written whole, over one that exists. Raises UserError."""
        tensors = {"context": self.context}
        for name, (key, value) in self.cache.entries.items():
            tensors[f"{name}|key"], tensors[f"{name}|value"] = key, value
        on_host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with replacing(path, force=True) as temporary:
            try:
                save_file(on_host, temporary, {"stamp": json.dumps(dict(self.stamp))})
            except SafetensorError as error:  # a full disk, which is no OSError to it
                raise UserError(f"{path} cannot be written: {error}") from None

    @staticmethod
    def load(path: str | Path) -> Reference:
        """The inverse of `save`, on the CPU. Raises UserError for a file that is missing, damaged or
        something else."""
        try:
            with safe_open(path, "pt") as file:
                stamp = json.loads((file.metadata() or {})["stamp"])
                # clone: files are mapped at odd addresses, where kernels differ in the last bit
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            context = tensors.pop("context")
            names = dict.fromkeys(name.rsplit("|", 1)[0] for name in tensors)
            entries = {name: (tensors[f"{name}|key"], tensors[f"{name}|value"]) for name in names}
        except Exception as error:
            raise UserError(
                f"{path}: no readable reference file ({error}); write one with Reference.save"
            ) from error
        return Reference(KVCache(entries), context, stamp)


def make_stamp(
    unet: nn.Module, pose_encoder: nn.Module, reference_timestep: int, reference_unet: nn.Module | None = None
) -> dict[str, str]:
    """What decides what an extract pass makes of latents, drawings and tokens: hashes of configs and weights,
    adapters, timestep, precision, format. The encoders of pictures and tokens are not looked at."""
    # Of the picture part: what is extracted does not depend on motion modules
    config = picture_config(unet)
    stamp = {
        "format": FORMAT,
        "config": hash_settings(config),
        "weights": hash_weights(unet),
        "adapters": _adapters(unet),
        "pose_encoder": hash_weights(pose_encoder),
        "reference_timestep": str(reference_timestep),
        "dtype": str(getattr(unet, "dtype", next(unet.parameters()).dtype)).removeprefix("torch."),
    }
    if reference_unet is not None:
        parts = hash_weights(reference_unet), _adapters(reference_unet), _freeu(reference_unet)
        stamp["reference_unet"] = " ".join(filter(None, parts))
    if freeu := _freeu(unet):  # named only when it acts: stamps of old records stay what they were
        stamp["freeu"] = freeu
    return stamp


def hash_settings(values: Mapping[str, Any]) -> str:
    """Sixteen hex digits over a configuration, in whatever order it is written."""
    text = json.dumps(dict(values), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def active_switches(unet: nn.Module, motion: bool = False) -> str:
    """What acts besides weights: LoRA adapters, of motion modules too when `motion`, and FreeU."""
    return f"{_adapter_state(unet, motion)} {_freeu(unet)}"


def _freeu(unet: nn.Module) -> str:
    """FreeU scales what the last blocks see, and with it the keys that an extract pass leaves."""
    blocks: Any = getattr(unet, "up_blocks", ())
    scales = [getattr(block, name, None) for block in blocks for name in ("s1", "s2", "b1", "b2")]
    return "" if not any(scales) else " ".join(map(str, scales[:4]))


def _adapters(unet: nn.Module) -> str:
    """LoRA adapters of the picture part: which act, how strongly, and what they hold; empty without any."""
    state = _weights(unet).items()
    tensors = {name: t for name, t in state if ".lora_" in name and not is_temporal(name)}
    return f"{_adapter_state(unet)} {_digest(tensors)}" if tensors else ""


def _adapter_state(unet: nn.Module, motion: bool = False) -> str:
    """Which LoRA adapters act, and how strongly, in a few hex digits; empty without any."""
    layers: list[tuple[str, Any]] = [
        (n, m) for n, m in unet.named_modules() if hasattr(m, "lora_A") and (motion or not is_temporal(n))
    ]
    if not layers:
        return ""
    state = [
        (name, layer.active_adapters, layer.scaling, layer.merged_adapters, layer.disable_adapters)
        for name, layer in layers
    ]
    return hashlib.blake2b(repr(state).encode(), digest_size=4).hexdigest()


def hash_weights(module: nn.Module, motion_only: bool = False) -> str:
    """Sixteen hex digits over names and bytes, LoRA adapters apart, of what an extract pass uses (or of the
    motion modules alone, with theirs); 0.1 s for the embedded model, seconds for Stable Diffusion 1.5."""
    state = _weights(module).items()
    state = {n.replace(".base_layer", ""): t for n, t in state if motion_only or ".lora_" not in n}
    return _digest({n: t for n, t in state.items() if is_temporal(n) == motion_only})


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Its tensors by name; those that sequential offload has sent away come from where it keeps them."""
    state = module.state_dict()
    if not any(tensor.is_meta for tensor in state.values()):
        return state
    from accelerate.utils.modeling import get_state_dict_offloaded_model

    return get_state_dict_offloaded_model(module)


def digest(*arrays: Any) -> str:
    """Sixteen hex digits over tensors or arrays, in order."""
    return _digest({f"{i:06d}": torch.as_tensor(a) for i, a in enumerate(arrays)})


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def fingerprint(*modules: nn.Module) -> bytes | None:
    """Eight values of every parameter, as bytes: what tells in milliseconds whether a stamp is still true.

    By content, because no other sign is reliable: moving a network changes every address, and PEFT fuses a
    LoRA through `.data`, which changes no version. None when weights are away (sequential offload). Raises
    ValueError when they are in files (group offload to disk).
    """
    for layer in (layer for module in modules for layer in module.modules()):
        hooks: Any = getattr(layer, "_diffusers_hook", None)
        group = hooks and hooks.get_hook("group_offloading")
        if group is not None and group.config.offload_to_disk_path:
            raise ValueError(NOT_TO_DISK)
    parameters = [p.detach() for module in modules for p in module.parameters()]
    if any(p.is_meta for p in parameters):
        return None
    # offloading leaves some on the accelerator and some on the host
    home = parameters[0].device
    samples = [p.flatten()[:: max(1, p.numel() // 7)][:8].float().to(home) for p in parameters]
    return _bytes(torch.cat(samples))


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def as_reference(given: Any) -> Reference:
    """One reference, or a list of N as a stack. Raises ValueError for anything else."""
    several = isinstance(given, list | tuple)
    for one in given if several else [given]:
        if not isinstance(one, Reference):
            raise ValueError(f"a reference is what pipe.encode_reference returns, not {type(one).__name__}")
    if not several:
        return given
    if not given:
        raise ValueError("an empty list: give one reference for all poses, or one each")
    return Reference.stack(given)


def check_stamp(stamp: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Raise StaleReference that says what changed since the reference was extracted."""
    changed = [text for part, text in STAMP_PARTS.items() if stamp.get(part) != expected.get(part)]
    if changed:
        raise StaleReference(
            f"this reference was extracted with {', '.join(changed)}: call encode_reference again"
        )
