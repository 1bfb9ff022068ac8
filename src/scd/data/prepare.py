"""What training needs to know of a dataset, found out once: every clip read through, every pose found.

The manifest is written after each clip, so that an interrupted preparation goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from scd.data.layouts import KEPT, Layout
from scd.data.manifest import Entry, write_manifest
from scd.media import content_hash, open_clip
from scd.media.files import frame_files
from scd.media.placement import border_colour
from scd.pose.detect import get_detector
from scd.pose.find import find_poses, pose_path
from scd.pose.likeness import is_cut, thumbnail
from scd.types import UserError


def survey(layout: Layout, advance: Callable[[], None] | None = None) -> dict[str, Entry]:
    """Read every clip that is new or has changed, and return all entries; `advance` is called a clip.

    A clip that cannot be read gets an entry that says why. Raises UserError when the manifest is damaged or
    cannot be written.
    """
    known = layout.entries()
    entries = {clip: known.get(clip, Entry(clip)) for clip in layout.clips}
    for clip, before in entries.items():
        now = _look_into(layout, before)
        if now != before:
            entries[clip] = now
            write_manifest(layout.manifest, entries.values())
        if advance is not None:
            advance()
    return entries


def lacks_poses(layout: Layout, entry: Entry) -> bool:
    """Whether nobody has looked for the poses of a readable clip yet, or their file is gone."""
    return not entry.error and not (entry.poses and (layout.manifest.parent / entry.poses).exists())


def find_all_poses(
    layout: Layout,
    entries: dict[str, Entry],
    detector: str = "mediapipe",
    advance: Callable[[], None] | None = None,
) -> dict[str, Entry]:
    """The entries with the poses found of all clips that lack them; `advance` is called a frame.

    A clip without a person gets an entry that says so. Raises UserError when a pose file is gone that was not
    made here, when the detector is not installed, or when poses or manifest cannot be written.
    """
    missing = [entry for entry in entries.values() if lacks_poses(layout, entry)]
    for entry in missing:
        file = layout.manifest.parent / entry.poses
        own = any(file.resolve().is_relative_to(p.resolve()) for p in (layout.kept, layout.root / KEPT))
        if entry.poses and not own:
            raise UserError(
                f"{file}: is named as the poses of {entry.clip} and does not exist; bring it back, or remove "
                f"its name from {layout.manifest} to look for poses anew"
            )
    if missing:
        get_detector(detector)  # what stands against it is no fault of a clip
    entries = dict(entries)
    for entry in missing:
        clip = open_clip(layout.path(entry.clip))
        path = pose_path(clip, detector, cache=layout.kept, content=entry.content)
        try:
            find_poses(clip, detector, "largest", advance, layout.kept, entry.content)
            found = replace(entry, poses=path.relative_to(layout.manifest.parent).as_posix())
        except UserError as error:
            found = replace(entry, error=_in_the_dataset(error, layout))
        if not found.error and not path.exists():
            raise UserError(f"{path.parent}: poses cannot be kept there; make the folder writable")
        entries[entry.clip] = found
        write_manifest(layout.manifest, entries.values())
    return entries


def _look_into(layout: Layout, before: Entry) -> Entry:
    path = layout.path(before.clip)
    stamp = _stamp(path)
    if stamp and stamp == before.stamp:
        return before
    entry = replace(before, stamp=stamp, error="")
    try:
        clip = open_clip(path)
        cuts, border, last, frames = [], (0, 0, 0), None, 0
        for number, frame in enumerate(clip):
            small, frames = thumbnail(frame), number + 1
            if last is None:
                red, green, blue = border_colour(frame)
                border = (red, green, blue)
            elif is_cut(last, small):
                cuts.append(number)
            last = small
        content = content_hash(path)
        # Poses that were named by hand stay, and those of the same pictures; those of others do not
        same = before.content in ("", content)
        return replace(
            entry, frames=frames, fps=str(clip.rate), size=clip.size, cuts=tuple(cuts), border=border,
            content=content, poses=before.poses if same else "",
        )  # fmt: skip
    except UserError as error:
        return replace(entry, error=_in_the_dataset(error, layout))


def _stamp(path: Path) -> str:
    """Number, size and newest time of the files: cheap to ask for; "" when they are not there."""
    try:
        files = [f.stat() for f in (frame_files(path) if path.is_dir() else [path])]
    except (OSError, UserError):
        return ""
    return f"{len(files)} {sum(f.st_size for f in files)} {max(f.st_mtime_ns for f in files)}"


def _in_the_dataset(error: UserError, layout: Layout) -> str:
    """An error's text with names as the manifest has them: a dataset may move."""
    return str(error).replace(f"{layout.root}{os.sep}", "")
