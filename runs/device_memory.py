"""What stands on the accelerator, by the way weights are offloaded: Stable Diffusion 1.5 with CLIP ViT-L/14
and AnimateDiff's motion modules in half precision, at 512 x 768, guided.

    .venv/bin/python runs/device_memory.py        # a minute, a gigabyte of memory, no accelerator

COMPUTED, not measured. The pipeline and diffusers' and accelerate's own hooks run on a played accelerator
(second_device.py), with networks on torch's meta device: sizes and lifetimes of all tensors are those of a
real call, and attention leaves what flash attention leaves. A real device adds its context, its kernels'
workspaces and its allocator's rounding. Peaks in GiB: a table, then one JSON line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from diffusers import DDIMScheduler, MotionAdapter
from second_device import place, second_device

from scd import SCDPipeline
from scd.stable_diffusion import untrained
from scd.types import NUM_JOINTS, Pose, PoseClip

CUDA = torch.device("cuda")
WAYS = {
    "none": lambda pipe: pipe.to(CUDA),
    "model": lambda pipe: pipe.enable_model_cpu_offload(device=CUDA),
    "group, blocks": lambda pipe: pipe.enable_group_offload(CUDA, num_blocks_per_group=1),
    "group, leaves": lambda pipe: pipe.enable_group_offload(CUDA, offload_type="leaf_level"),
    "sequential": lambda pipe: pipe.enable_sequential_cpu_offload(device=CUDA),
}


@dataclass
class Options:
    height: int = 768
    width: int = 512
    window: int = 24
    """Frames of a clip that stand on the accelerator at once."""
    frames: int = 96
    """Of the long clip."""


class Stamped(SCDPipeline):
    """Weights without values have no hash."""

    stamp: Any = {"weights": "none"}  # noqa: RUF012


def pipeline(motion: bool, options: Options) -> Stamped:
    """Everything on the host, in half precision."""
    with torch.device("meta"):
        unet, vae, pose_encoder, clip = untrained()
        adapter = MotionAdapter(motion_max_seq_length=32) if motion else None
    for network in (unet, vae, pose_encoder, clip, adapter):
        if network is not None:
            network.half()
            for tensor in (*network.parameters(), *network.buffers()):
                place(tensor, "cpu")
    scheduler = DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, clip_sample=False,
                              timestep_spacing="trailing")  # fmt: skip
    pipe = Stamped(vae, unet, pose_encoder, scheduler, clip, adapter, default_window=options.window)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def peaks(enable, frames: int, options: Options) -> dict[str, float]:
    """GiB at rest, while a reference is read, and while a picture (frames 0) or a clip is painted."""
    pose = Pose(np.full((NUM_JOINTS, 2), 0.5, np.float32), np.ones(NUM_JOINTS, np.float32),
                (options.height, options.width))  # fmt: skip
    found = {}
    with second_device() as accelerator:
        pipe = pipeline(frames > 0, options)
        enable(pipe)
        found["rest"] = accelerator.bytes
        accelerator.restart()
        reference = pipe.encode_reference(np.zeros((options.height, options.width, 3), np.uint8), pose)
        found["read"] = accelerator.peak_bytes
        accelerator.restart()
        poses = PoseClip.from_poses([pose] * frames, 30.0) if frames else pose
        pipe(reference, poses, options.height, options.width, num_inference_steps=2, guidance_scale=3.5,
             output_type="pt", generator=torch.Generator().manual_seed(0))  # fmt: skip
        found["paint"] = accelerator.peak_bytes
    return {name: value / 2**30 for name, value in found.items()}


def main(options: Options) -> None:
    size = f"{options.width} x {options.height}"
    kinds = {
        f"picture, {size}": 0,
        f"clip of {options.window} frames": options.window,
        f"clip of {options.frames} frames": options.frames,
    }
    print(f"| offload | weights at rest | reading a reference | {' | '.join(kinds)} |")
    print("|---|" + "---|" * (2 + len(kinds)))
    rows = {}
    for name, enable in WAYS.items():
        found = {kind: peaks(enable, frames, options) for kind, frames in kinds.items()}
        longest = found[list(kinds)[-1]]
        cells = [longest["rest"], longest["read"], *(row["paint"] for row in found.values())]
        print(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |", flush=True)
        rows[name] = found
    print(json.dumps(rows))


if __name__ == "__main__":
    main(tyro.cli(Options))
