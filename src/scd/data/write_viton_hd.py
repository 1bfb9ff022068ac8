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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scd import media, world
from scd.data.augment import as_detected
from scd.data.world import FIRST_HELD_OUT_SEED, FIRST_TRAINING_SEED
from scd.data.world_tryon import facing, garment_mask, other_garment, true_region
from scd.pose.files import BODY_25_TO_18
from scd.types import BODY, BODY_NAMES, FACE, LEFT_HAND, RIGHT_HAND, Pose
from scd.world import Garment, View, flat_garment

CATEGORY = "upper"  # VITON-HD's only one
FRONTAL = 40.0  # degrees; VITON-HD's people look into the camera
_HIPS = [BODY_NAMES.index("right_hip"), BODY_NAMES.index("left_hip")]


def write_viton_hd(
    root: Path, num_train: int, num_test: int, size: int | tuple[int, int], seed: int = 0,
    advance: Callable[[], None] | None = None,
) -> None:
    """Fill the folder `root`; `advance` is called a person. People to train with are of training seeds, those
    to test with of held-out ones, both counted from `seed`. The same numbers give the same bytes.

    Raises ValueError for one person to test with, to whom nobody could lend a garment.
    """
    if num_test == 1:
        raise ValueError("an unpaired pair takes two people")
    lines = []
    for name, view in _people(FIRST_TRAINING_SEED + seed, num_train, size):
        _write_person(root / "train", name, view, other_garment(view.scene.seed, _garment(view)))
        lines.append(f"{name}.jpg {name}.jpg\n")
        if advance is not None:
            advance()
    (root / "train_pairs.txt").write_text("".join(lines), encoding="utf-8")
    first, lines = FIRST_HELD_OUT_SEED + seed, []
    # Made anew below: a person once drawn takes 40 MB at 512 pixels
    garments = [(name, _garment(view)) for name, view in _people(first, num_test, size)]
    for number, (name, view) in enumerate(_people(first, num_test, size), 1):
        lender, other = garments[number % num_test]
        _write_person(root / "test", name, view, other)
        dressed = view.dressed(other)
        media.write_image(root / "test" / "truth" / f"{name}.png", dressed.image)
        media.write_image(root / "test" / "truth-parse" / f"{name}.png", dressed.labels)
        lines.append(f"{name}.jpg {lender}.jpg\n")
        if advance is not None:
            advance()
    (root / "test_pairs.txt").write_text("".join(lines), encoding="utf-8")


def _people(first: int, num: int, size: int | tuple[int, int]) -> Iterator[tuple[str, View]]:
    """Name and picture of the first `num` people from a seed on who wear a top, seen from the front."""
    seed, found = first, 0
    while found < num:
        scene = world.Scene.from_seed(seed)
        if scene.person.outfit.upper is not None:
            yield f"{seed:08d}_00", scene.view(facing(scene, 1, FRONTAL)[0], size)
            found += 1
        seed += 1


def _garment(view: View) -> Garment:
    upper = view.outfit.upper
    assert upper is not None
    return upper


def _write_person(part: Path, name: str, view: View, other: Garment) -> None:
    """The files of one person; the region covers the own garment and `other`, and is that of neither."""
    own = _garment(view)
    region = true_region([view, view.dressed(other)], CATEGORY)
    media.write_image(part / "image" / f"{name}.jpg", view.image)
    media.write_image(part / "cloth" / f"{name}.jpg", flat_garment(own, view.size))
    media.write_image(part / "cloth-mask" / f"{name}.jpg", _white(garment_mask(own, view.size)))
    media.write_image(part / "agnostic-mask" / f"{name}_mask.png", _white(region))
    media.write_image(part / "image-parse" / f"{name}.png", view.labels)
    file = part / "openpose_json" / f"{name}_keypoints.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(openpose(as_detected(view.pose))) + "\n", encoding="utf-8")


def _white(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(mask, np.uint8(255), np.uint8(0))


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
