"""A long denoising loop goes on where it was cut off: every few steps its state is written to a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from scd.denoiser import Denoiser
from scd.inpaint import Canvas
from scd.reference import active_switches, digest, hash_weights
from scd.types import UserError

log = logging.getLogger("scd")
FILE = "loop.safetensors"
EVERY = 4  # steps between two writings


class Savepoint:
    """The state of one loop (latents, step, guidance, generators, the scheduler's memory) in a folder.
    `settings` say which loop it is: another one's file is not used."""

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]):
        self.path = Path(folder) / FILE
        self.settings = hashlib.blake2b(
            json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16
        ).hexdigest()

    def load(
        self, scheduler: Any, generators: Sequence[torch.Generator | None], device: torch.device
    ) -> tuple[Tensor, int, float] | None:
        """Latents, the number of steps done and the guidance, which a callback may have changed, with
        scheduler and generators put back in place, what lay on an accelerator on `device`; None when there
        is nothing (or something else, or something damaged) to go on from."""
        try:
            with safe_open(self.path, "pt") as file:
                meta = json.loads((file.metadata() or {})["state"])
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            done = tensors["latents"], int(meta["step"]), float(meta["guidance"])
        except Exception:  # missing or damaged: the loop begins anew, which costs time only
            return None
        if meta["settings"] != self.settings:
            return None
        for number, generator in enumerate(generators):
            if generator is not None:
                generator.set_state(tensors[f"generator.{number}"])
        for name, value in meta["scheduler"].items():
            setattr(scheduler, name, _restored(name, value, tensors, device))
        log.info("going on after step %d, from %s", meta["step"], self.path.parent)
        return done

    @staticmethod
    def clear(folder: Path) -> None:
        """Remove what a finished loop left in a folder, and the folder when nothing else is in it."""
        with contextlib.suppress(OSError):
            (folder / FILE).unlink(missing_ok=True)
            folder.rmdir()

    def save(
        self, step: int, guidance: float, latents: Tensor, scheduler: Any,
        generators: Sequence[torch.Generator | None],
    ) -> None:  # fmt: skip
        """Write the state after `step` steps, whole or not at all. Raises UserError when the disk is full."""
        tensors = {"latents": latents}
        for number, generator in enumerate(generators):
            if generator is not None:
                tensors[f"generator.{number}"] = generator.get_state()
        memory = {n: _plain(n, v, tensors) for n, v in vars(scheduler).items() if _is_memory(v)}
        done = {"settings": self.settings, "step": step, "guidance": float(guidance)}
        state = json.dumps({**done, "scheduler": memory})
        temporary = self.path.with_suffix(".tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(tensors, temporary, {"state": state})
            os.replace(temporary, self.path)
        except Exception as error:
            temporary.unlink(missing_ok=True)
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{self.path}: cannot write what is done so far ({reason})") from error


def _is_memory(value: Any) -> bool:
    """What schedulers change while they step: counters, and the outputs that multistep ones look back at."""
    if isinstance(value, list | tuple):
        return bool(value) and all(v is None or isinstance(v, Tensor | int | float) for v in value)
    return isinstance(value, Tensor | int | type(None)) and not isinstance(value, bool)


def _plain(name: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON for a value; tensors go into `tensors`, with a mark where they were."""
    if isinstance(value, Tensor):
        tensors[f"scheduler.{name}"] = value.clone()
        return {"tensor": str(value.device)}
    if isinstance(value, list | tuple):
        return [_plain(f"{name}.{i}", v, tensors) for i, v in enumerate(value)]
    return value


def _restored(name: str, value: Any, tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    if isinstance(value, dict):  # some schedulers keep their sigmas on the host
        return tensors[f"scheduler.{name}"].to("cpu" if value["tensor"] == "cpu" else device)
    if isinstance(value, list):
        return [_restored(f"{name}.{i}", v, tensors, device) for i, v in enumerate(value)]
    return value


def loop_settings(
    pipe: Any,
    denoiser: Denoiser,
    timesteps: Tensor,
    generators: Sequence,
    latents: Tensor | None,
    canvas: Canvas | None = None,
) -> dict[str, Any]:
    """What decides the result of a loop."""
    reference = denoiser.reference
    return {
        "device": denoiser.home[0].type,
        "stamp": pipe.stamp, "switches": active_switches(pipe.unet, motion=True),
        "temporal": hash_weights(pipe.unet, motion_only=True), "shared_noise": pipe.config.shared_noise,
        "scheduler": [type(pipe.scheduler).__name__, dict(pipe.scheduler.config)],
        "timesteps": timesteps.tolist(), "size": denoiser.size, "guidance": denoiser.guidance,
        "window": (denoiser.window, denoiser.overlap),
        "norm": pipe.config.motion_norm_per_frame, "drawing": pipe.config.pose_drawing,
        "poses": [[digest(pose.joints, pose.scores) for pose in clip] for clip in denoiser.clips],
        "groups": None if reference is None else reference.num_groups,
        "reference": None if reference is None else digest(
            reference.context, *(tensor for kv in reference.cache.entries.values() for tensor in kv)
        ),
        "noise": [None if g is None else digest(g.get_state()) for g in generators],
        "latents": None if latents is None else digest(latents),
        "canvas": None if canvas is None else digest(canvas.z_0, canvas.region),
    }  # fmt: skip
