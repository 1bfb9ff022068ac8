"""What training needs to know of a dataset, found out once: every clip read through, every pose found.

The manifest is written now and then, so that an interrupted preparation goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from scd.data.layouts import Layout
from scd.data.manifest import KEPT, Entry, in_the_dataset, is_outside, now_and_then, require_all_listed
from scd.data.workers import each
from scd.media import content_hash, open_clip
from scd.media.files import frame_files, is_whole
from scd.media.placement import border_colour
from scd.pose.detect import get_detector
from scd.pose.find import find_poses, pose_path
from scd.pose.likeness import is_cut, thumbnail
from scd.types import UserError


def survey(layout: Layout, advance: Callable[[], None] | None = None, workers: int = 1) -> dict[str, Entry]:
    """Read every clip that is new or has changed, and return all entries; `advance` is called a clip.

    A clip that cannot be read gets an entry that says why. Raises UserError when the manifest is damaged or
    cannot be written, or lists clips of elsewhere, too, which would be lost.
    """
    known = layout.entries()
    entries = {clip: replace(known.get(clip, Entry(clip)), split=layout.split(clip)) for clip in layout.clips}
    if layout.manifest.exists():
        root, lost = layout.root.resolve(), known.keys() - entries.keys()
        others = [Path(os.path.normpath(root / clip)) for clip in known if clip in lost and is_outside(clip)]
        require_all_listed(layout.manifest, others, layout.root)
    tell = advance or (lambda: None)
    new = [entry for entry in entries.values() if not entry.stamp or entry.stamp != _stamp(layout, entry)]
    for _ in range(len(entries) - len(new)):
        tell()
    with now_and_then(lambda: layout.write(entries.values())) as changed:
        for _, entry in each(_look_into, [(layout, entry) for entry in new], workers):
            if entry != entries[entry.clip]:
                entries[entry.clip] = entry
                changed()
            tell()
    begun = layout.listed_in is not None and not layout.manifest.exists()  # as a copy of another
    split = any(known[clip].split != entries[clip].split for clip in known.keys() & entries.keys())
    if begun or split or layout.is_moved:
        layout.write(entries.values())
    return entries


def lacks_poses(layout: Layout, entry: Entry) -> bool:
    """Whether nobody has looked for the poses of a readable clip yet, or their file is gone or cut off."""
    return not entry.error and not (entry.poses and is_whole(layout.poses(entry)))


def find_all_poses(
    layout: Layout,
    entries: dict[str, Entry],
    detector: str = "mediapipe",
    advance: Callable[[], None] | None = None,
    workers: int = 1,
) -> dict[str, Entry]:
    """The entries with the poses found of all clips that lack them; `advance` is called a frame.

    A clip without a person gets an entry that says so. Raises UserError when a pose file is gone that was not
    made here, when the detector is not installed, or when poses or manifest cannot be written.
    """
    missing = [entry for entry in entries.values() if lacks_poses(layout, entry)]
    for entry in missing:
        file = layout.poses(entry)
        own = any(file.resolve().is_relative_to(p.resolve()) for p in (layout.kept, layout.root / KEPT))
        if entry.poses and not own:
            wrong = "is cut off" if file.exists() else "does not exist"
            raise UserError(
                f"{file}: is named as the poses of {entry.clip} and {wrong}; bring it back, or remove "
                f"its name from {layout.manifest} to look for poses anew"
            )
    if missing:
        get_detector(detector)  # what stands against it is no fault of a clip
    entries, tell = dict(entries), advance or (lambda: None)
    alone = workers < 2 or len(missing) < 2
    tasks = [(layout, entry, detector, advance if alone else None) for entry in missing]
    with now_and_then(lambda: layout.write(entries.values())) as changed:
        for number, found in each(_find_in, tasks, workers):
            if not found.error and lacks_poses(layout, found):
                raise UserError(f"{layout.kept}: poses cannot be kept there; make the folder writable")
            entries[found.clip] = found
            changed()
            for _ in range(0 if alone else missing[number].frames):
                tell()
    return entries


def _find_in(layout: Layout, entry: Entry, detector: str, advance: Callable[[], None] | None) -> Entry:
    """The entry with the name of its poses, which are found and kept, or with why there are none."""
    clip = open_clip(layout.path(entry.clip))
    path = pose_path(clip, detector, cache=layout.kept, content=entry.content)
    try:
        find_poses(clip, detector, "largest", advance, layout.kept, entry.content)
    except UserError as error:
        return replace(entry, error=in_the_dataset(error, layout.root))
    return replace(entry, poses=path.relative_to(layout.manifest.parent).as_posix())


def _look_into(layout: Layout, before: Entry) -> Entry:
    """The entry of a clip that is read through."""
    path = layout.path(before.clip)
    entry = replace(before, stamp=_stamp(layout, before), error="")
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
        return replace(entry, error=in_the_dataset(error, layout.root))


def _stamp(layout: Layout, entry: Entry) -> str:
    """Number, size and newest time of the files: cheap to ask for; "" when they are not there."""
    path = layout.path(entry.clip)
    try:
        files = [f.stat() for f in (frame_files(path) if path.is_dir() else [path])]
    except (OSError, UserError):
        return ""
    return f"{len(files)} {sum(f.st_size for f in files)} {max(f.st_mtime_ns for f in files)}"
