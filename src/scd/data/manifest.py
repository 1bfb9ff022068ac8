"""The manifest of a dataset: one JSON object a line, one line a clip. Drawings are made from the poses when a
clip is read.

    {"clip": "train/a.mp4", "frames": 350, "fps": "30", "size": [1080, 720], "poses": "scd/poses/4f.npz", ...}

A line that says no more than `clip`, and perhaps `poses`, may be written by hand: the rest is found out.
Fields of other names, "caption" say, stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from scd.media.files import reading, replacing
from scd.types import UserError


@dataclass(frozen=True)
class Entry:
    """What is known of one clip."""

    clip: str  # path below the dataset's folder: a video, or a folder of frames
    frames: int = 0  # that can be read; 0 = not looked into yet
    fps: str = ""  # frames per second, exactly: "30000/1001"
    size: tuple[int, int] = (0, 0)  # (height, width) of a frame in pixels
    cuts: tuple[int, ...] = ()  # frames with which another shot begins
    border: tuple[int, int, int] = (0, 0, 0)  # the colour at the first frame's edge, RGB
    content: str = ""  # hash of what the clip shows
    stamp: str = ""  # of its files on the disk: when it changes, the clip is looked into again
    poses: str = ""  # a pose file (npz, OpenPose's JSON), from the manifest's folder; "" = not looked for yet
    error: str = ""  # why the clip cannot be used
    others: dict[str, Any] = field(default_factory=dict)  # fields of the line that are not ours


_EMPTY = Entry("")


def read_manifest(path: Path) -> dict[str, Entry]:
    """The entries by clip, in order; {} when there is no such file. Raises UserError naming the line."""
    if not path.exists():
        return {}
    with reading(path):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    kinds = {f.name: type(getattr(_EMPTY, f.name)) for f in fields(Entry) if f.name != "others"}
    entries = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            values: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in row.items() if k in kinds
            }
            if not values["clip"] or any(type(v) is not kinds[k] for k, v in values.items()):
                raise ValueError
            others = {k: v for k, v in row.items() if k not in kinds}
            entries[values["clip"]] = Entry(**values, others=others)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(
                f'{path}, line {number}: not {{"clip": ...}} as JSON; mend the line or remove it'
            ) from None
    return entries


def write_manifest(path: Path, entries: Iterable[Entry]) -> None:
    """Replace the manifest, whole or not at all; what is not known is left out. Raises UserError."""
    empty = asdict(_EMPTY)
    rows = (
        {k: v for k, v in asdict(entry).items() if k != "others" and v != empty[k]} | entry.others
        for entry in entries
    )
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with replacing(path, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
