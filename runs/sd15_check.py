"""Full-size Stable Diffusion 1.5 end to end, on weights of the true shape with random values: an aged folder
is read, paints a guided step at 512 x 768, learns three steps in each mode, is exported, read again, and
paints.
    .venv/bin/python runs/sd15_check.py run/sd15-check        # 20 GB of memory, 25 GB of disk, ten minutes
    .venv/bin/python runs/sd15_check.py run/sd15-check --tryon --modes lora attention    # the preset vitonhd

Each part runs in a process of its own, so that its peak memory is its own; seconds of the clock and of the
cores. A table, then one JSON line. Try-on learns at 512 x 384 on two drawn people in VITON-HD's layout; it is
killed in its second step, and the same command goes on after its first.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

BIN = Path(sys.executable).parent
_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT  # has it ended? without taking its usage

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


WORLD = """
import sys
from pathlib import Path
from scd.data.write_viton_hd import write_viton_hd
write_viton_hd(Path(sys.argv[1]), 2, 2, (512, 384))
"""


@dataclass
class Options:
    folder: Annotated[Path, tyro.conf.Positional]
    modes: tuple[str, ...] = ("lora", "attention", "all")
    size: int | None = None
    """Square root of a training picture's pixels. Default: 64, for try-on 448; 896 is 1024 x 768."""
    tryon: bool = False
    """The preset `vitonhd` in place of `sd15-pictures`."""
    embedding: bool = True
    """Try-on's garments have an image embedding."""


def measured(title: str, *command: str | Path, until: Path | None = None) -> dict[str, float | str]:
    """Run a command, or kill it once `until` is there; its seconds and peak memory. Stops everything when it
    fails."""
    began = time.monotonic()
    process = subprocess.Popen([str(part) for part in command])
    while until is not None and not until.exists() and os.waitid(os.P_PID, process.pid, _LOOK) is None:
        time.sleep(1)
    if until is not None and until.exists():
        process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    if status != (0 if until is None else signal.SIGKILL):
        raise SystemExit(f"{title}: failed with status {status}")
    row = {"part": title, "seconds": round(time.monotonic() - began),
           "core_seconds": round(usage.ru_utime + usage.ru_stime),
           "peak_gib": usage.ru_maxrss / 2**20}  # fmt: skip
    print(f"{title}: {row['seconds']} s, of the cores {row['core_seconds']} s, {row['peak_gib']:.1f} GiB",
          flush=True)  # fmt: skip
    return row


def tried_on(options: Options, sd: Path, clip: Path) -> list[dict[str, float | str]]:
    """Each mode of try-on: a step, killed in the second, resumed to its end."""
    viton, run, rows = options.folder / "viton", options.folder / "run", []
    if not (viton / "test_pairs.txt").is_file():
        rows.append(measured("two people", BIN / "python", "-c", WORLD, viton))
    for mode in options.modes:
        shutil.rmtree(run, ignore_errors=True)
        train = (
            BIN / "scd", "train", "vitonhd", "--data.root", viton, "--init", sd,
            "--image-encoder", clip if options.embedding else "",
            "--run", run, "--learn", mode, "--data.size", options.size or 448, "--data.groups", "1",
            "--data.workers", "0", "--accumulation", "1", "--sample-pictures", "0", "--log-every", "1",
            "--save-every", "1", "--warmup", "1", "--lr", "1e-4", "--steps", "2",
        )  # fmt: skip
        rows.append(measured(f"a step, killed, {mode}", *train, until=run / "checkpoint-00000001"))
        rows.append(measured(f"resumed, {mode}", *train))
        losses = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        print([(row["step"], round(row["loss"], 4)) for row in losses if "loss" in row], flush=True)
    shutil.rmtree(run, ignore_errors=True)
    return rows


def main(options: Options) -> None:
    folder = options.folder
    sd, clip, run = folder / "sd15", folder / "clip", folder / "run"
    rows = []
    if not (clip / "pytorch_model.bin").is_file():
        rows.append(measured("folder", BIN / "python", "runs/sd15_folder.py", sd, clip, "--aged"))
    if options.tryon:
        print(json.dumps([*rows, *tried_on(options, sd, clip)]))
        return
    rows.append(measured("one step", BIN / "python", "-c", STEP, sd, clip))
    for mode in options.modes:
        shutil.rmtree(run, ignore_errors=True)
        train = (
            BIN / "scd", "train", "sd15-pictures", "--init", sd, "--image-encoder", clip, "--run", run,
            "--learn", mode, "--data.size", options.size or 64, "--data.groups", "1", "--data.targets", "2",
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
