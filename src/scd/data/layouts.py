"""How datasets lie on a disk: TikTok, UBCFashion, plain folders. A layout is nothing but a list of clips."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from scd.data.manifest import Entry, read_manifest
from scd.media.files import PICTURES, VIDEOS
from scd.pose.cache import cache_folder
from scd.types import UserError

MANIFEST = "scd.jsonl"  # in the dataset's folder
KEPT = "scd"  # the folder of poses, beside the manifest
MOST_HELD_OUT = 10  # clips; FIELD 2: TikTok's papers test on ten


@dataclass(frozen=True)
class Layout:
    """The clips of a dataset: videos, or folders of frames."""

    kind: str
    root: Path
    clips: tuple[str, ...]  # names: paths below the root, with slashes, in order
    held_out: frozenset[str]  # of these, the clips that training never sees
    one_shot: bool  # whether each clip is known to be without scene cuts
    note: str = ""  # on its licence
    listed_in: Path | None = None  # the manifest that was named instead of a folder

    def path(self, clip: str) -> Path:
        return self.root / clip

    @property
    def training(self) -> tuple[str, ...]:
        return tuple(clip for clip in self.clips if clip not in self.held_out)

    @property
    def manifest(self) -> Path:
        """Beside the media; in the user's cache folder where that cannot be written to."""
        if self.listed_in is not None:
            return self.listed_in
        if os.access(self.root, os.W_OK):
            return self.root / MANIFEST
        name = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:16]
        return cache_folder() / "data" / name / MANIFEST

    def entries(self) -> dict[str, Entry]:
        """What the manifest says, by clip. A manifest in the cache folder starts as a copy of the one beside
        the media, should that have been written when it still could be. Raises UserError."""
        beside = self.root / MANIFEST
        if self.manifest.exists() or self.listed_in is not None or not beside.exists():
            return read_manifest(self.manifest)
        home = self.root.resolve()  # poses are named from the folder of their manifest
        return {
            clip: replace(entry, poses=str(home / entry.poses) if entry.poses else "")
            for clip, entry in read_manifest(beside).items()
        }

    @property
    def kept(self) -> Path:
        """Where poses lie that were found here."""
        return self.manifest.parent / KEPT


def tiktok(root: Path) -> Layout:
    """TikTok_dataset/00001/images/0001.png; masks and densepose beside them are not used."""
    root = root / "TikTok_dataset" if (root / "TikTok_dataset").is_dir() else root
    clips = sorted(f"{folder.parent.name}/images" for folder in root.glob("*/images") if folder.is_dir())
    if not clips:
        raise UserError(
            f"{root}: not TikTok's layout, which is 00001/images/0001.png; name the folder TikTok_dataset, "
            "or use the kind `folder`"
        )
    note = "people's own videos, collected for research: read the terms they came with before you share"
    return Layout("tiktok", root, tuple(clips), _last(clips), True, note)


def ubc(root: Path) -> Layout:
    """UBCFashion: train/*.mp4 and test/*.mp4, which are held out."""
    train, test = (sorted(f"{part}/{f.name}" for f in _videos(root / part)) for part in ("train", "test"))
    if not train:
        raise UserError(
            f"{root}: not UBCFashion's layout, which is train/*.mp4 and test/*.mp4; name the folder that "
            "holds both, or use the kind `folder`"
        )
    note = "a shop's videos, spread as a list of addresses: read the terms they came with before you share"
    return Layout("ubc", root, (*train, *test), frozenset(test) or _last(train), True, note)


def folder(root: Path) -> Layout:
    """Videos and folders of frames, however deep; or the clips that a manifest (.jsonl) lists."""
    if root.suffix == ".jsonl":
        clips = list(read_manifest(root))
        return Layout("folder", root.parent, tuple(clips), _last(clips), False, listed_in=root)
    found = []
    for place, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and Path(place, f) != root / KEPT)
        names = [Path(place, f) for f in sorted(files) if not f.startswith(".")]
        found += [f for f in names if f.suffix.lower() in VIDEOS]
        if sum(f.suffix.lower() in PICTURES for f in names) > 1:
            found.append(Path(place))
    clips = sorted(f.relative_to(root).as_posix() for f in found)
    if not clips:
        raise UserError(
            f"{root}: holds neither videos ({', '.join(VIDEOS[:4])} ...) nor folders of frames (0001.png ...)"
        )
    return Layout("folder", root, tuple(clips), _last(clips), False)


LAYOUTS: dict[str, Callable[[Path], Layout]] = {"tiktok": tiktok, "ubc": ubc, "folder": folder}


def find_clips(root: str | Path, kind: str | None = None) -> Layout:
    """The clips of the dataset at `root`; without a kind, the first layout that fits. Raises UserError."""
    if not root:
        raise UserError("--data.root: name the folder of the dataset")
    path = Path(root).expanduser()
    if not path.exists():
        raise UserError(f"{path}: there is no such folder; check the name")
    if path.is_file() and path.suffix != ".jsonl":
        raise UserError(f"{path}: is a file; name the folder it lies in")
    kinds = ["folder"] if path.is_file() else [kind] if kind else list(LAYOUTS)
    for number, name in enumerate(kinds, 1):
        try:
            return LAYOUTS[name](path)
        except UserError:
            if number == len(kinds):
                raise
    raise AssertionError("no layouts")


def _videos(place: Path) -> list[Path]:
    there = place.iterdir() if place.is_dir() else ()
    return [f for f in there if f.suffix.lower() in VIDEOS and not f.name.startswith(".")]


def _last(clips: list[str]) -> frozenset[str]:
    """A tenth of the clips, ten at most: none of fewer than ten."""
    return frozenset(clips[len(clips) - min(MOST_HELD_OUT, len(clips) // 10) :])
