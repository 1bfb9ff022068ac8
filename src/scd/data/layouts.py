"""How datasets lie on a disk: TikTok, UBCFashion, plain folders. A layout is nothing but a list of clips."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from scd.data.manifest import (
    KEPT,
    MANIFEST,
    TEST,
    Entry,
    Header,
    followed,
    is_manifest,
    layout_in,
    read_header,
    read_manifest,
    real,
    renamed,
    write_manifest,
)
from scd.media.files import PICTURES, VIDEOS
from scd.pose.cache import cache_folder
from scd.types import UserError

MOST_HELD_OUT = 10  # clips; TikTok's papers test on ten

# What is known of clips by their layout: that none has scene cuts, and of their licence
NOTES = {
    "tiktok": "people's own videos, collected for research: read the terms they came with before you share",
    "ubc": "a shop's videos, spread as a list of addresses: read the terms they came with before you share",
}


@dataclass(frozen=True)
class Layout:
    """The clips of a dataset: videos, or folders of frames."""

    kind: str
    root: Path
    clips: tuple[str, ...]  # names: paths below the root, with slashes, in order
    held_out: frozenset[str]  # of these, the clips that training never sees
    listed_in: Path | None = None  # the manifest that was named; None = the dataset's own

    def path(self, clip: str) -> Path:
        return self.root / clip

    def poses(self, entry: Entry) -> Path:
        """The file that an entry names."""
        return Path(os.path.normpath(self.manifest.parent.resolve() / entry.poses))

    @property
    def one_shot(self) -> bool:
        """Whether each clip is known to be without scene cuts."""
        return self.kind in NOTES

    @property
    def note(self) -> str:
        """On its licence."""
        return NOTES.get(self.kind, "")

    def split(self, clip: str) -> str:
        return TEST if clip in self.held_out else "train"

    @property
    def training(self) -> tuple[str, ...]:
        return tuple(clip for clip in self.clips if clip not in self.held_out)

    @cached_property
    def manifest(self) -> Path:
        return self.listed_in or own_manifest(self.root)

    def entries(self) -> dict[str, Entry]:
        """What the manifest says, by clip. One that is not there yet starts as a copy of the one beside the
        media; one of a dataset that was moved since speaks of the same clips. Raises UserError."""
        beside = self.root / MANIFEST
        source = beside if beside.exists() and not self.manifest.exists() else self.manifest
        root, here, home = (folder.resolve() for folder in (self.root, source.parent, self.manifest.parent))
        before, lay = read_manifest(source), _root_in(source)
        named = Path(os.path.normpath(here / read_header(source).root))  # with the links that lead there

        def written(name: str) -> Path:
            path = Path(os.path.normpath(here / name))
            return lay / path.relative_to(named) if path.is_relative_to(named) else path

        today = followed([written(name) for name in before], lay, root)

        def now(name: str, there: Path) -> str:
            """The name, from `there`, of what is named from `here`."""
            return renamed(str(today(written(name))), here, there)

        entries = (
            replace(entry, clip=now(entry.clip, root), poses=now(entry.poses, home) if entry.poses else "")
            for entry in before.values()
        )
        return {entry.clip: entry for entry in entries}

    def write(self, entries: Iterable[Entry]) -> None:
        """Replace the manifest, whole or not at all. Raises UserError."""
        root, home = self.root.resolve(), self.manifest.parent.resolve()
        rows = (replace(entry, clip=renamed(entry.clip, root, home)) for entry in entries)
        write_manifest(self.manifest, rows, Header(self.kind, renamed(".", root, home)))

    @property
    def is_moved(self) -> bool:
        """Whether the manifest tells of the dataset in another place."""
        return self.manifest.exists() and _root_in(self.manifest) != self.root.resolve()

    @property
    def kept(self) -> Path:
        """Where poses lie that were found here."""
        return self.manifest.parent / KEPT


def _root_in(manifest: Path) -> Path:
    """The dataset's folder, as its manifest names it."""
    return (manifest.parent.resolve() / read_header(manifest).root).resolve()


def own_manifest(root: Path) -> Path:
    """A dataset's manifest: beside the media; in the user's cache folder where that cannot be written to."""
    path = root / MANIFEST
    if os.access(root, os.W_OK):
        return path.resolve() if path.is_symlink() else path
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return cache_folder() / "data" / name / MANIFEST


def from_manifest(path: Path) -> Layout:
    """The clips that a manifest lists. Raises UserError."""
    kind, header = layout_in(path), read_header(path)
    if kind not in LAYOUTS:
        raise UserError(f"{path}: lists {kind}, no clips; name {kind} in place of a kind of clips")
    root = Path(os.path.normpath(path.parent / header.root)) if header.root != "." else path.parent
    layout = Layout(kind, root, (), frozenset(), path)
    entries = layout.entries()
    clips = tuple(entries)
    said = any(entry.split for entry in entries.values())
    held_out = frozenset(clip for clip, entry in entries.items() if entry.split == TEST)
    return replace(layout, clips=clips, held_out=held_out if said else _last(list(clips)))


def tiktok(root: Path) -> Layout:
    """TikTok_dataset/00001/images/0001.png; masks and densepose beside them are not used."""
    while (root / "TikTok_dataset").is_dir():  # some archives hold it twice
        root = root / "TikTok_dataset"
    clips = sorted(f"{folder.parent.name}/images" for folder in root.glob("*/images") if folder.is_dir())
    if not clips:
        raise UserError(
            f"{root}: not TikTok's layout, which is 00001/images/0001.png; name the folder TikTok_dataset, "
            "or use the kind `folder`"
        )
    return Layout("tiktok", root, tuple(clips), _last(clips))


def ubc(root: Path) -> Layout:
    """UBCFashion: train/*.mp4 and test/*.mp4, which are held out."""
    train, test = (sorted(f"{part}/{f.name}" for f in _videos(root / part)) for part in ("train", "test"))
    if not train:
        raise UserError(
            f"{root}: not UBCFashion's layout, which is train/*.mp4 and test/*.mp4; name the folder that "
            "holds both, or use the kind `folder`"
        )
    return Layout("ubc", root, (*train, *test), frozenset(test) or _last(train))


def folder(root: Path) -> Layout:
    """Videos and folders of frames, however deep, behind links to other places too."""
    found = []
    for place, files in _below(root):
        names = [place / f for f in sorted(files) if not f.startswith(".")]
        found += [f for f in names if f.suffix.lower() in VIDEOS]
        if sum(f.suffix.lower() in PICTURES for f in names) > 1:
            found.append(place)
    clips = sorted(f.relative_to(root).as_posix() for f in found)
    if not clips:
        raise UserError(
            f"{root}: holds neither videos ({', '.join(VIDEOS[:4])} ...) nor folders of frames (0001.png ...)"
        )
    return Layout("folder", root, tuple(clips), _last(clips))


def _below(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder once, with its files: first those that lie below the root, which so keep their own names,
    then those behind links, wherever they lead but above the root."""
    seen, begin = set(root.resolve().parents), [root]
    while begin:
        for name, folders, files in os.walk(begin.pop(0)):
            place = Path(name)
            if (there := place.resolve()) in seen:
                folders.clear()
                continue
            seen.add(there)
            within = [
                place / f for f in sorted(folders) if not f.startswith(".") and place / f != root / KEPT
            ]
            within = [f for f in within if not _is_run(f)]
            begin += [f for f in within if f.is_symlink()]
            folders[:] = [f.name for f in within if not f.is_symlink()]
            yield place, files


def _is_run(path: Path) -> bool:
    """Whether a folder is a training run's, whose sheets are no clip."""
    return (path / "config.json").is_file() and (path / "samples").is_dir()


LAYOUTS: dict[str, Callable[[Path], Layout]] = {"tiktok": tiktok, "ubc": ubc, "folder": folder}


def find_clips(root: str | Path, kind: str | None = None, manifest: Path | None = None) -> Layout:
    """The clips of the dataset at `root`, or of a manifest; without a kind, the first layout that fits.
    `manifest`: another one than the dataset's own, to be written. A clip that was held out once, or by hand,
    stays so. Raises UserError."""
    if not str(root):
        raise UserError("--data.root: name the folder of the dataset, or its manifest")
    path = Path(root).expanduser()
    if is_manifest(path) and not path.is_dir():
        return from_manifest(real(path))
    if not path.exists():
        raise UserError(f"{path}: there is no such folder; check the name")
    if path.is_file():
        raise UserError(f"{path}: is a file; name the folder it lies in")
    kinds = [kind] if kind else list(LAYOUTS)
    for number, name in enumerate(kinds, 1):
        try:
            layout = replace(LAYOUTS[name](path), listed_in=manifest and real(manifest))
            break
        except UserError:
            if number == len(kinds):
                raise
    else:
        raise AssertionError("no layouts")
    said = {clip: entry.split for clip, entry in layout.entries().items() if entry.split}
    held_out = (clip for clip in layout.clips if said.get(clip, layout.split(clip)) == TEST)
    return replace(layout, held_out=frozenset(held_out))


def _videos(place: Path) -> list[Path]:
    there = place.iterdir() if place.is_dir() else ()
    return [f for f in there if f.suffix.lower() in VIDEOS and not f.name.startswith(".")]


def num_held_out(num: int) -> int:
    """Of clips whose layout does not say: a tenth, ten at most, none of fewer than ten."""
    return min(MOST_HELD_OUT, num // 10)


def _last(clips: list[str]) -> frozenset[str]:
    return frozenset(clips[len(clips) - num_held_out(len(clips)) :])
