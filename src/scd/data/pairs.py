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
    followed,
    known_values,
    layout_of,
    read_rows,
    renamed,
    require_all_listed,
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
    kind = layout_of(header, rows)
    root = Path(os.path.normpath(here / header.root))
    training, paired, unpaired = (tuple(pairs) for pairs in found.values())
    return TryOnLayout(kind, root, training, paired, unpaired, header.problems, path)


def write_pairs(path: Path, layout: TryOnLayout) -> None:
    """Replace the manifest, whole or not at all; what is not known is left out. Raises UserError."""
    home, root = path.parent.resolve(), layout.root.resolve()
    empty = asdict(_EMPTY) | {"paired": None}

    def name_of(file: Path) -> str:
        if file.is_relative_to(layout.root):  # which may be a link, and is written down without it
            return renamed(str(file.relative_to(layout.root)), root, home)
        return renamed(str(file), Path.cwd(), home)

    def row(pair: TryOnPair) -> dict[str, Any]:
        values = {name: value for name, value in asdict(pair).items() if value and value != empty[name]}
        values |= {name: name_of(values[name]) for name in _PATHS if name in values}
        others = json.loads(values.pop("others", "{}"))
        return {"paired": pair.paired, "split": "train" if pair in training else TEST} | values | others

    training = set(layout.training)
    header = Header(layout.kind, renamed(".", root, home), layout.problems)
    write_rows(path, header, map(row, layout.pairs))


def remembering(layout: TryOnLayout, before: TryOnLayout, kept: Path) -> TryOnLayout:
    """The layout with what was known of the same pairs, which may have been moved since; poses and regions
    that were found and lie in `kept` only while the pictures are those that they were found in. Raises
    UserError where `before` knows pairs of elsewhere, too, which would be lost."""
    known = _Known(before, layout.root)
    if layout.listed_in is None and before.listed_in is not None:
        require_all_listed(before.listed_in, known.elsewhere(layout), layout.root)

    def remember(pair: TryOnPair) -> TryOnPair:
        old = known.of(pair)
        if old is None:
            return pair
        changed = bool(old.stamp) and old.stamp != (stamp_of(pair.person), stamp_of(pair.garment))

        def sound(path: Path | None) -> Path | None:
            return None if changed and path and path.is_relative_to(kept) else path

        return replace(
            pair, region=sound(pair.region) or sound(old.region), pose=sound(pair.pose) or sound(old.pose),
            size=old.size, garment_size=old.garment_size, content=old.content, stamp=old.stamp,
            error=old.error, others=old.others,
        )  # fmt: skip

    return known.holding_out(mapped(layout, remember))


def with_guides(layout: TryOnLayout, before: TryOnLayout) -> TryOnLayout:
    """The layout with the poses and regions that were found of the same pairs, where the pictures have not
    changed since and the files are there, and with those held out that were. Nothing else is taken over: all
    pictures are read as they lie."""
    known = _Known(before, layout.root)

    def guided(pair: TryOnPair) -> TryOnPair:
        old = None if pair.region and pair.pose else known.of(pair)
        if old is None or (old.stamp and old.is_changed):
            return pair
        region, pose = (path if path and path.exists() else None for path in (old.region, old.pose))
        return replace(pair, region=pair.region or region, pose=pair.pose or pose)

    return known.holding_out(mapped(layout, guided))


class _Known:
    """What a manifest says of the pairs of a dataset, wherever that lies today."""

    def __init__(self, before: TryOnLayout, root: Path):
        self.resolve = lru_cache(maxsize=256)(Path.resolve)  # links are followed once a folder, which are few
        listed = [path for pair in before.pairs for path in (pair.person, pair.garment)]
        lay, here = before.root.resolve(), root.resolve()
        today = followed(listed, lay, here)

        def here_too(path: Path) -> Path:
            return here / path.relative_to(lay) if path.is_relative_to(lay) else path

        def everywhere(pair: TryOnPair, where: Callable[[Path], Path]) -> TryOnPair:
            paths = {name: path for name in _PATHS if (path := getattr(pair, name)) is not None}
            return replace(pair, **{name: where(path) for name, path in paths.items()})

        # A held-out picture that was changed in the copy is held out there, too
        self.held_out = {self.pictures(everywhere(pair, here_too)) for pair in before.paired}
        before = mapped(before, lambda pair: everywhere(pair, today))
        self.pairs = {self.key(pair): pair for pair in before.pairs}
        self.held_out |= {self.pictures(pair) for pair in before.paired}

    def key(self, pair: TryOnPair) -> tuple[Path, Path, str, bool]:
        return *self.pictures(pair), pair.category, pair.paired

    def pictures(self, pair: TryOnPair) -> tuple[Path, Path]:
        """Person and garment, without links."""
        person, garment = (
            path.resolve() if path.is_symlink() else self.resolve(path.parent) / path.name
            for path in (pair.person, pair.garment)
        )
        return person, garment

    def of(self, pair: TryOnPair) -> TryOnPair | None:
        return self.pairs.get(self.key(pair))

    def elsewhere(self, layout: TryOnLayout) -> list[Path]:
        """People that are neither of the layout nor in its folder."""
        there, places = set(map(self.key, layout.pairs)), (layout.root.absolute(), layout.root.resolve())
        people = [pair.person for key, pair in self.pairs.items() if key not in there]
        return [path for path in people if not any(map(path.is_relative_to, places))]

    def holding_out(self, layout: TryOnLayout) -> TryOnLayout:
        """The layout without the training pairs that were held out before, by hand perhaps: they stay so."""
        training: list[TryOnPair] = []
        paired = list(layout.paired)
        for pair in layout.training:
            (paired if self.pictures(pair) in self.held_out else training).append(pair)
        return replace(layout, training=tuple(training), paired=tuple(paired))


def mapped(layout: TryOnLayout, change: Callable[[TryOnPair], TryOnPair]) -> TryOnLayout:
    """The layout with every pair changed."""

    def of(pairs: Sequence[TryOnPair]) -> tuple[TryOnPair, ...]:
        return tuple(change(pair) for pair in pairs)

    return replace(
        layout, training=of(layout.training), paired=of(layout.paired), unpaired=of(layout.unpaired)
    )
