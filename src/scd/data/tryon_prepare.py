"""What the pictures of a try-on dataset are, found out once: each read whole and hashed; poses and regions
looked for where the dataset has none.

The manifest is written now and then, so that an interrupted preparation goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scd.data.fitting import read_pose, read_region
from scd.data.manifest import KEPT, in_the_dataset, now_and_then, real
from scd.data.pairs import (
    TryOnLayout,
    TryOnPair,
    mapped,
    read_pairs,
    remembering,
    stamp_of,
    write_pairs,
)
from scd.data.workers import each
from scd.media import file_hash, read_image, write_image
from scd.media.files import is_whole
from scd.pose import detect
from scd.pose.cache import cache_path, cached_poses
from scd.pose.files import PoseFile
from scd.region import white
from scd.types import UserError


@dataclass(frozen=True)
class _Facts:
    """Of one picture; pose and region of a person's."""

    stamp: str
    size: tuple[int, int] = (0, 0)
    content: str = ""
    pose: Path | None = None
    region: Path | None = None
    error: str = ""


def survey_pairs(
    layout: TryOnLayout, advance: Callable[[], None] | None = None, workers: int = 1,
    kept: Path | None = None, detector: str = "mediapipe", save: Callable[[TryOnLayout], None] | None = None,
) -> TryOnLayout:  # fmt: skip
    """The layout with what is in the files of each pair that is new or has changed; `advance` is called a
    picture, of people and of garments. Where pictures, masks or poses cannot be used, the pair says why.

    kept: where poses and regions go that the dataset lacks; None = they are not looked for. save: called with
    the layout as it is now and then, and at the end, however that comes.
    """
    tell = advance or (lambda: None)
    stale = [pair for pair in layout.pairs if not _is_fresh(pair, kept)]
    people = {_asked_of(pair): pair for pair in reversed(stale)}  # one pair each, of training if it can be
    garments = list(dict.fromkeys(pair.garment for pair in stale))
    for _ in range(num_pictures(layout) - len(people) - len(garments)):
        tell()
    if kept is not None and any(pair.pose is None for pair in people.values()):
        detect.get_detector(detector)  # what stands against it is no fault of a picture
    tasks = [(pair.person, pair, kept, detector, layout.root) for pair in people.values()]
    tasks += [(path, None, kept, detector, layout.root) for path in garments]
    keys, facts = [*people, *garments], {}
    with now_and_then(lambda: save(_with(layout, facts)) if save else None) as changed:
        changed()  # written at the end whatever is new: the manifest may not be there yet
        for number, found in each(_look_at, tasks, workers):
            facts[keys[number]] = found
            tell()
            changed()
    return _with(layout, facts)


def prepare_pairs(
    layout: TryOnLayout, manifest: Path, detector: str = "mediapipe",
    advance: Callable[[], None] | None = None, workers: int = 1,
) -> TryOnLayout:  # fmt: skip
    """`survey_pairs`, written to the manifest, with what that knew already; poses and regions lie beside it.
    Raises UserError when the manifest is damaged or cannot be written, or the detector is not installed."""
    manifest = real(manifest)
    kept = manifest.parent.resolve() / KEPT
    layout = remembering(layout, read_pairs(manifest), kept)
    return survey_pairs(layout, advance, workers, kept, detector, lambda found: write_pairs(manifest, found))


def num_pictures(layout: TryOnLayout) -> int:
    """Of people, once for each piece that they are asked about, and of garments."""
    return len(set(map(_asked_of, layout.pairs))) + len({pair.garment for pair in layout.pairs})


def _asked_of(pair: TryOnPair) -> tuple[Path, str, Path | None, Path | None]:
    """What is looked at in a person's picture: for a piece of another category another region."""
    return pair.person, pair.category, pair.region, pair.pose


def _is_fresh(pair: TryOnPair, kept: Path | None) -> bool:
    """Whether the pair's files are as they were when they were looked at; with `kept`: for poses, too. What
    could not be used may have been mended."""
    if pair.is_changed or pair.error:
        return False
    if kept is not None:
        return not any(
            path is None or not path.exists() or _lacks(path, kept) for path in (pair.pose, pair.region)
        )
    return all(path is None or path.exists() for path in (pair.pose, pair.region))


def _with(layout: TryOnLayout, facts: Mapping[Any, _Facts]) -> TryOnLayout:
    """The layout with the facts, of people by `_asked_of`, of garments by their paths."""

    def tell(pair: TryOnPair) -> TryOnPair:
        person, garment = facts.get(_asked_of(pair)), facts.get(pair.garment)
        if person is None or garment is None:
            return pair
        return replace(
            pair, pose=person.pose, region=person.region, size=person.size, garment_size=garment.size,
            content=(person.content, garment.content), stamp=(person.stamp, garment.stamp),
            error=person.error or garment.error,
        )  # fmt: skip

    return mapped(layout, tell)


def _look_at(path: Path, pair: TryOnPair | None, kept: Path | None, detector: str, root: Path) -> _Facts:
    """Read a garment's picture, or (with its pair) a person's with its pose and mask. Raises UserError when
    what was found cannot be written."""
    facts = _Facts(stamp_of(path))
    if pair is not None:
        facts = replace(facts, pose=pair.pose, region=pair.region)
    try:
        image = read_image(path)
        size = (image.shape[0], image.shape[1])
        facts = replace(facts, size=size, content=file_hash(path))
    except UserError as error:
        return replace(facts, error=in_the_dataset(error, root))
    if pair is None:
        return facts
    if kept is not None and _lacks(facts.pose, kept):
        facts = replace(facts, pose=_find_pose(image, facts.content, kept, detector))
    if kept is not None and _lacks(facts.region, kept):
        facts = replace(facts, region=None)
    if facts.region is None and facts.pose is None:
        return facts
    try:
        pose = read_pose(replace(pair, pose=facts.pose), size)
        region = read_region(replace(pair, pose=facts.pose, region=facts.region), pose, size)
    except UserError as error:
        return replace(facts, error=in_the_dataset(error, root))
    if kept is not None and facts.region is None:
        key = [facts.content, pair.category, pose.joints.tolist(), pose.scores.tolist()]
        file = kept / "regions" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:40]}.png"
        write_image(file, white(region), force=True)
        facts = replace(facts, region=file)
    return facts


def _lacks(path: Path | None, kept: Path) -> bool:
    """Whether the dataset has no such file, and what was made in its place is not there, or cut off."""
    return path is None or (path.is_relative_to(kept) and not is_whole(path))


def _find_pose(image: NDArray[np.uint8], content: str, kept: Path, detector: str) -> Path:
    """The file of the people in a picture; of nobody, where nobody is found."""

    def find() -> PoseFile:
        return PoseFile([detect.get_detector(detector).detect(image)], (image.shape[0], image.shape[1]))

    options = {"picture": True}
    cached_poses(find, content, detector, options, kept)
    path = cache_path(content, detector, options, kept)
    if not path.exists():
        raise UserError(f"{path.parent}: poses cannot be kept there; make the folder writable")
    return path
