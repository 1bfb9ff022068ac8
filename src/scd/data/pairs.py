"""Try-on pairs, and how a manifest lists them: one line a pair, a person and a garment.

    {"scd": 1, "layout": "vitonhd", "root": "../VITON-HD"}
    {"person": "../VITON-HD/train/image/00006_00.jpg", "garment": "...", "name": "00006_00",
     "category": "upper", "split": "train", "paired": true, "region": "...", "pose": "...", ...}

A line by hand needs `person` and `garment`, and of other clothes than tops `category`; region and pose are
found by `scd data prepare`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from scd.data.manifest import (
    TEST,
    Header,
    bad_line,
    known_values,
    layout_in,
    read_rows,
    renamed,
    require_none_lost,
    write_rows,
)
from scd.pose.region import CATEGORIES
from scd.types import UserError

NOTE = "for research that earns nothing (VITON-HD: CC BY-NC 4.0; DressCode: its own terms); read them first"
WORLD_CARD = "world.json"  # in a folder that `scd world` wrote: a sign that it may be replaced


@dataclass(frozen=True)
class TryOnPair:
    """A person and the garment to put on: the one already worn (paired, with the picture as ground truth), or
    another."""

    name: str  # the person's, with DressCode's category before it
    category: str  # upper, lower, dress
    person: Path
    garment: Path
    paired: bool
    region: Path | None = None  # the agnostic mask: white = generate
    pose: Path | None = None  # of the person: OpenPose's JSON, DressCode's, or npz
    truth: Path | None = None  # the person in that garment: itself if paired; else known to the world alone
    labels: Path | None = None  # of the truth, numbers of scd.world.LABELS; known to the world alone
    # What was found out, and the manifest says; empty = not looked into yet
    size: tuple[int, int] = (0, 0)  # (height, width) of the person's picture in pixels
    garment_size: tuple[int, int] = (0, 0)
    content: tuple[str, ...] = ()  # hashes of the person's picture and the garment's
    stamp: tuple[str, ...] = ()  # of both files: when it changes, they are looked into again
    error: str = ""  # why the pair cannot be used
    others: str = ""  # the line's fields that are not ours, as JSON

    @property
    def is_changed(self) -> bool:
        """Whether its pictures are not those that were looked at, or not there."""
        now = stamp_of(self.person), stamp_of(self.garment)
        return not all(now) or now != self.stamp

    def as_it_lies(self) -> TryOnPair:
        """Without what was found out of other pictures than lie there now."""
        if not self.is_changed:
            return self
        return replace(self, size=(0, 0), garment_size=(0, 0), content=(), stamp=(), error="")


@dataclass(frozen=True)
class TryOnLayout:
    """The pairs of a dataset whose files are there; `problems` names the others, a line each."""

    kind: str
    root: Path
    training: tuple[TryOnPair, ...]  # paired, all of them
    paired: tuple[TryOnPair, ...]  # to test with
    unpaired: tuple[TryOnPair, ...]
    problems: tuple[str, ...] = ()
    listed_in: Path | None = None  # the manifest that it was read from

    @property
    def pairs(self) -> tuple[TryOnPair, ...]:
        return (*self.training, *self.paired, *self.unpaired)

    @staticmethod
    def is_of_test(problem: str) -> bool:
        """Whether a line of `problems` concerns the pairs to test with; else those to train with."""
        return "test" in problem.split(":")[0]

    @property
    def note(self) -> str:
        """On its licence."""
        return "" if (self.root / WORLD_CARD).is_file() else NOTE


def stamp_of(path: Path) -> str:
    """Size and time of the file; "" when it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns}"


_PATHS = ("person", "garment", "region", "pose", "truth", "labels")
_EMPTY = TryOnPair("", "", Path(), Path(), True)
_KINDS: dict[str, type] = {f.name: type(getattr(_EMPTY, f.name)) for f in fields(TryOnPair)}
_KINDS |= dict.fromkeys((*_PATHS, "split"), str)
del _KINDS["others"]


def read_pairs(path: Path) -> TryOnLayout:
    """The pairs that a manifest lists; none when there is no such file. Raises UserError naming the line."""
    header, rows = read_rows(path)
    here = path.parent.resolve()
    found: dict[str, list[TryOnPair]] = {"train": [], "paired": [], "unpaired": []}
    for number, row in rows:
        try:
            values = known_values(row, _KINDS)
            paths = {k: Path(os.path.normpath(here / v)) for k, v in values.items() if k in _PATHS}
            values: dict[str, Any] = {"category": "upper", "paired": True} | values | paths
            values.setdefault("name", paths["person"].stem)
            if values["category"] not in CATEGORIES or "garment" not in paths:
                raise ValueError
        except (ValueError, KeyError) as error:
            raise bad_line(path, number, error) from None
        test = values.pop("split", "") == TEST
        others = {k: v for k, v in row.items() if k not in _KINDS}
        pair = TryOnPair(**values, others=json.dumps(others) if others else "")
        if not pair.paired and not test:
            raise UserError(
                f"{path}, line {number}: is not paired, so it has no truth to train with; mend it"
            )
        found[("paired" if pair.paired else "unpaired") if test else "train"].append(pair)
    kind = layout_in(path) if rows else header.layout
    root = Path(os.path.normpath(here / header.root))
    training, paired, unpaired = (tuple(pairs) for pairs in found.values())
    return TryOnLayout(kind, root, training, paired, unpaired, header.problems, path)


def write_pairs(path: Path, layout: TryOnLayout) -> None:
    """Replace the manifest, whole or not at all; what is not known is left out. Raises UserError."""
    home, here, root = path.parent.resolve(), Path.cwd(), layout.root.resolve()
    empty = asdict(_EMPTY) | {"paired": None}

    def row(pair: TryOnPair) -> dict[str, Any]:
        values = {name: value for name, value in asdict(pair).items() if value and value != empty[name]}
        values |= {name: renamed(str(values[name]), here, home) for name in _PATHS if name in values}
        others = json.loads(values.pop("others", "{}"))
        return {"paired": pair.paired, "split": "train" if pair in training else TEST} | values | others

    training = set(layout.training)
    header = Header(layout.kind, renamed(".", root, home), layout.problems)
    write_rows(path, header, map(row, layout.pairs))


def remembering(layout: TryOnLayout, before: TryOnLayout, kept: Path) -> TryOnLayout:
    """The layout with what was known of the same pairs, which may have been moved since; poses and regions
    that were found and lie in `kept` only while the pictures are those that they were found in. Raises
    UserError where `before` knows pairs of elsewhere, too, which would be lost."""
    known = {_key(pair, before): pair for pair in before.pairs}
    if layout.listed_in is None and before.listed_in is not None:
        root, there = layout.root.resolve(), {_key(pair, layout) for pair in layout.pairs}
        others = [pair.person for key, pair in known.items() if key not in there and pair.person.exists()]
        others = [path for path in others if not path.resolve().is_relative_to(root)]
        require_none_lost(before.listed_in, others, layout.root)

    def remember(pair: TryOnPair) -> TryOnPair:
        old = known.get(_key(pair, layout))
        if old is None:
            return pair
        if old.stamp != (stamp_of(pair.person), stamp_of(pair.garment)):
            found = {path: None for path in (old.region, old.pose) if path and path.is_relative_to(kept)}
            old = replace(old, region=found.get(old.region, old.region), pose=found.get(old.pose, old.pose))
        return replace(
            pair, region=pair.region or old.region, pose=pair.pose or old.pose, size=old.size,
            garment_size=old.garment_size, content=old.content, stamp=old.stamp, error=old.error,
            others=old.others,
        )  # fmt: skip

    return _holding_out(mapped(layout, remember), before) if known else layout


def _holding_out(layout: TryOnLayout, before: TryOnLayout) -> TryOnLayout:
    """The layout without the training pairs that were held out before, by hand perhaps: they stay so."""
    held_out = {_key(pair, before) for pair in before.paired}
    stay = [pair for pair in layout.training if _key(pair, layout) in held_out]
    training = tuple(pair for pair in layout.training if pair not in set(stay))
    return replace(layout, training=training, paired=(*layout.paired, *stay)) if stay else layout


def with_guides(layout: TryOnLayout, before: TryOnLayout) -> TryOnLayout:
    """The layout with the poses and regions that were found of the same pairs, where the pictures have not
    changed since and the files are there, and with those held out that were. Nothing else is taken over: all
    pictures are read as they lie."""
    known = {
        _key(pair, before): pair
        for pair in before.pairs
        if (pair.region or pair.pose) and not (pair.stamp and pair.is_changed)
    }

    def guided(pair: TryOnPair) -> TryOnPair:
        old = known.get(_key(pair, layout))
        if old is None or (pair.region and pair.pose):
            return pair
        region, pose = (path if path and path.exists() else None for path in (old.region, old.pose))
        return replace(pair, region=pair.region or region, pose=pair.pose or pose)

    return _holding_out(mapped(layout, guided), before)


def _key(pair: TryOnPair, layout: TryOnLayout) -> tuple[str, str, str, bool]:
    """Of the same pair in the same dataset, wherever that lies."""
    person, garment = (_name(path, layout.root) for path in (pair.person, pair.garment))
    return person, garment, pair.category, pair.paired


def _name(path: Path, root: Path) -> str:
    return f"{_folder(path.parent, root)}/{path.name}"


@lru_cache(maxsize=256)
def _folder(path: Path, root: Path) -> str:
    """Links are followed once a folder, of which a dataset has few."""
    return renamed(".", path.resolve(), root.resolve())


def mapped(layout: TryOnLayout, change: Callable[[TryOnPair], TryOnPair]) -> TryOnLayout:
    """The layout with every pair changed."""

    def of(pairs: Sequence[TryOnPair]) -> tuple[TryOnPair, ...]:
        return tuple(change(pair) for pair in pairs)

    return replace(
        layout, training=of(layout.training), paired=of(layout.paired), unpaired=of(layout.unpaired)
    )
