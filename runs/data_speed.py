"""How fast training's samples come from files of the public datasets' sizes: the figures in BENCHMARKS.md.

    .venv/bin/python runs/data_speed.py out/data-speed

Drawn people, enlarged and grained: TikTok's folders of PNG (604 x 1080), UBCFashion's H.264 (720 x 1080),
VITON-HD's JPEG (768 x 1024); poses are known, so that no detector runs. Samples are those of the presets.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import tyro

from scd import media, world
from scd.config import PRESETS, DataConfig, replace
from scd.data.augment import as_detected
from scd.data.layouts import find_clips
from scd.data.prepare import find_all_poses, survey
from scd.data.real import open_real
from scd.data.speed import time_samples
from scd.data.tryon_pictures import open_tryon
from scd.data.write_viton_hd import write_viton_hd
from scd.media import open_clip
from scd.pose.files import write_poses
from scd.pose.find import pose_path
from scd.types import Pose

SIZES = {"tiktok": (1080, 604), "ubc": (1080, 720), "vitonhd": (1024, 768)}  # (height, width)
DRAWN = 4  # so many times smaller: drawing them at full size would take an hour


def grained(image: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The picture at `size`, with a camera's noise: flat areas would be too easy to decode."""
    large = cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return (large + rng.normal(0, 3, large.shape).round().astype(np.int16)).clip(0, 255).astype(np.uint8)


def write_clips(root: Path, kind: str, num: int, num_frames: int) -> None:
    """Clips with their poses where a search would have kept them."""
    height, width = size = SIZES[kind]
    rng = np.random.default_rng(0)
    for number in range(num):
        views = world.Scene.from_seed(number).clip("dance", num_frames, 30, (height // DRAWN, width // DRAWN))
        frames = [grained(view.image, size, rng) for view in views]
        if kind == "tiktok":
            path = root / f"{number + 1:05d}" / "images"
            for index, frame in enumerate(frames, 1):
                media.write_image(path / f"{index:04d}.png", frame)
        else:
            path = root / "train" / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            media.write_clip(path, frames, 30)
        clip, layout = open_clip(path), find_clips(root, kind)
        poses = [as_detected(view.pose) for view in views]
        shown = [[Pose(pose.joints, pose.scores, size)] for pose in poses]
        write_poses(pose_path(clip, cache=layout.kept), shown, 30, size)
    layout = find_clips(root, kind)
    find_all_poses(layout, survey(layout))


def write_pairs(root: Path, num: int) -> None:
    height, width = size = SIZES["vitonhd"]
    write_viton_hd(root, num, 0, (height // DRAWN, width // DRAWN))
    rng = np.random.default_rng(0)
    for folder in ("image", "cloth"):
        for path in (root / "train" / folder).iterdir():
            media.write_image(path, grained(media.read_image(path), size, rng), force=True)
    for path in (root / "train" / "agnostic-mask").iterdir():
        mask = cv2.resize(media.read_image(path)[..., 0], size[::-1], interpolation=cv2.INTER_NEAREST)
        media.write_image(path, mask, force=True)


def main(
    out: Annotated[Path, tyro.conf.Positional], num: int = 4, num_frames: int = 90, samples: int = 24,
    workers: int = 2,
) -> None:  # fmt: skip
    """Write the datasets, unless they are there, and time them."""
    for kind, stage in (("tiktok", 1), ("ubc", 1), ("ubc", 2), ("vitonhd", 0)):
        root = out / kind
        if not root.exists():
            write_pairs(root, 2 * num) if kind == "vitonhd" else write_clips(root, kind, num, num_frames)
        preset = kind if kind == "vitonhd" else f"{kind}-stage{stage}"
        data: DataConfig = replace(PRESETS[preset].data, root=str(root), strides=(2,))
        length = samples + 4 * workers + 1
        dataset = open_tryon(data, length) if kind == "vitonhd" else open_real(data, length)
        print(json.dumps({"preset": preset, **time_samples(dataset, samples, workers)}), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
