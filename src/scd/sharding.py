"""Parameters in shards (FSDP2): each process holds a part of every tensor of the networks that learn, and of
its gradient, moments and average. What here asks for whole tensors, all processes ask together."""

from __future__ import annotations

import copy
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from scd.pipeline import SCDPipeline
from scd.types import UserError


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether `prepare` will shard. Raises UserError for FSDP's first version, whose flattened parameters
    have no names to save them by."""
    if accelerator.distributed_type != DistributedType.FSDP:
        return False
    if not accelerator.is_fsdp2:
        raise UserError("FSDP's first version is not supported; set fsdp_version: 2, as runs/fsdp.yaml does")
    return True


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which this process may hold a part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def put(tensor: Tensor, value: Tensor) -> Tensor:
    """Copy a whole value into a tensor, or into the part of it that this process holds."""
    if isinstance(tensor, DTensor):
        value = distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements)
    return tensor.copy_(value)


def duplicate(pipe: SCDPipeline) -> SCDPipeline:
    """A pipeline with networks of its own where they learn, to paint with and to publish while the first
    one's are in shards."""
    own = {name: copy.deepcopy(getattr(pipe, name)) for name in ("unet", "pose_encoder", "reference_unet")}
    duplicated: Any = SCDPipeline.from_pipe(pipe, **own)
    return duplicated


def assemble(names: list[str], parts: list[Tensor], into: nn.Module | None) -> None:
    """Copy the whole tensors into the parameters of those names; None = another process wants them."""
    target = {} if into is None else dict(into.named_parameters())
    for name, part in zip(names, parts, strict=True):
        value = whole(part)
        if target:
            put(target[name].data, value)
