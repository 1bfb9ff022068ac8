"""Which diffusers schedulers can sample what a network was trained on: its prediction type and its noise
schedule, to the last alpha-bar.

A scheduler that ignores part of the saved config (`rescale_betas_zero_snr` in PNDM, Heun and others) paints
grey backgrounds and says nothing, so it is refused by name when it is assigned.
"""

from __future__ import annotations

import copy
from typing import Any

import diffusers
import torch

from scd.process import objective_name

# Tried when a refusal has to name what fits; each was measured against DDIM on a known distribution
# (tests/test_schedulers.py). `Scheduler` is left off the names.
KNOWN = (
    "DDIM", "DDPM", "EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep",
    "UniPCMultistep", "DEISMultistep", "LCM", "TCD", "PNDM", "HeunDiscrete", "LMSDiscrete",
)  # fmt: skip

# Largest difference of alpha-bar that counts as the same schedule. Euler, DPM++ and UniPC put 2^-24 in place
# of a terminal 0; a forgotten rescaling moves alpha-bar by 0.035, `linear` for `scaled_linear` by 0.1
TOLERANCE = 1e-4


def check_scheduler(trained: Any, scheduler: Any) -> None:
    """Raise ValueError when `scheduler` cannot sample what `trained`, the one saved with the weights,
    describes."""
    problem = mismatch(trained, scheduler)
    if problem is None:
        return
    name = type(scheduler).__name__
    raise ValueError(
        f"{name} does not fit this model: {problem}. "
        f"Take one of {_fitting(trained)} and make it with NAMEScheduler.from_config(pipe.scheduler.config)"
    )


def scheduler_named(trained: Any, name: str) -> Any:
    """The scheduler of a name in KNOWN, in whatever case, with the schedule of `trained`. Raises ValueError
    that says which there are."""
    known = {each.lower(): each for each in KNOWN}.get(name.removesuffix("Scheduler").lower())
    if known is None or not _fits(trained, known):
        raise ValueError(f"{name}: not a scheduler that fits this model; take one of {_fitting(trained)}")
    return _made(trained, known)


def begin(scheduler: Any, num: int | None, default: int, device: torch.device) -> torch.Tensor:
    """The timesteps of a loop of `num` steps, `default` where None. Raises ValueError for fewer than one,
    and for a scheduler of flows."""
    num = default if num is None else num
    if num < 1:
        raise ValueError(f"num_inference_steps {num}: one step at least")
    if not hasattr(scheduler, "scale_model_input"):  # flow: METHOD 8's transformers
        raise ValueError(f"{type(scheduler).__name__}: its models are trained, not yet sampled")
    scheduler.set_timesteps(num, device=device)
    return scheduler.timesteps


def mismatch(trained: Any, scheduler: Any) -> str | None:
    """Why `scheduler` cannot sample what `trained` describes; None where it can."""
    try:
        wanted, given = objective_name(trained), objective_name(scheduler)
    except (ValueError, AttributeError) as error:
        return f"its prediction type is not one of SCD's ({error})"
    if wanted != given:
        return f"it is set to {given}, the model predicts {wanted}"
    if wanted == "flow":
        return None
    ours, theirs = trained.alphas_cumprod, getattr(scheduler, "alphas_cumprod", None)
    if theirs is None:
        return "it has no alpha-bar schedule of timesteps"
    if len(ours) != len(theirs) or (ours - theirs.to(ours)).abs().max() > TOLERANCE:
        return (
            f"its noise schedule is another (last alpha-bar {float(theirs[-1]):.4f} of {len(theirs)}, "
            f"trained {float(ours[-1]):.4f} of {len(ours)})"
        )
    for name in ("clip_sample", "thresholding"):
        if scheduler.config.get(name) and not trained.config.get(name):
            return f"its {name} is on, and would cut off latents: {name}=False"
    try:  # some know their prediction types only when they step
        probe, zeros = copy.deepcopy(scheduler), torch.zeros(1, 1, 2, 2)
        probe.set_timesteps(10)
        probe.step(zeros, probe.timesteps[0], probe.scale_model_input(zeros, probe.timesteps[0]))
    except (NotImplementedError, TypeError, ValueError) as error:  # TypeError: a step that wants more
        return str(error)
    return None


def _fitting(trained: Any) -> str:
    return ", ".join(name for name in KNOWN if _fits(trained, name))


def _fits(trained: Any, name: str) -> bool:
    try:
        scheduler = _made(trained, name)
    except (ImportError, ValueError, NotImplementedError):  # LMS asks for SciPy; PNDM knows no x0
        return False
    return mismatch(trained, scheduler) is None


def _made(trained: Any, name: str) -> Any:
    """With what only the trained one's class knows, too: diffusers keeps it for the next change (without it,
    DDIM made from UniPC would clip). The class is named, so that diffusers does not warn."""
    kind = getattr(diffusers, f"{name}Scheduler")
    # What was the trained one's default stays its value; nothing is cut off that was not before
    config = {key: value for key, value in trained.config.items() if key != "_use_default_values"}
    config = {"clip_sample": False, "thresholding": False, **config, "_class_name": type(trained).__name__}
    return kind.from_config(config)
