"""One person through a clip: everybody is looked for at the start, at cuts and when the person is lost;
between, the detector sees only the person's enlarged box.

Frames come in one by one and none is kept: a clip of any length costs its keypoints.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from scd.pose.detect import Detector, NobodyFound, require_person
from scd.pose.likeness import clothes, is_cut, likeness, thumbnail
from scd.pose.skeleton import bounding_box, empty_pose, inverse_box, pose_scale, to_crop
from scd.types import BODY, Person, Pose, UserError

log = logging.getLogger("scd")

VERSION = 1  # raised with every change of results: cached poses of another version are found again

# The detector's square is half as large again as the body's joints: hair, hands and feet lie outside them,
# and an arm that is thrown up moves by a third of the person in a tenth of a second.
ENLARGE = 1.5
# A frame's square has at least this part of the last one's side. Without it a person of whom only the chest
# was found once would be looked for in the chest's square for ever.
SHRINK = 0.95
# Likeness from frame to frame, of drawn dancers at 10 frames per second, was never below 0.84; somebody else
# at arm's length has 0.5; a person of whom suddenly only the upper half is found 0.6.
SAME = 0.55
SAME_AFTER_CUT = 0.35  # below, after a cut or a loss, nobody is in the person's place
# Clothes count where other people were seen. Of 16 clips in which one drawn person walks across in front of
# another, with either followed (990 frames with both in sight): these numbers take the wrong one in no frame
# and none in 8; FORGET 0.05 is wrong in 14 frames, 0.1 in 77; SAME_CLOTHES 0.6 finds none in 20.
SAME_CLOTHES = 0.5
FORGET = 0.02  # how fast the memory of the clothes follows
# So long, where others were seen, a person in the right place in other clothes is somebody who stands in
# front; then the light has changed. As long as the gap that is filled at 30 frames per second.
PATIENCE = 15  # frames


@dataclass(frozen=True)
class Seen:
    """What one frame shows."""

    pose: Pose | None  # the chosen person; None = not found in this frame
    people: tuple[Pose, ...] = ()  # everybody, left to right, in frames where everybody was looked for


def track_person(
    frames: Iterable[NDArray[np.uint8]],
    detector: Detector,
    person: Person = "largest",
    name_for_errors: str = "the driving clip",
    progress: Callable[[], None] | None = None,
) -> Iterator[Seen]:
    """The chosen person in each of `frames`, (H, W, 3) uint8 RGB of one size, as they come.

    `person` counts from 1, left to right, in the first frame where anybody is found; "largest" says in the
    log whom it took when there was a choice. After a cut or a loss the one most alike in place, size and
    clothes is taken; the largest when nobody is, except that somebody who stepped in front is not taken for
    the person (for 15 frames). `progress` is called after every frame.

    UserError, as soon as it is known: no frames, frames of different sizes, fewer people than `person`,
    nobody in any frame.
    """
    require_person(person)
    return _tracked(frames, _Tracker(detector, person, name_for_errors), progress)


def _tracked(
    frames: Iterable[NDArray[np.uint8]], tracker: _Tracker, progress: Callable[[], None] | None
) -> Iterator[Seen]:
    shape, number = None, 0
    for number, frame in enumerate(frames, 1):
        shape = shape or frame.shape
        if frame.shape != shape:
            raise UserError(
                f"{tracker.name}: frame {number - 1} has {frame.shape[1]}x{frame.shape[0]} pixels, the first "
                f"has {shape[1]}x{shape[0]}: make all frames one size"
            )
        seen = tracker.look(frame, number - 1)
        if progress is not None:
            progress()
        yield seen
    if not number:
        raise UserError(f"{tracker.name} has no frames: give a clip with at least one")
    if tracker.pose is None:
        raise NobodyFound(
            f"no person found in any of the {number} frame(s) of {tracker.name}: use a clip that shows one "
            "from head to hips or more, or give a pose file"
        )


def follow(
    frames: Sequence[Sequence[Pose]], person: Person = "largest", name_for_errors: str = "the pose file"
) -> list[Pose | None]:
    """The chosen person in frames of poses alone, whose people come in any order; None = not there.

    `person` as in `track_person`. From frame to frame the one most alike in place and size is taken; after a
    frame without one, also somebody less alike; after 15 such frames the largest, as after a cut. UserError
    for fewer people than `person`.
    """
    sure = any(bounding_box(pose, BODY) for frame in frames for pose in frame)
    taken: list[Pose | None] = []
    last: Pose | None = None
    misses = 0
    for number, everybody in enumerate(frames):
        # Whose joints are all guesses is nobody, unless there is nobody else in any frame
        there = [pose for pose in everybody if (bounding_box(pose, BODY) if sure else pose.scores.any())]
        people = sorted(there, key=_middle)
        pose = None
        if last is None:
            pose = _first_of(people, person, number, name_for_errors) if people else None
        elif people:
            near = max(people, key=partial(likeness, last))
            if likeness(last, near) >= (SAME_AFTER_CUT if misses else SAME):
                pose = near
            elif misses >= PATIENCE:
                pose = max(people, key=pose_scale)
        misses = 0 if pose is not None else misses + 1
        last = pose or last
        taken.append(pose)
    return taken


def _middle(pose: Pose) -> float:
    left, _, right, _ = bounding_box(pose, BODY) or (0.0, 0.0, 1.0, 1.0)
    return left + right


class _Tracker:
    """The person's last pose, square and clothes: all that is kept between frames."""

    def __init__(self, detector: Detector, person: Person, name: str) -> None:
        self.detector, self.name = detector, name
        self.person: Person = person
        self.pose: Pose | None = None  # where the person was last seen
        self._side = 0.0  # of the last square, pixels
        self._clothes: list[NDArray[np.float32]] = []  # remembered, and the last frame's
        self._misses = 0  # frames since the person was last seen for sure
        self._lost = True  # nobody was taken in the last frame
        self._alone = True  # nobody else was ever seen
        self._new_shot = False  # since the person was last seen
        self._thumbnail: NDArray[np.uint8] | None = None

    def look(self, frame: NDArray[np.uint8], number: int) -> Seen:
        small = thumbnail(frame)
        if self._thumbnail is not None and is_cut(self._thumbnail, small):
            self._new_shot = True
        self._thumbnail = small
        pose: Pose | None = None
        people: tuple[Pose, ...] = ()
        if not (self._lost or self._new_shot):
            pose = self._most_alike(self._people(self._in_square(frame)), frame, SAME)
        if pose is not None:
            self._misses = 0
        else:
            people = self._people(self.detector.detect(frame))
            pose = self._choose(people, frame, number)
        self._lost = pose is None
        if pose is not None:
            self._new_shot = False
            self._remember(pose, frame)
        return Seen(pose, people)

    def _people(self, found: Sequence[Pose]) -> tuple[Pose, ...]:
        self._alone = self._alone and len(found) < 2
        return tuple(found)

    def _in_square(self, frame: NDArray[np.uint8]) -> list[Pose]:
        assert self.pose is not None
        size = (frame.shape[0], frame.shape[1])
        left, top, right, bottom = square_around(self.pose, self._side)
        part = np.ascontiguousarray(frame[top:bottom, left:right])
        box = (left / size[1], top / size[0], right / size[1], bottom / size[0])
        return [to_crop(pose, inverse_box(box), size) for pose in self.detector.detect(part)]

    def _choose(self, people: Sequence[Pose], frame: NDArray[np.uint8], number: int) -> Pose | None:
        """One of everybody in the frame, or nobody: better a gap than another person."""
        if self.pose is None:
            return _first_of(people, self.person, number, self.name) if people else None
        same = self._most_alike(people, frame, SAME_AFTER_CUT) or self._same_clothes(people, frame)
        self._misses = 0 if same is not None else self._misses + 1
        if same is None and people and self._new_shot:
            self._clothes, self._misses = [], 0
            return max(people, key=pose_scale)
        if same is None and people and (self._alone or self._misses > PATIENCE):
            last = self.pose
            near = max(people, key=lambda pose: likeness(last, pose))
            return near if likeness(last, near) >= SAME_AFTER_CUT else max(people, key=pose_scale)
        return same

    def _most_alike(self, people: Sequence[Pose], frame: NDArray[np.uint8], least: float) -> Pose | None:
        """The one in the person's place and size, and in its clothes unless nobody else was ever seen."""
        assert self.pose is not None
        scores = [likeness(self.pose, pose) for pose in people]
        if not self._alone:
            dressed = [self._dressed_alike(frame, pose) for pose in people]
            pairs = zip(scores, dressed, strict=True)
            # The last frame's clothes let a turning person pass; between two people the memory decides.
            scores = [s + d[0] if s >= least and max(d) >= SAME_CLOTHES else 0.0 for s, d in pairs]
            least = 1e-9
        best = max(range(len(people)), key=scores.__getitem__, default=None)
        return people[best] if best is not None and scores[best] >= least else None

    def _same_clothes(self, people: Sequence[Pose], frame: NDArray[np.uint8]) -> Pose | None:
        """The one in the person's clothes wherever it stands: somebody who went and came back."""
        dressed = [max(self._dressed_alike(frame, pose, 0.0)) for pose in people]
        best = max(range(len(people)), key=dressed.__getitem__, default=None)
        return people[best] if best is not None and dressed[best] >= SAME_CLOTHES else None

    def _dressed_alike(self, frame: NDArray[np.uint8], pose: Pose, unknown: float = 1.0) -> list[float]:
        """How alike the clothes are to those remembered and to the last frame's, 0..1."""
        own = clothes(frame, pose)
        if own is None or not self._clothes:
            return [unknown]
        return [float(np.minimum(own, known).sum()) for known in self._clothes]

    def _remember(self, pose: Pose, frame: NDArray[np.uint8]) -> None:
        self.pose = pose
        self._side = max(ENLARGE * pose_scale(pose), SHRINK * self._side)
        seen = clothes(frame, pose)
        if seen is None:
            return
        memory = (1 - FORGET) * self._clothes[0] + FORGET * seen if self._clothes else seen
        # Of somebody who is taken for want of a better one, the memory learns slowly, and only the memory.
        self._clothes = [memory, self._clothes[1] if self._misses and self._clothes else seen]


def _first_of(people: Sequence[Pose], person: Person, number: int, name: str) -> Pose:
    """`person` among the people of frame `number`, left to right."""
    if person == "largest":
        return largest(people, number, name)
    if person > len(people):
        raise UserError(
            f"frame {number} of {name}, the first with people, shows {len(people)} person(s): "
            f"--person {person} is one too many or more"
        )
    return people[person - 1]


def largest(people: Sequence[Pose], number: int, name: str) -> Pose:
    """Whom "largest" means among the people of frame `number`; said in the log when there was a choice."""
    index = max(range(len(people)), key=lambda i: pose_scale(people[i]))
    if len(people) > 1:
        text = "%d people in frame %d of %s: the largest, number %d from the left, is followed; "
        text += "--person chooses another"
        log.warning(text, len(people), number, name, index + 1)
    return people[index]


def square_around(pose: Pose, side: float) -> tuple[int, int, int, int]:
    """The part of the picture within a square of `side` pixels around the body: left, top, right, bottom in
    whole pixels. A side below ENLARGE times the body's longer side becomes that."""
    height, width = pose.size
    left, top, right, bottom = bounding_box(pose, BODY) or (0.0, 0.0, 1.0, 1.0)
    half = max(side, ENLARGE * pose_scale(pose), 8.0) / 2
    x, y = (left + right) / 2 * width, (top + bottom) / 2 * height
    return (
        min(max(int(x - half), 0), width - 1),
        min(max(int(y - half), 0), height - 1),
        max(min(int(x + half) + 1, width), 1),
        max(min(int(y + half) + 1, height), 1),
    )


def to_frames(seen: Iterable[Seen]) -> list[list[Pose]]:
    """What was seen as a pose file holds it: in each frame the chosen person, then everybody found."""
    frames = []
    for one in seen:
        size = next((pose.size for pose in (one.pose, *one.people) if pose is not None), None)
        frames.append([] if size is None else [one.pose or empty_pose(size), *one.people])
    return frames


def from_frames(frames: Iterable[Sequence[Pose]]) -> list[Seen]:
    """The way back from `to_frames`."""
    return [Seen(frame[0] if frame and frame[0].scores.any() else None, tuple(frame[1:])) for frame in frames]
