"""The procedural world laid out as VITON-HD lies on a disk, so that readers, training and evaluation run on
true files; and, because the world knows it, the exact result of every unpaired pair.

    train/  image/01000003_00.jpg  cloth/...jpg  cloth-mask/...jpg  agnostic-mask/..._mask.png
            openpose_json/..._keypoints.json  image-parse/...png
    test/   the same, and truth/...png, truth-parse/...png: the person in the garment of test_pairs.txt
    train_pairs.txt  test_pairs.txt (the other garment)  world.json
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scd import media, world
from scd.data.augment import as_detected
from scd.data.world import FIRST_HELD_OUT_SEED, FIRST_TRAINING_SEED
from scd.data.world_tryon import facing, garment_mask, other_garment, true_region
from scd.pose.files import BODY_25_TO_18
from scd.region import white
from scd.types import BODY, BODY_NAMES, FACE, LEFT_HAND, RIGHT_HAND, Pose
from scd.world import Garment, View, flat_garment

CATEGORY = "upper"  # VITON-HD's only one
FRONTAL = 40.0  # degrees; VITON-HD's people look into the camera
_HIPS = [BODY_NAMES.index("right_hip"), BODY_NAMES.index("left_hip")]


def write_viton_hd(
    root: Path, num_train: int, num_test: int, size: int | tuple[int, int], seed: int = 0,
    advance: Callable[[], None] | None = None,
) -> None:  # fmt: skip
    """Fill the folder `root`; `advance` is called a person. People to train with are of training seeds, those
    to test with of held-out ones, both counted from `seed`. The same numbers give the same bytes.

    Raises ValueError for one person to test with, to whom nobody could lend a garment.
    """
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for model in models(CATEGORY, num_train, num_test, size, seed):
        part = "test" if model.test else "train"
        _write_person(root / part, model)
        if model.test:
            dressed = model.view.dressed(model.other)
            media.write_image(root / part / "truth" / f"{model.name}_00.png", dressed.image)
            media.write_image(root / part / "truth-parse" / f"{model.name}_00.png", dressed.labels)
        lists[part].append(f"{model.name}_00.jpg {model.lender}_00.jpg\n")
        if advance is not None:
            advance()
    for part, lines in lists.items():
        if lines:
            (root / f"{part}_pairs.txt").write_text("".join(lines), encoding="utf-8")


@dataclass(frozen=True)
class Model:
    """Somebody of a try-on dataset, seen from the front."""

    name: str
    test: bool
    view: View
    own: Garment
    other: Garment  # of the same kind, in whose shape the region is made too; to test with, the lender's
    lender: str  # whose garment is tried on: the next one's; to train with, the own


def models(
    kind: str, num_train: int, num_test: int, size: int | tuple[int, int], seed: int = 0
) -> Iterator[Model]:
    """People who wear a garment of this kind: those to train with, then those to test with. Raises ValueError
    for one person to test with."""
    if num_test == 1:
        raise ValueError("an unpaired pair takes two people")
    for view, own in _people(FIRST_TRAINING_SEED + seed, num_train, size, kind):
        name = _name(view)
        yield Model(name, False, view, own, other_garment(view.scene.seed, own), name)
    first = FIRST_HELD_OUT_SEED + seed
    # Made anew below: a person once drawn takes 40 MB at 512 pixels
    garments = [(_name(view), own) for view, own in _people(first, num_test, size, kind)]
    for number, (view, own) in enumerate(_people(first, num_test, size, kind), 1):
        lender, other = garments[number % num_test]
        yield Model(_name(view), True, view, own, other, lender)


def _people(first: int, num: int, size: int | tuple[int, int], kind: str) -> Iterator[tuple[View, Garment]]:
    """Picture and garment of the first `num` people from a seed on who wear one of this kind, seen from the
    front."""
    seed, found = first, 0
    while found < num:
        scene = world.Scene.from_seed(seed)
        own = next((garment for garment in scene.person.outfit.garments if garment.kind == kind), None)
        if own is not None:
            yield scene.view(facing(scene, 1, FRONTAL)[0], size), own
            found += 1
        seed += 1


def _name(view: View) -> str:
    return f"{view.scene.seed:08d}"


def _write_person(part: Path, model: Model) -> None:
    """The files of one person; the region covers the own garment and the other, and is that of neither."""
    view, name = model.view, f"{model.name}_00"
    media.write_image(part / "image" / f"{name}.jpg", view.image)
    media.write_image(part / "cloth" / f"{name}.jpg", flat_garment(model.own, view.size))
    media.write_image(part / "cloth-mask" / f"{name}.jpg", white(garment_mask(model.own, view.size)))
    media.write_image(part / "agnostic-mask" / f"{name}_mask.png", white(region_of(model)))
    media.write_image(part / "image-parse" / f"{name}.png", view.labels)
    file = part / "openpose_json" / f"{name}_keypoints.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(openpose(as_detected(view.pose))) + "\n", encoding="utf-8")


def region_of(model: Model) -> NDArray[np.bool_]:
    """(H, W) the same whichever of the two garments is worn."""
    return true_region([model.view, model.view.dressed(model.other)], model.own.kind)


def openpose(pose: Pose) -> dict[str, Any]:
    """One person as OpenPose writes it, with 25 body points: those of the 18, the middle of the hips, and no
    feet."""
    height, width = pose.size
    points = np.concatenate([pose.joints * (width, height), pose.scores[:, None]], 1).round(3)
    points[pose.scores == 0] = 0
    body = np.zeros((25, 3))
    body[list(BODY_25_TO_18)] = points[BODY]
    if (pose.scores[_HIPS] > 0).all():
        body[8] = [*points[_HIPS, :2].mean(0), points[_HIPS, 2].min()]
    parts = {
        "pose_keypoints_2d": body, "face_keypoints_2d": points[FACE],
        "hand_left_keypoints_2d": points[LEFT_HAND], "hand_right_keypoints_2d": points[RIGHT_HAND],
    }  # fmt: skip
    person = {name: values.reshape(-1).round(3).tolist() for name, values in parts.items()}
    return {"version": 1.3, "canvas_width": width, "canvas_height": height, "people": [person]}
