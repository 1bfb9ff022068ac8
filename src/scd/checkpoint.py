"""Training state on disk: safetensors and JSON, written whole or not at all, and read back to the bit."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scd import sharding
from scd.types import UserError

WRITE_ERRORS = (OSError, SafetensorError)  # a full disk is the latter where safetensors writes
_NAME = re.compile(r"checkpoint-\d{8,}")
KEEP = 2  # checkpoints kept in a run: the newest, and the one before in case the newest's disk dies


State = dict[str, dict[str, Tensor]]  # the tensors of a checkpoint's files, by file and name


def gather(model: nn.Module, optimizer: torch.optim.Optimizer, ema: list[Tensor], keep: bool = True) -> State:
    """What a checkpoint holds, whole, on the host. Where parameters are in shards all processes call this,
    and those that do not write keep nothing."""
    weights = _learnable(model)
    files = {
        "model": weights,
        "ema": dict(zip(weights, ema, strict=True)) if ema else {},
        "optimizer": _optimizer_tensors(model, optimizer),
    }
    state: State = {file: {} for file in files}
    for file, tensors in files.items():
        for name, tensor in tensors.items():
            value = sharding.whole(tensor.detach())
            if keep:
                state[file][name] = value.cpu().contiguous()
    return state


def save_checkpoint(folder: Path, step: int, state: State, meta: dict) -> Path:
    """Write `folder/checkpoint-STEP`: a temporary folder first, then a rename. Older ones beyond KEEP are
    removed."""
    final = folder / f"checkpoint-{step:08d}"
    temporary = folder / f"{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for name, tensors in state.items():
            save_file(tensors, temporary / f"{name}.safetensors")
        (temporary / "state.json").write_text(json.dumps({**meta, "step": step}))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
    except WRITE_ERRORS as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"{final}: cannot write the checkpoint ({_reason(error)}); free some space and run again"
        ) from error
    for old in checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old)
    return final


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first; copies under other names are none."""
    return sorted(
        p for p in folder.glob("checkpoint-*") if _NAME.fullmatch(p.name) and (p / "state.json").is_file()
    )


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: list[Tensor]
) -> dict:
    """Restore everything in place and return the meta values. Values are copied into the existing tensors:
    safetensors maps files at odd addresses, where kernels differ in the last bit, and then no resumed run
    would equal an uninterrupted one."""
    try:
        weights, average, moments = (
            load_file(path / f"{n}.safetensors") for n in ("model", "ema", "optimizer")
        )
        meta = json.loads((path / "state.json").read_text())
        if lacking := {"step", "seconds", "ema_step"} - meta.keys():
            raise ValueError(f"state.json lacks {', '.join(sorted(lacking))}")
    except Exception as error:
        raise UserError(
            f"{path}: damaged checkpoint ({error}); remove this folder to continue from the one before"
        ) from error
    state = _learnable(model)
    if state.keys() != weights.keys():
        raise UserError(
            f"{path}: holds another network; not in both: {sorted(state.keys() ^ weights.keys())[:6]}"
        )
    if other := [name for name, tensor in state.items() if tensor.shape != weights[name].shape]:
        raise UserError(f"{path}: holds a network of other sizes: {', '.join(other[:3])}")
    with torch.no_grad():
        for name, tensor in state.items():
            sharding.put(tensor, weights[name])
        for name, tensor in zip(state, ema, strict=False):  # no average, nothing to restore
            sharding.put(tensor, average[name])
    for name, parameter in model.named_parameters():
        own = {k.split("|")[1]: v.clone() for k, v in moments.items() if k.split("|")[0] == name}
        if own:
            # In the parameter's memory layout and where it lies, the count of steps too: fused kernels
            # walk all as they are
            optimizer.state[parameter] = {
                k: sharding.put(torch.empty_like(parameter), v)
                if v.shape == parameter.shape
                else v.to(parameter.device)
                for k, v in own.items()
            }
    return meta


def _learnable(model: nn.Module) -> dict[str, nn.Parameter]:
    """What a checkpoint holds: frozen weights are the run's `model/`, or its init."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    named = ((name, optimizer.state.get(parameter, {})) for name, parameter in model.named_parameters())
    return {
        f"{name}|{key}": value
        for name, state in named
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def put_back(folder: Path) -> None:
    """Undo a swap of `export` that was killed half-way."""
    folder = folder.resolve()
    old = folder.with_name(folder.name + ".old")
    if old.is_dir() and not folder.exists():
        os.replace(old, folder)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to write into, which becomes `folder` when the block ends well: whole or not at all.
    A link stays one. Raises UserError where the disk is full."""
    folder = folder.resolve()
    temporary, old = folder.with_name(folder.name + ".tmp"), folder.with_name(folder.name + ".old")
    put_back(folder)
    for path in (temporary, old):
        shutil.rmtree(path, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
    except WRITE_ERRORS as error:
        raise UserError(
            f"{folder}: cannot write the model ({_reason(error)}); free some space and run again"
        ) from error
    finally:
        put_back(folder)  # cut off between the two renames
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def export(pipe, folder: Path, dtype: torch.dtype | None = None, card: str = "") -> None:
    """`pipe.save_pretrained`, whole or not at all. `dtype` halves what is shipped, and the pipeline is in it
    afterwards; `card` becomes its README.md."""
    if dtype is not None:
        pipe.to(dtype)
    with whole_folder(folder) as temporary:
        pipe.save_pretrained(temporary)
        if card:
            (temporary / "README.md").write_text(card)
