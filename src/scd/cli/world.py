"""`scd world`: pictures of the procedural people, as one sheet or as a folder with their exact poses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scd import media
from scd import world as people
from scd.cli.job import ENDINGS, require_free, with_settings
from scd.cli.options import World
from scd.cli.terminal import progress
from scd.data.layouts import num_held_out
from scd.data.pairs import WORLD_CARD as CARD
from scd.data.world import FIRST_HELD_OUT_SEED, FIRST_TRAINING_SEED
from scd.data.write_clips import write_tiktok, write_ubc
from scd.data.write_dress_code import write_dress_code
from scd.data.write_viton_hd import write_viton_hd
from scd.media.files import VIDEOS, replacing_folder
from scd.media.picture import settings_beside
from scd.pose.files import write_poses
from scd.types import UserError

CLIP_ENDINGS = (*VIDEOS, ".gif")  # which of them can be written, media.write_clip says


def world(options: World) -> None:
    """Run the verb. Raises UserError."""
    for name, least in (("num", 1), ("views", 1), ("size", 32), ("seed", 0), ("first_view", 0)):
        if getattr(options, name) < least:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: {least} at least")
    settings = {
        "kind": "world", "world_version": people.VERSION, "seed": options.seed, "num": options.num,
        "first_view": options.first_view, "views": options.views, "size": options.size,
    }  # fmt: skip
    if options.tryon:
        options = replace(options, layout="vitonhd", num=options.tryon)
    if options.layout:
        if options.out.suffix:
            raise UserError(f"{options.out}: a dataset is a folder; choose a name without an ending")
        _dataset(options, {key: settings[key] for key in ("kind", "world_version", "seed", "size")})
        return
    if options.garment:
        _garment(options, {key: settings[key] for key in ("kind", "world_version", "seed", "size")})
        return
    if options.out.suffix.lower() in CLIP_ENDINGS:
        _clip(options, settings)
        return
    with progress("drawing", options.num) as advance:
        if options.out.suffix.lower() in ENDINGS:
            _sheet(options, settings, advance)
        else:
            _folder(options, settings, advance)


def _sheet(options: World, settings: dict[str, Any], advance) -> None:
    require_free(with_settings([options.out]), options.force)
    rows = []
    for scene in _scenes(options):
        rows.append([view.image for view in _views(scene, options)])
        advance()
    # A single picture stays as it is, so that it can be a reference
    sheet = rows[0][0] if options.num == options.views == 1 else media.contact_sheet(rows)
    media.write_image(options.out, sheet, settings, options.force)
    print(options.out)


def _garment(options: World, settings: dict[str, Any]) -> None:
    """A garment laid flat, as `scd tryon` reads it."""
    garment = people.sample_garment(np.random.default_rng([options.seed, 6]), options.garment or "upper")
    image = people.flat_garment(garment, options.size)
    media.write_image(options.out, image, {**settings, "garment": options.garment}, options.force)
    print(options.out)


def _clip(options: World, settings: dict[str, Any]) -> None:
    """A motion clip of one person."""
    if options.frames < 1 or options.fps <= 0:
        raise UserError(f"{options.out}: a clip has one frame or more, at a rate above 0")
    require_free([options.out, settings_beside(options.out)], options.force)
    scene = people.Scene.from_seed(options.seed)
    views = scene.clip(options.clip, options.frames, options.fps, options.size)
    settings = {**settings, "clip": options.clip, "frames": options.frames, "fps": options.fps}
    with progress("drawing", options.frames) as advance:

        def frames():
            for view in views:
                yield view.image
                advance()

        media.write_clip(options.out, frames(), options.fps, settings=settings, force=options.force)
    print(options.out)


def _folder(options: World, settings: dict[str, Any], advance) -> None:
    """SEED/VIEW.png, SEED/poses.npz (a frame a view) and world.json."""
    with _replacing(options, settings) as temporary:
        for scene in _scenes(options):
            views, folder = _views(scene, options), temporary / f"{scene.seed:08d}"
            for index, view in enumerate(views, options.first_view):
                media.write_image(
                    folder / f"{index:03d}.png", view.image, {**settings, "seed": scene.seed, "view": index}
                )
            write_poses(folder / "poses.npz", [[view.pose] for view in views])
            advance()
    print(f"{options.out}: {options.num} people, {options.views} pictures each")


def _dataset(options: World, settings: dict[str, Any]) -> None:
    """A folder as a public dataset lies on a disk."""
    num, layout = options.num, options.layout
    test = options.tryon_test if options.tryon_test is not None else max(2, num // 4)
    pairs = layout in ("vitonhd", "dresscode")
    if layout == "tiktok":
        test = num_held_out(num)
    if num < 1 or test < 0 or (pairs and test == 1):
        raise UserError(
            f"--num {num} --test {test}: 1 to train with at least; to test with none, or of people 2 and "
            "more, who try on each other's garments"
        )
    if options.frames < 1:
        raise UserError(f"--frames {options.frames}: 1 at least")
    if options.seed + FIRST_HELD_OUT_SEED + 8 * test > FIRST_TRAINING_SEED:  # one in six wears a dress
        raise UserError(f"--seed {options.seed}: too large, the test people would be people to train with")
    settings = {**settings, "layout": layout, "train": num - test * (layout == "tiktok"), "test": test}
    if not pairs:
        settings["frames"] = options.frames
    total = {"tiktok": num, "dresscode": 3 * (num + test)}.get(str(layout), num + test)
    with _replacing(options, settings) as temporary, progress("drawing", total) as advance:
        if layout == "tiktok":
            write_tiktok(temporary, num, options.frames, options.size, options.seed, advance)
        elif layout == "ubc":
            write_ubc(temporary, num, test, options.frames, options.size, options.seed, advance)
        else:
            write = write_viton_hd if layout == "vitonhd" else write_dress_code
            write(temporary, num, test, options.size, options.seed, advance)
    what = ("people" + " in each category" * (layout == "dresscode")) if pairs else "clips"
    print(f"{options.out}: {settings['train']} {what} to train with, {test} to test with")


@contextmanager
def _replacing(options: World, settings: dict[str, Any]) -> Iterator[Path]:
    """A folder to fill, written aside, then renamed, with world.json in it. Raises UserError where something
    stands that may not be replaced."""
    if not options.out.is_dir():
        require_free([options.out], options.force)
    with replacing_folder(options.out, options.force, CARD) as temporary:
        yield temporary
        (temporary / CARD).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _scenes(options: World):
    return (people.Scene.from_seed(options.seed + i) for i in range(options.num))


def _views(scene: people.Scene, options: World) -> list[people.View]:
    return [scene.view(options.first_view + i, size=options.size) for i in range(options.views)]
