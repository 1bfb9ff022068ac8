"""Poses that were found once are kept on disk, by what they were found in and how."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from scd.pose.files import PoseFile, read_poses, write_poses
from scd.types import UserError

log = logging.getLogger("scd")

VARIABLE = "SCD_CACHE"  # the environment variable that names another folder
_PACKAGES = {"mediapipe": "mediapipe", "dwpose": "rtmlib"}

Option = str | int | float | bool | None


def cached_poses(
    find: Callable[[], PoseFile],
    content: str,
    detector: str,
    options: Mapping[str, Option],
    folder: str | Path | None = None,
) -> PoseFile:
    """The poses that `find()` gives: from the disk when it was asked before, else by asking, and kept.

    `content` is the hash of what is searched (the caller's, over all that changes the frames: bytes, start,
    end, rate); `detector` a detector's name, whose installed version counts too; `options` all else that
    changes the result (person, version of the tracking). A damaged file is ignored and written again; a
    folder that cannot be written to is only a warning. Errors of `find` pass, and no result is kept.
    """
    path = cache_path(content, detector, options, folder)
    if path.is_file():
        try:
            return read_poses(path)
        except UserError as error:
            log.info("poses are looked for again: %s", error)
    poses = find()
    try:
        # Written to a temporary name first, then renamed: two processes cannot spoil it for each other.
        write_poses(path, poses.frames, poses.fps, poses.size, force=True)
    except UserError as error:
        log.warning("the poses found cannot be kept (%s names another folder): %s", VARIABLE, error)
    return poses


def cache_path(
    content: str, detector: str, options: Mapping[str, Option], folder: str | Path | None = None
) -> Path:
    """The file for these poses, whether it exists or not."""
    what = {
        "content": content,
        "detector": detector,
        "version": detector_version(detector),
        "options": dict(sorted(options.items())),
    }
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    return cache_folder(folder) / "poses" / f"{key[:40]}.npz"


def cache_folder(folder: str | Path | None = None) -> Path:
    """`folder`, else what SCD_CACHE names, else `scd` in the user's folder for such things."""
    if folder is not None:
        return Path(folder)
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "scd"


def detector_version(detector: str) -> str:
    """The installed version of a detector's package; "" when it is not installed, or the name is unknown."""
    try:
        return version(_PACKAGES.get(detector, ""))
    except (PackageNotFoundError, ValueError):
        return ""
