"""A machine with an accelerator, played on one without: every tensor's storage carries the device it would
lie on, and an operation that mixes devices fails as it would there.

Real values are computed, by the CPU. Tensors on torch's meta device may stand for large ones: then only
shapes, devices and lifetimes are real, and `Accelerator.peak_bytes` says what would stand on the accelerator.
Not played: streams, kernels' own workspaces, an allocator's rounding.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

CPU, META = torch.device("cpu"), torch.device("meta")
ATEN = torch.ops.aten
COPIES = {ATEN.copy_, ATEN._to_copy}  # between any two devices
INDEXING = {ATEN.index, ATEN.index_put_, ATEN.index_put, ATEN._index_put_impl_}  # indices may lie on the CPU


class Accelerator:
    """What stands on the played accelerator, in bytes."""

    def __init__(self):
        self.bytes = self.peak_bytes = 0

    def restart(self) -> None:
        """Count the peak from here on."""
        self.peak_bytes = self.bytes

    def add(self, num: int) -> None:
        self.bytes += num
        self.peak_bytes = max(self.peak_bytes, self.bytes)


def device_of(tensor: Tensor) -> torch.device:
    """Where a tensor lies in the play."""
    with torch._C.DisableTorchFunction():
        return getattr(tensor.untyped_storage(), "played", None) or tensor.device


def numbered(device: Any) -> torch.device:
    """`cuda` is its first one."""
    device = torch.device(device)
    return torch.device("cuda:0") if device == torch.device("cuda") else device


def place(tensor: Tensor, device: Any, accelerator: Accelerator | None = None) -> Tensor:
    """Say that a tensor's storage lies on a device. Nothing is computed or copied."""
    device = numbered(device)
    with torch._C.DisableTorchFunction():
        storage: Any = tensor.untyped_storage()
        storage.played = device
        if device.type == "cuda" and accelerator is not None:
            accelerator.add(storage.nbytes())
            weakref.finalize(storage, accelerator.add, -storage.nbytes())
    return tensor


@contextmanager
def second_device() -> Iterator[Accelerator]:
    """Inside, `cuda` is a device like any other."""
    accelerator = Accelerator()
    with Kernels(accelerator), Calls(accelerator):
        yield accelerator


class Calls(TorchFunctionMode):
    """What Python asks torch for: a tensor's device, a move, something new on a device."""

    def __init__(self, accelerator: Accelerator):
        super().__init__()
        self.accelerator = accelerator

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:
            return device_of(args[0])
        if func == torch.Tensor.is_meta.__get__:
            return device_of(args[0]) == META
        if func == torch.Tensor.is_cuda.__get__:
            return device_of(args[0]).type == "cuda"
        if func in (torch.Tensor.numpy, torch.Tensor.__array__) and device_of(args[0]) != CPU:
            raise TypeError(f"can't convert a {device_of(args[0])} tensor to numpy: use Tensor.cpu()")
        if func is F.scaled_dot_product_attention and args[0].is_meta:
            # What flash attention leaves; torch's own answer on meta is the whole matrix
            query, _, value = args[:3]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        if func is torch.Tensor.cpu:
            return self.moved(args[0], CPU)
        if func is torch.Tensor.to:
            return self.to(*args, **kwargs)
        if kwargs.get("device") is None or func is torch._C._nn._parse_to:
            return func(*args, **kwargs)
        device = torch.device(kwargs.pop("device"))
        new = func(*args, **kwargs, device=META if device == META else CPU)
        return place(new, device, self.accelerator)

    def to(self, tensor: Tensor, *args, **kwargs) -> Tensor:
        if args and isinstance(args[0], Tensor):
            return self.to(tensor, device_of(args[0]), args[0].dtype, *args[1:], **kwargs)
        kwargs.pop("copy", None)
        device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        if dtype is not None or memory_format is not None:
            more = {} if memory_format is None else {"memory_format": memory_format}
            tensor = tensor.to(dtype=dtype or tensor.dtype, **more)
        return tensor if device is None else self.moved(tensor, device)

    def moved(self, tensor: Tensor, device: Any) -> Tensor:
        device, here = numbered(device), device_of(tensor)
        if here == device:
            return tensor
        if device == META:
            return place(torch.empty(tensor.shape, dtype=tensor.dtype, device=META), META)
        if here == META:
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        with _disable_current_modes():
            return place(tensor.clone(), device, self.accelerator)


class Kernels(TorchDispatchMode):
    """Every operation, whoever asked for it: its tensors lie on one device, and so does what it makes."""

    def __init__(self, accelerator: Accelerator):
        super().__init__()
        self.accelerator = accelerator

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = func.overloadpacket
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        with torch._C.DisableTorchFunction():
            bound = tensors
            if packet in COPIES:
                bound = tensors[:1]
            elif packet in INDEXING:
                bound = tensors[:1] + [t for t in tensors[1:] if device_of(t).type == "cuda"]
            found = {device_of(t) for t in bound if t.ndim or device_of(t) != CPU}
            if len(found) > 1:
                shapes = ", ".join(f"{tuple(t.shape)} on {device_of(t)}" for t in bound)
                raise RuntimeError(f"Expected all tensors to be on the same device: {func} got {shapes}")
            if any(t.is_meta for t in tensors) and not all(t.is_meta for t in tensors):
                args, kwargs = tree_map(_without_values, (args, kwargs))
            out = func(*args, **kwargs)
            device = found.pop() if found else None
            if device not in (None, META):
                for new in tree_leaves(out):
                    if isinstance(new, Tensor) and not hasattr(new.untyped_storage(), "played"):
                        place(new, device, self.accelerator)
        return out


def _without_values(leaf: Any) -> Any:
    return leaf.to("meta") if isinstance(leaf, Tensor) else leaf
