"""The poses of a whole clip: looked for once, then kept on the disk by content."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from scd.media import ClipReader, content_hash
from scd.pose import detect
from scd.pose.cache import cache_path, cached_poses
from scd.pose.detect import NobodyFound
from scd.pose.files import PoseFile
from scd.pose.remember import RememberingDetector
from scd.pose.track import VERSION, Seen, from_frames, largest, to_frames, track_person
from scd.types import Person


def find_poses(
    clip: ClipReader,
    detector: str = "mediapipe",
    person: Person = "largest",
    progress: Callable[[], None] | None = None,
    cache: Path | None = None,
    content: str = "",
) -> list[Seen]:
    """The chosen person in every frame of a clip; found once and kept on the disk by content. A search that
    was stopped goes on where it was. Raises UserError.

    `cache` names another folder than the user's, `content` is the clip's content hash where it is known.
    """

    looked = False

    def find() -> PoseFile:
        nonlocal looked
        looked = True  # and so it has been said whom "largest" took
        with RememberingDetector(detect.get_detector(detector), part, str(clip.path)) as remembering:
            tracked = track_person(clip, remembering, person, str(clip.path), progress)
            return PoseFile(to_frames(tracked), clip.size, clip.fps)

    key = _key(clip, detector, person, content)
    kept = cache_path(*key, cache)
    part = kept.with_suffix(".part")
    try:
        seen = from_frames(cached_poses(find, *key, cache).frames)
    except NobodyFound:  # nor would the next search find anybody
        _remove(part)
        raise
    if kept.is_file():
        _remove(part)
    first = next((number for number, one in enumerate(seen) if one.people), None)
    if not looked and person == "largest" and first is not None:
        largest(seen[first].people, first, str(clip.path))  # says it again
    return seen


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def pose_path(
    clip: ClipReader, detector: str = "mediapipe", cache: Path | None = None, content: str = ""
) -> Path:
    """Where `find_poses` keeps what it finds of the largest person, whether it has looked yet or not."""
    return cache_path(*_key(clip, detector, "largest", content), cache)


def _key(clip: ClipReader, detector: str, person: Person, content: str) -> tuple[str, str, dict[str, Any]]:
    part = f"{clip.start} {clip.rate} {clip.num_frames}"
    options = {"person": person, "tracking": VERSION}
    return f"{content or content_hash(clip.path)} {part}", detector, options
