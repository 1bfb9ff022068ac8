"""The manifest of a dataset: a header, then one JSON object a line, one line a clip or a try-on pair.

    {"scd": 1, "layout": "ubc", "root": "../UBCFashion"}
    {"clip": "../UBCFashion/train/a.mp4", "frames": 350, "fps": "30", "size": [1080, 720], "split": "train",
     "poses": "scd/poses/4f.npz", ...}

All paths start at the manifest's folder. A line that says no more than `clip`, and perhaps `poses`, may be
written by hand, and the header left out: the rest is found out. Fields of other names, "caption" say, stay as
they are. Drawings are made from the poses when a clip is read. Pairs: scd.data.pairs.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from scd.media.files import reading, replacing
from scd.types import UserError

VERSION = 1  # of the format, in the header; raised when older programs would misread it
MANIFEST = "scd.jsonl"  # in the dataset's folder
WRITTEN_EVERY = 10.0  # seconds, while a dataset is prepared: VITON-HD's of 16,000 lines takes 0.2 s to write
KEPT = "scd"  # the folder of poses and regions, beside the manifest
TEST = "test"  # the `split` that training never sees
SPLITS = ("", "train", TEST)

Rows = list[tuple[int, dict[str, Any]]]  # with the number of the line


@dataclass(frozen=True)
class Header:
    """What a manifest says of itself; by hand it may be missing."""

    layout: str = ""  # tiktok, ubc, folder, vitonhd, dresscode; "" = it does not say
    root: str = "."  # the dataset's folder
    problems: tuple[str, ...] = ()  # of pairs: what the dataset lacks, a line each


@dataclass(frozen=True)
class Entry:
    """What is known of one clip."""

    clip: str  # a video, or a folder of frames, named from the dataset's folder; in the file from its own
    frames: int = 0  # that can be read; 0 = not looked into yet
    fps: str = ""  # frames per second, exactly: "30000/1001"
    size: tuple[int, int] = (0, 0)  # (height, width) of a frame in pixels
    split: str = ""  # "test" is held out; "" = not said
    cuts: tuple[int, ...] = ()  # frames with which another shot begins
    border: tuple[int, int, int] = (0, 0, 0)  # the colour at the first frame's edge, RGB
    content: str = ""  # hash of what the clip shows
    stamp: str = ""  # of its files on the disk: when it changes, the clip is looked into again
    poses: str = ""  # a pose file (npz, OpenPose's JSON), from the manifest's folder; "" = not looked for yet
    error: str = ""  # why the clip cannot be used
    others: dict[str, Any] = field(default_factory=dict)  # fields of the line that are not ours


_EMPTY = Entry("")


def is_manifest(path: Path) -> bool:
    return path.suffix == ".jsonl"


def read_header(path: Path) -> Header:
    """The header alone. Raises UserError."""
    return read_rows(path, 0)[0]


def read_rows(path: Path, most: int | None = None) -> tuple[Header, Rows]:
    """The header and the other lines, no further than the first `most`; nothing when there is no file. Raises
    UserError naming the line."""
    if not path.exists():
        return Header(), []
    with reading(path), path.open(encoding="utf-8", errors="replace") as file:
        return _parsed(path, file, most)


def _parsed(path: Path, lines: Iterable[str], most: int | None) -> tuple[Header, Rows]:
    header, rows = Header(), []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError
        except ValueError:
            raise bad_line(path, number) from None
        if rows or "scd" not in row:
            rows.append((number, row))
        elif row["scd"] == VERSION:
            problems = row.get("problems", [])
            if not isinstance(problems, list):
                raise bad_line(path, number)
            header = Header(str(row.get("layout", "")), str(row.get("root", ".")), tuple(map(str, problems)))
        else:
            raise UserError(
                f"{path}: is a manifest of version {row['scd']}, this program reads {VERSION}; install a "
                "newer scd, or write the manifest anew: scd data prepare"
            )
        if most is not None and len(rows) >= most:
            break
    return header, rows


def bad_line(path: Path, number: int, error: Exception | None = None) -> UserError:
    """`error`: what `known_values` says of the line."""
    if isinstance(error, BadValue):
        return UserError(f"{path}, line {number}: {error}; mend it, or remove it to have it found out")
    return UserError(
        f'{path}, line {number}: not {{"clip": ...}} or {{"person": ..., "garment": ...}} as JSON, with a '
        '"split" of train or test; mend the line or remove it'
    )


class BadValue(ValueError):
    """A field of a line that cannot be right."""


def layout_in(path: Path) -> str:
    """The layout that a manifest lists: what its header says, else what its first line shows. Raises
    UserError when it lists nothing."""
    if not path.exists():
        raise UserError(f"{path}: there is no such manifest; check the name, or write it: scd data prepare")
    header, rows = read_rows(path, 1)
    if not rows:
        raise UserError(f"{path}: lists nothing; write it anew: scd data prepare")
    return layout_of(header, rows)


def layout_of(header: Header, rows: Rows) -> str:
    """What the header says, else what the first line shows; "" where there is neither."""
    return header.layout or ("" if not rows else "vitonhd" if "person" in rows[0][1] else "folder")


def read_manifest(path: Path) -> dict[str, Entry]:
    """The clips' entries, in order, named as in the file; {} when there is no such file. Raises UserError
    naming the line."""
    kinds = {f.name: type(getattr(_EMPTY, f.name)) for f in fields(Entry) if f.name != "others"}
    entries = {}
    for number, row in read_rows(path)[1]:
        try:
            values = known_values(row, kinds)
            if not values["clip"]:
                raise ValueError
        except (ValueError, KeyError) as error:
            raise bad_line(path, number, error) from None
        others = {k: v for k, v in row.items() if k not in kinds}
        entries[values["clip"]] = Entry(**values, others=others)
    return entries


def known_values(row: Mapping[str, Any], kinds: Mapping[str, type]) -> dict[str, Any]:
    """The fields of a line that are ours, lists as tuples. Raises ValueError for one of another kind, and
    BadValue for a value that cannot be."""
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items() if k in kinds}
    if any(type(v) is not kinds[k] for k, v in values.items()) or values.get("split", "") not in SPLITS:
        raise ValueError
    for name, can_be in _CAN_BE.items():
        if name in values and not can_be(values[name]):
            raise BadValue(f'"{name}" cannot be {json.dumps(row[name])}')
    return values


def _are_whole(values: tuple, least: int, most: float = math.inf) -> bool:
    return all(type(value) is int and least <= value <= most for value in values)


def _is_size(value: tuple) -> bool:
    return len(value) == 2 and _are_whole(value, 1)


def _is_rate(value: str) -> bool:
    try:
        return not value or Fraction(value) > 0
    except (ValueError, ZeroDivisionError):
        return False


def _are_texts(value: tuple) -> bool:
    return all(isinstance(text, str) for text in value)


_CAN_BE: dict[str, Callable[[Any], bool]] = {
    "frames": lambda value: value >= 0,
    "fps": _is_rate,
    "size": _is_size,
    "garment_size": _is_size,
    "cuts": lambda value: _are_whole(value, 1),
    "border": lambda value: len(value) == 3 and _are_whole(value, 0, 255),
    # Of pairs; of a clip they are texts
    "content": lambda value: isinstance(value, str) or (len(value) == 2 and _are_texts(value)),
    "stamp": lambda value: isinstance(value, str) or (len(value) == 2 and _are_texts(value)),
}


def write_manifest(path: Path, entries: Iterable[Entry], header: Header) -> None:
    """Replace the manifest, whole or not at all; what is not known is left out. Raises UserError."""
    empty = asdict(_EMPTY)
    rows = (
        {k: v for k, v in asdict(entry).items() if k != "others" and v != empty[k]} | entry.others
        for entry in entries
    )
    write_rows(path, header, rows)


def write_rows(path: Path, header: Header, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a manifest, whole or not at all. Raises UserError."""
    first: dict[str, Any] = {"scd": VERSION, "layout": header.layout, "root": header.root}
    if header.problems:
        first["problems"] = header.problems
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (first, *rows))
    with replacing(path, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def now_and_then(write: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Gives a function that says that more is known: it is written every ten seconds, and at the end, however
    that comes (a manifest of 20,000 clips takes 1.2 s to write)."""
    written, waiting = time.monotonic(), False

    def changed() -> None:
        nonlocal written, waiting
        waiting = True
        if time.monotonic() - written > WRITTEN_EVERY:
            write()
            written, waiting = time.monotonic(), False

    try:
        yield changed
    finally:
        if waiting:
            write()


def renamed(name: str, here: Path, there: Path) -> str:
    """A path that is named from the folder `here` as it is named from `there`, with slashes. Both are
    resolved (links would make `..` lead elsewhere); links below them are left alone."""
    path = os.path.join(here, name)
    try:
        return Path(os.path.relpath(path, there)).as_posix()
    except ValueError:  # on another drive
        return Path(path).as_posix()


def is_outside(name: str) -> bool:
    """Whether a path, as `renamed` gives it, leads out of the folder that it is named from."""
    return name.split("/")[0] == ".." or Path(name).is_absolute()


def followed(paths: Sequence[Path], lay: Path, root: Path) -> Callable[[Path], Path]:
    """Where files lie today of a dataset that lay in `lay` and is in `root` now; `paths` are those that its
    manifest lists. Nothing left there, and something here: it was moved. Else a file was copied that has one
    size in both places, and what is gone lies where the other place has it. All others lie where they lay: of
    other datasets, or of a folder of which the other is a part."""
    if lay == root:
        return lambda path: path
    nested = lay.is_relative_to(root) or root.is_relative_to(lay)
    names = [path.relative_to(lay) for path in paths if path.is_relative_to(lay)]
    moved = (
        not nested
        and not any((lay / name).exists() for name in names)
        and any((root / name).exists() for name in names)
    )

    def today(path: Path) -> Path:
        if not path.is_relative_to(lay):
            return path
        there = root / path.relative_to(lay)
        if path.exists():
            found = not nested and there.exists() and _weight(path) == _weight(there)
        else:
            found = moved or there.exists()
        return there if found else path

    return today


def _weight(path: Path) -> tuple[int, int]:
    """Number and size of a clip's or a picture's files."""
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    return len(files), sum(file.stat().st_size for file in files)


def real(path: Path) -> Path:
    """A manifest's path; where links lead to it without them, since what it names starts at its folder."""
    resolved = path.resolve()
    return path if resolved == path.absolute() else resolved


def require_all_listed(manifest: Path, others: Sequence[Path], root: Path) -> None:
    """Raises UserError when a manifest that is to list what is in `root` lists `others`, too."""
    if others:
        raise UserError(
            f"{manifest}: lists {len(others):,} that are not in {root}, as {others[0]}, and would lose them; "
            f"scd data prepare {manifest} keeps all, or give -o another name"
        )


def require_files(manifest: Path, paths: Iterable[Path]) -> None:
    """Raises UserError when files that a manifest lists are not there."""
    paths = list(dict.fromkeys(paths))
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise UserError(
            f"{manifest}: {len(missing):,} of the {len(paths):,} files that it lists are missing, the first "
            f"is {missing[0]}; bring them back, or write the manifest anew: scd data prepare"
        )


def in_the_dataset(error: UserError, root: Path) -> str:
    """An error's text with names from the dataset's folder on, as a manifest has them: a dataset may move."""
    return str(error).replace(f"{root}{os.sep}", "")
