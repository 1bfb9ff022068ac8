"""A shot, the frames of a clip between two cuts, as training reads it: which of them show the person, and how
they lie in their bucket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scd.data.buckets import Buckets, around, place_around
from scd.data.layouts import Layout
from scd.data.manifest import Entry
from scd.data.prepare import lacks_poses
from scd.media import ClipReader, Placement, open_clip
from scd.media.timing import on_grid
from scd.pose.files import read_poses
from scd.pose.skeleton import bounding_box, empty_pose
from scd.types import Pose, UserError

# Frames of a video so near each other are decoded in one go: a jump costs the decoding of half a group of
# pictures, 60 frames of what phones and browsers write
NEAR = 60


@dataclass(frozen=True, eq=False)
class Shot:
    """Frames are counted from the clip's first one, whatever the shot."""

    name: str  # the clip's, with the frame where it begins after a cut
    clip: str  # the clip's name
    path: Path  # the video, or the folder of frames
    poses: Path  # the clip's pose file
    content: str  # hash of the clip
    usable: NDArray[np.int64]  # (U,) frames that show the person, rising
    fps: Fraction
    placement: Placement
    border: tuple[int, int, int]  # the colour of padding, RGB

    @property
    def bucket(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.placement.size

    @property
    def key(self) -> list[Any]:
        """All that decides how its pictures look."""
        place = self.placement
        return [
            self.content, place.source_size, place.size, place.source, place.target, self.border,
            self.usable.tolist(),
        ]  # fmt: skip

    @property
    def scale(self) -> float:
        """Pixels of the clip in a pixel of the bucket: under 1 where the clip is enlarged."""
        (top, bottom), (y0, y1) = self.placement.source[1::2], self.placement.target[1::2]
        return (bottom - top) / (y1 - y0)

    def span(self, thirtieths: float) -> float:
        """Its frames in so many of 30 a second, which gaps and strides are told in."""
        return thirtieths * float(self.fps) / 30

    def apart(self, gap: int) -> int:
        """Its frames from one to another that is `gap` frames of 30 a second away; 0 for none alone."""
        return max(min(gap, 1), round(self.span(gap)))

    def pictures(self, frames: Sequence[int]) -> NDArray[np.uint8]:
        """The frames as they lie in the bucket, (n, H, W, 3). Raises UserError when one cannot be read."""
        found = _read(_opened(self.path), sorted(set(frames)))
        return np.stack([self.placement.apply(found[t], self.border) for t in frames])

    def pose(self, frame: int) -> Pose:
        """The person's pose in the bucket."""
        return self.placement.apply_to_pose(_poses(self.poses, self.placement.source_size)[frame])


def shots_of(layout: Layout, entry: Entry, buckets: Buckets) -> list[Shot]:
    """The shots of a clip that was prepared, with the person somewhere in each. Raises UserError when its
    poses are of another clip."""
    file = layout.poses(entry)
    poses = _poses(file, entry.size)
    if len(poses) != entry.frames:
        raise UserError(
            f"{file}: has poses of {len(poses)} frames, {entry.clip} has {entry.frames}; mend the file, or "
            f"remove its name from {layout.manifest} to look for poses anew"
        )
    edges = [0, *([] if layout.one_shot else entry.cuts), entry.frames]
    shots, boxes = [], [bounding_box(pose) for pose in poses]
    for start, stop in pairwise(edges):
        usable = [t for t in range(start, stop) if boxes[t] is not None]
        box = around(boxes[start:stop])
        if box is None:
            continue
        name = entry.clip if start == 0 else f"{entry.clip} from frame {start} on"
        placement = place_around(box, entry.size, buckets)
        shots.append(
            Shot(
                name=name, clip=entry.clip, path=layout.path(entry.clip), poses=file, content=entry.content,
                usable=np.array(usable), fps=Fraction(entry.fps), placement=placement, border=entry.border,
            )
        )  # fmt: skip
    return shots


def all_shots(
    layout: Layout, entries: dict[str, Entry], clips: Sequence[str], buckets: Buckets
) -> list[Shot]:
    """The shots of these clips in `buckets`, those that cannot be read left out. Raises
    UserError when poses were not looked for yet."""
    known = [entries[clip] for clip in clips]
    missing = sum(lacks_poses(layout, one) or not (one.frames or one.error) for one in known)
    if missing:
        named = layout.listed_in or layout.root
        raise UserError(
            f"{named}: {missing} of {len(clips)} clips were not looked into yet, or not for poses; "
            f"run scd data prepare {named}"
        )
    readable = [one for one in known if not one.error]
    return [shot for entry in readable for shot in shots_of(layout, entry, buckets)]


@lru_cache(maxsize=64)  # an opened clip holds its timestamps, no frames
def _opened(path: Path) -> ClipReader:
    return open_clip(path)


@lru_cache(maxsize=16)
def _poses(file: Path, size: tuple[int, int]) -> list[Pose]:
    """The person of each frame: the first in the file, without joints where it was not found."""
    return [frame[0] if frame else empty_pose(size) for frame in read_poses(file, size).frames]


def _read(clip: ClipReader, frames: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
    """Frames by number, which rise."""
    near = 1 if clip.path.is_dir() else NEAR
    found: dict[int, NDArray[np.uint8]] = {}
    runs = np.split(np.array(frames), np.flatnonzero(np.diff(frames) > near) + 1)
    for run in runs:
        first, last = int(run[0]), int(run[-1])
        start, source = float(first / clip.rate), clip.source
        grid = on_grid(source.frames(start), source.timing, start, clip.rate, last - first + 1)
        found |= {t: picture() for t, picture in enumerate(grid, first) if t in run}
    if len(found) < len(frames):
        raise UserError(f"{clip.path}: has fewer frames than when it was prepared; run scd data prepare")
    return found
