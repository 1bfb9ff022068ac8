"""Sheets for a forced choice by eyes that did not make the pictures: which of four people is this?

    .venv/bin/python runs/forced_choice.py out/choice --num 16 --seed 0

Each row shows one result and the reference pictures of four held-out people, A to D, of which one was the
result's reference. The key lies in key.json beside the sheets: show the sheets without it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

import scd
from scd.evaluate import held_out_pairs, paint
from scd.media import contact_sheet, write_image

ROWS = 4  # on a sheet


@dataclass
class Options:
    folder: Annotated[Path, tyro.conf.Positional]
    num: int = 16
    seed: int = 0
    model: str | None = None


def main(options: Options) -> None:
    pipe = scd.load(options.model)
    pipe.set_progress_bar_config(disable=True)
    pairs = held_out_pairs(options.num + 3, pipe.config.default_size)
    results = paint(pipe, pairs[: options.num], pairs[: options.num], options.seed)
    rng, rows, key = np.random.default_rng(options.seed), [], []
    for i, result in enumerate(results):
        order = rng.permutation(4)  # the right one and the three people after it
        rows.append([result, *(pairs[i + int(j)].reference for j in order)])
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
