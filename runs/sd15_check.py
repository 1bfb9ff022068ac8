"""Full-size Stable Diffusion 1.5 end to end, on weights of the true shape with random values: an aged folder
is read, paints a guided step at 512 x 768, learns three steps in each mode, is exported, read again, and
paints.
    .venv/bin/python runs/sd15_check.py run/sd15-check        # 20 GB of memory, 25 GB of disk, ten minutes

Each part runs in a process of its own, so that its peak memory is its own. A table, then one JSON line.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

BIN = Path(sys.executable).parent

STEP = """
import sys, time, torch
import numpy as np
from scd import SCDPipeline
from scd.media import read_image
from scd.pose.detect import detect_one
pipe = SCDPipeline.from_stable_diffusion(sys.argv[1], sys.argv[2])
pose = detect_one(read_image("examples/pose.png"))
picture = torch.from_numpy(read_image("examples/reference.png")).permute(2, 0, 1) / 255
for height, width in ((768, 512), (512, 768), (520, 264)):
    image = torch.nn.functional.interpolate(picture[None], (height, width), mode="bilinear")[0]
    began = time.monotonic()
    reference = pipe.encode_reference(image, pose=pose)
    read = time.monotonic()
    out = pipe(reference, pose, height, width, num_inference_steps=1, guidance_scale=3.5, output_type="np",
               generator=torch.Generator().manual_seed(0)).images
    assert out.shape == (1, height, width, 3) and np.isfinite(out).all()
    print(f"{width} x {height}: reference {read - began:.1f} s, a guided step with decoding "
          f"{time.monotonic() - read:.1f} s, cache {reference.cache.num_bytes / 2**20:.0f} MiB", flush=True)
"""


@dataclass
class Options:
    folder: Annotated[Path, tyro.conf.Positional]
    modes: tuple[str, ...] = ("lora", "attention", "all")
    size: int = 64
    """Pixels of the training pictures."""


def measured(title: str, *command: str | Path) -> dict[str, float | str]:
    """Run a command; its seconds and peak memory. Stops everything when it fails."""
    began = time.monotonic()
    process = subprocess.Popen([str(part) for part in command])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{title}: failed with status {status}")
    row = {"part": title, "seconds": round(time.monotonic() - began), "peak_gib": usage.ru_maxrss / 2**20}
    print(f"{title}: {row['seconds']} s, {row['peak_gib']:.1f} GiB", flush=True)
    return row


def main(options: Options) -> None:
    folder = options.folder
    sd, clip, run = folder / "sd15", folder / "clip", folder / "run"
    rows = []
    if not (clip / "pytorch_model.bin").is_file():
        rows.append(measured("folder", BIN / "python", "runs/sd15_folder.py", sd, clip, "--aged"))
    rows.append(measured("one step", BIN / "python", "-c", STEP, sd, clip))
    for mode in options.modes:
        shutil.rmtree(run, ignore_errors=True)
        train = (
            BIN / "scd", "train", "sd15-pictures", "--init", sd, "--image-encoder", clip, "--run", run,
            "--learn", mode, "--data.size", options.size, "--data.groups", "1", "--data.targets", "2",
            "--data.workers", "0", "--data.references", "1.0", "--accumulation", "1", "--ema-decay", "0",
            "--sample-pictures", "0", "--log-every", "1", "--warmup", "1", "--lr", "1e-4",
        )  # fmt: skip
        rows.append(measured(f"two steps, {mode}", *train, "--steps", "2"))
        rows.append(measured(f"the third, resumed, {mode}", *train, "--steps", "3"))
        losses = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        print([round(row["loss"], 4) for row in losses if "loss" in row])
        rows.append(measured(
            f"paint, {mode}", BIN / "scd", "animate", "examples/reference.png", "examples/pose.png",
            "--model", run / "model", "--size", "256", "--steps", "2", "-o", folder / f"{mode}.png",
            "--force",
        ))  # fmt: skip
    shutil.rmtree(run, ignore_errors=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main(tyro.cli(Options))
