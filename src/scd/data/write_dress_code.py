"""The procedural world laid out as DressCode lies on a disk; and the exact result of every unpaired pair.

{upper_body,lower_body,dresses}/  images/01000003_0.jpg (person)  images/..._1.jpg (garment)
    agnostic_masks/..._0.png  keypoints/..._2.json  label_maps/..._4.png
    truth/..._0.png, truth-label-maps/..._4.png: the person in the garment of test_pairs_unpaired.txt
    train_pairs.txt  test_pairs_paired.txt  test_pairs_unpaired.txt
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scd import media
from scd.data.augment import as_detected
from scd.data.fitting import DRESS_CODE_CANVAS
from scd.data.tryon import CATEGORIES
from scd.data.write_viton_hd import Model, models, region_of
from scd.region import white
from scd.types import BODY, Pose
from scd.world import flat_garment


def write_dress_code(
    root: Path, num_train: int, num_test: int, size: int | tuple[int, int], seed: int = 0,
    advance: Callable[[], None] | None = None,
) -> None:  # fmt: skip
    """Fill the folder `root` with so many people in each of the three categories; all else as
    `write_viton_hd`."""
    for folder, kind in CATEGORIES.items():
        place = root / folder
        lists: dict[str, list[str]] = {"train": [], "test_paired": [], "test_unpaired": []}
        for model in models(kind, num_train, num_test, size, seed):
            _write_person(place, model)
            own = f"{model.name}_0.jpg\t{model.name}_1.jpg\n"
            lists["test_paired" if model.test else "train"].append(own)
            if model.test:
                dressed = model.view.dressed(model.other)
                media.write_image(place / "truth" / f"{model.name}_0.png", dressed.image)
                media.write_image(place / "truth-label-maps" / f"{model.name}_4.png", dressed.labels)
                lists["test_unpaired"].append(f"{model.name}_0.jpg\t{model.lender}_1.jpg\n")
            if advance is not None:
                advance()
        for part, end in (("train", ""), ("test", "_paired"), ("test", "_unpaired")):
            text = "".join(lists[part + end])
            (place / f"{part}_pairs{end}.txt").write_text(text, encoding="utf-8")


def _write_person(place: Path, model: Model) -> None:
    view, name = model.view, model.name
    media.write_image(place / "images" / f"{name}_0.jpg", view.image)
    media.write_image(place / "images" / f"{name}_1.jpg", flat_garment(model.own, view.size))
    media.write_image(place / "agnostic_masks" / f"{name}_0.png", white(region_of(model)))
    media.write_image(place / "label_maps" / f"{name}_4.png", view.labels)
    file = place / "keypoints" / f"{name}_2.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(keypoints(as_detected(view.pose))) + "\n", encoding="utf-8")


def keypoints(pose: Pose) -> dict[str, Any]:
    """The 18 joints of the body as DressCode writes them: x, y, score, number; -1 where absent."""
    height, width = DRESS_CODE_CANVAS
    there = pose.scores[BODY] > 0
    rows = np.full((len(there), 4), -1.0)
    rows[there, :2] = pose.joints[BODY][there] * (width, height)
    rows[there, 2] = pose.scores[BODY][there]
    rows[there, 3] = np.flatnonzero(there)
    return {"keypoints": rows.round(3).tolist()}
