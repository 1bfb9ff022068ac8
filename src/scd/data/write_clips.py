"""Clips of the procedural world laid out as TikTok and UBCFashion lie on a disk: one dancer each, 30 frames a
second. Poses are not written: they are found, as in anybody's clips.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scd import media, world
from scd.data.layouts import num_held_out
from scd.data.world import FIRST_HELD_OUT_SEED, FIRST_TRAINING_SEED
from scd.region import white
from scd.world.motion import CLIPS

RATE = 30


def write_tiktok(
    root: Path, num: int, num_frames: int, size: int | tuple[int, int], seed: int = 0,
    advance: Callable[[], None] | None = None,
) -> None:  # fmt: skip
    """Fill `root` with 00001/images/0001.png and 00001/masks/0001.png ...; `advance` is called a clip. Clips
    are of training seeds, but the last, which the layout holds out, of held-out ones."""
    training = num - num_held_out(num)
    for number in range(num):
        held_out = number >= training
        first = FIRST_HELD_OUT_SEED - training if held_out else FIRST_TRAINING_SEED
        place = root / f"{number + 1:05d}"
        for index, view in enumerate(_clip(first + seed + number, num_frames, size), 1):
            media.write_image(place / "images" / f"{index:04d}.png", view.image)
            media.write_image(place / "masks" / f"{index:04d}.png", white(view.mask))
        if advance is not None:
            advance()


def write_ubc(
    root: Path, num_train: int, num_test: int, num_frames: int, size: int | tuple[int, int], seed: int = 0,
    advance: Callable[[], None] | None = None,
) -> None:  # fmt: skip
    """Fill `root` with train/01000000.mp4 ... and test/00010000.mp4 ..., the latter of held-out seeds."""
    for part, first, num in (
        ("train", FIRST_TRAINING_SEED, num_train), ("test", FIRST_HELD_OUT_SEED, num_test),
    ):  # fmt: skip
        for number in range(first + seed, first + seed + num):
            (root / part).mkdir(parents=True, exist_ok=True)
            frames = (view.image for view in _clip(number, num_frames, size))
            media.write_clip(root / part / f"{number:08d}.mp4", frames, RATE)
            if advance is not None:
                advance()


def _clip(seed: int, num_frames: int, size: int | tuple[int, int]) -> list[world.View]:
    kind = CLIPS[seed % len(CLIPS)]  # dance, walk, wave and turn by turns
    return list(world.Scene.from_seed(seed).clip(kind, num_frames, RATE, size))
