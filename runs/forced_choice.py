"""Sheets for a forced choice by eyes that did not make the pictures: which of four people, or with --tryon
which of four garments, is this?

    .venv/bin/python runs/forced_choice.py out/choice --num 16 --seed 0
    .venv/bin/python runs/forced_choice.py out/choice-tryon --num 16 --seed 0 --tryon

Each row shows one result and the reference pictures of four held-out people, A to D, of which one was the
result's reference; with --tryon four garments laid flat, of one kind. The key lies in key.json beside the
sheets: show the sheets without it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

import scd
from scd import world
from scd.data.world_tryon import other_garment
from scd.evaluate import FIRST_HELD_OUT_SEED, held_out_pairs, paint
from scd.evaluate_tryon import held_out_scenes, try_on
from scd.media import contact_sheet, write_image
from scd.world import flat_garment

ROWS = 4  # on a sheet

Choice = tuple[np.ndarray, list[np.ndarray]]  # a result; what it may show, the right one first


@dataclass
class Options:
    folder: Annotated[Path, tyro.conf.Positional]
    num: int = 16
    seed: int = 0
    model: str | None = None
    tryon: bool = False


def people(pipe, num: int, seed: int) -> list[Choice]:
    """The right one and the three people after it; grey around all, since a background would tell too."""
    pairs = held_out_pairs(num + 3, pipe.config.default_size)
    results = paint(pipe, pairs[:num], pairs[:num], seed)
    shown = [
        alone(
            pair.reference,
            world.Scene.from_seed(FIRST_HELD_OUT_SEED + i).view(0, size=pair.reference.shape[0]).mask,
        )
        for i, pair in enumerate(pairs)
    ]
    return [(alone(y, pairs[i].mask), shown[i : i + 4]) for i, y in enumerate(results)]


def alone(picture: np.ndarray, person: np.ndarray) -> np.ndarray:
    """A picture with grey for all that the truth says is not the person."""
    return np.where(person[..., None], picture, 128).astype(np.uint8)


def garments(pipe, num: int, seed: int) -> list[Choice]:
    """The right one and what the next three scenes would be given of that kind."""
    size = pipe.config.default_size
    scenes = [
        (case.worn.scene.seed, case.own, case.trial) for case in held_out_scenes(num, size)
    ]  # without their views, which take much memory
    results = try_on(pipe, [trial for _, _, trial in scenes], seed=seed)
    return [
        (y, [*trial.garments, *(flat_garment(other_garment(first + i, own), size) for i in (1, 2, 3))])
        for y, (first, own, trial) in zip(results, scenes, strict=True)
    ]


def main(options: Options) -> None:
    pipe = scd.load(options.model)
    pipe.set_progress_bar_config(disable=True)
    rng, rows, key = np.random.default_rng(options.seed), [], []
    for result, choice in (garments if options.tryon else people)(pipe, options.num, options.seed):
        order = rng.permutation(4)
        rows.append([result, *(choice[int(j)] for j in order)])
        key.append("ABCD"[int(np.flatnonzero(order == 0)[0])])
    for start in range(0, len(rows), ROWS):
        cells = [[cell.repeat(2, 0).repeat(2, 1) for cell in row] for row in rows[start : start + ROWS]]
        names = [f"{start + i + 1}" for i in range(len(cells))]
        sheet = contact_sheet(cells, ["result", *"ABCD"], names)
        write_image(options.folder / f"sheet-{start // ROWS + 1}.png", sheet, force=True)
    (options.folder / "key.json").write_text(json.dumps(key))
    print(f"{options.folder}: {len(rows)} rows; the key is in key.json")


if __name__ == "__main__":
    main(tyro.cli(Options))
