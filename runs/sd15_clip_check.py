"""Stable Diffusion 1.5 and AnimateDiff v1-5-2 at full size, on weights of the true shape with random values:
an aged folder and a half-precision adapter are read, every key accounted for, a guided step of a short clip
is painted, everything is saved, read again in a fresh process, and paints the same.

    .venv/bin/python runs/sd15_clip_check.py run/sd15-clip-check      # 16 GB of memory, 15 GB of disk

Each part runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from sd15_check import BIN, measured

COMMON = """
import sys, time
from pathlib import Path
import torch
from safetensors import safe_open
from scd import SCDPipeline
from scd.backbones import motion
from scd.types import NUM_JOINTS, Pose, PoseClip

def keys(folder):
    found = {}
    for path in Path(folder).glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found.update({name: file.get_slice(name).get_shape() for name in file.keys()})
    return found

def paint(pipe, frames, size, folder):
    def pose(seed):
        joints = torch.rand(NUM_JOINTS, 2, generator=torch.Generator().manual_seed(seed)).numpy()
        return Pose(joints, torch.ones(NUM_JOINTS).numpy(), (size, size))
    picture = torch.rand(3, size, size, generator=torch.Generator().manual_seed(0))
    reference = pipe.encode_reference(picture, pose(0))
    clip = PoseClip.from_poses([pose(1 + i) for i in range(frames)], 30.0)
    began = time.monotonic()
    latents = pipe(reference, clip, size, size, num_inference_steps=1, guidance_scale=3.5,
                   generator=torch.Generator().manual_seed(0), output_type="latent").frames
    print(f"{frames} frames of {size} x {size}: a guided step {time.monotonic() - began:.1f} s")
    assert latents.shape == (1, 4, frames, size // 8, size // 8) and latents.isfinite().all()
    return latents

sd, clip, adapter, saved, result, frames, size = sys.argv[1:]
frames, size = int(frames), int(size)
"""

FIRST = COMMON + """
pipe = SCDPipeline.from_stable_diffusion(sd, clip, motion_adapter=adapter)
torch.nn.init.normal_(pipe.pose_encoder.conv_out.weight, std=0.02)  # a starting point passes no pose yet
state = pipe.unet.state_dict()
spatial, temporal = keys(sd + "/unet"), keys(adapter)
assert state.keys() == spatial.keys() | temporal.keys() and not spatial.keys() & temporal.keys()
assert all(list(state[name].shape) == list(shape) for name, shape in (spatial | temporal).items())
counts = [sum(state[name].numel() for name in part) for part in (spatial, temporal)]
print(f"keys: {len(spatial)} spatial, {len(temporal)} temporal; parameters {counts[0]:,} + {counts[1]:,}")
latents = paint(pipe, frames, size, saved)
alone = paint(pipe, 1, size, saved)
print(f"the other frames move the first one by {(alone[:, :, 0] - latents[:, :, 0]).abs().max():.3f}")
assert not torch.equal(alone[:, :, 0], latents[:, :, 0])
pipe.save_pretrained(saved)
torch.save(latents, result)
"""

AGAIN = COMMON + """
pipe = SCDPipeline.from_pretrained(saved)
assert motion.has_motion(pipe.unet)
difference = (paint(pipe, frames, size, saved) - torch.load(result, weights_only=True)).abs().max().item()
print(f"saved and read again: largest difference {difference}")
assert difference == 0
"""


@dataclass
class Options:
    folder: Annotated[Path, tyro.conf.Positional]
    frames: int = 4
    size: int = 64
    """Pixels of a frame."""


def main(options: Options) -> None:
    folder = options.folder
    sd, clip, adapter, saved = (folder / name for name in ("sd15", "clip", "motion", "saved"))
    arguments = (sd, clip, adapter, saved, folder / "clip.pt", options.frames, options.size)
    rows = []
    if not (adapter / "config.json").is_file():
        rows.append(measured("folders", BIN / "python", "runs/sd15_folder.py", sd, clip, "--aged",
                             "--motion", adapter))  # fmt: skip
    shutil.rmtree(saved, ignore_errors=True)
    rows.append(measured("read, one clip step, save", BIN / "python", "-c", FIRST, *arguments))
    rows.append(measured("read again, the same step", BIN / "python", "-c", AGAIN, *arguments))
    print(json.dumps(rows))


if __name__ == "__main__":
    main(tyro.cli(Options))
