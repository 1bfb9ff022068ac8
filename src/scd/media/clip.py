"""Clips in, frame by frame: a video, an animation or a folder becomes uint8 RGB at an even rate."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import count
from pathlib import Path
from typing import Protocol

from PIL import Image

from scd.media.files import RATE_FILE, frame_files, reading
from scd.media.picture import (
    DAMAGED,
    note_if_reduced,
    open_picture,
    quiet_pillow,
    read_image,
    require_size,
    to_rgb,
)
from scd.media.placement import fit
from scd.media.timing import DEFAULT_RATE, Timing, exact_rate, on_grid, part_of, timing_of
from scd.media.video import VideoFile
from scd.types import Picture, UserError

log = logging.getLogger("scd")


class Source(Protocol):
    """A clip as it lies on the disk."""

    size: tuple[int, int]  # (height, width) in pixels, as a person sees it
    timing: Timing
    has_audio: bool

    def frames(self, start: float) -> Iterator[tuple[float, Callable[[], Picture]]]:
        """(seconds since the first frame, what makes the picture (H, W, 3)), from `start` or before it on."""
        ...


@dataclass(frozen=True)
class ClipReader:
    """A clip, or a part of one, that gives its frames one after the other, as often as it is asked.

        clip = open_clip("dance.mp4", start=2.0, end=6.0)
        for frame in clip:  # uint8 (H, W, 3) RGB, a new array every time
            ...

    One frame is in memory at a time. Iterating logs, once, when frames of a damaged file are missing; then
    there are fewer than `num_frames`, and UserError when there is none at all.
    """

    path: Path
    size: tuple[int, int]  # (height, width) of every frame in pixels, rotation applied
    rate: Fraction  # frames per second, exactly
    num_frames: int  # as the timestamps promise; what iterating gives, unless the file is damaged
    start: (
        float  # seconds from the clip's first frame to the first one read here: `audio_start` of write_clip
    )
    has_audio: bool
    source: Source = field(repr=False)

    @property
    def fps(self) -> float:
        """Frames per second."""
        return float(self.rate)

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.num_frames / self.rate)

    def __iter__(self) -> Iterator[Picture]:
        frames = self.source.frames(self.start)
        empty = True
        for picture in on_grid(frames, self.source.timing, self.start, self.rate, self.num_frames):
            yield picture()
            empty = False
        if empty:
            raise UserError(f"{self.path} cannot be read from {self.start:g} s on: choose an earlier --start")


def open_clip(
    path: str | Path,
    start: float | None = None,
    end: float | None = None,
    fps: float | Fraction | None = None,
    max_frames: int | None = None,
) -> ClipReader:
    """A video file, an animated GIF, WebP or PNG, or a folder of frames, ready to be iterated.

    Rotation is applied, pixels become square, transparency lies on white, HDR becomes what a common screen
    shows (with PyAV 18), 10 bits become 8, frames over 4096 pixels become smaller (logged). A variable frame
    rate becomes even: the rate that most frames keep, else the average; each grid point shows the frame on
    show then, or the next one if nearer (`on_grid`), so the duration stays. In a folder, pictures come in
    natural order (2 before 10); one of another size than the first is fitted into its frame. A single picture
    is a clip of one frame.

    `start` and `end` are seconds from the first frame, `end` not included and cut to the clip's length.
    `fps` resamples; for a folder it says how fast the frames are (30 when not given), unless `write_clip`
    noted that in the folder. `max_frames` ends the clip early.

    The file is read once through for its timestamps, undecoded (0.9 GB/s from memory). A damaged end is left
    out and logged in one line. UserError when the path is missing, cut off before its index, empty, no
    video, without frames, of a codec that is not there, under 16 pixels, or when the arguments leave no
    frame.
    """
    path = Path(path)
    source = _source(path, fps)
    timing = source.timing
    rate = timing.rate if fps is None else exact_rate(fps)
    first, num_frames = part_of(path, timing.end, rate, start, end, max_frames)
    return ClipReader(path, source.size, rate, num_frames, first, source.has_audio, source)


def _source(path: Path, fps: float | Fraction | None) -> Source:
    if path.is_dir():
        return _Folder(path, fps)
    with reading(path), path.open("rb") as file:
        head = file.read(12)
    if not head:
        raise UserError(f"{path} is empty: save or copy it again")
    animated = head.startswith((b"GIF8", b"\x89PNG", b"\xff\xd8\xff"))
    if animated or (head[:4], head[8:]) == (b"RIFF", b"WEBP"):
        return _Animation(path)
    return VideoFile(path)


class _Folder:
    """Pictures in a folder, as a clip."""

    has_audio = False

    def __init__(self, path: Path, fps: float | Fraction | None) -> None:
        self._files = frame_files(path)
        self.size = _size(read_image(self._files[0]))
        rate = _noted_rate(path) or (exact_rate(fps) if fps is not None else DEFAULT_RATE)
        num = len(self._files)
        self.timing = Timing([float(k / rate) for k in range(num)], float(num / rate), rate)

    def frames(self, start: float) -> Iterator[tuple[float, Callable[[], Picture]]]:
        for time, file in zip(self.timing.times, self._files, strict=True):
            yield time, partial(self._read, file)

    def _read(self, file: Path) -> Picture:
        image = read_image(file)
        return image if _size(image) == self.size else fit(image, self.size)[0]


def _size(image: Picture) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _noted_rate(folder: Path) -> Fraction | None:
    """The rate that `write_clip` noted in the folder, if it did."""
    try:
        return exact_rate(Fraction(json.loads((folder / RATE_FILE).read_text(encoding="utf-8"))["fps"]))
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, UserError):
        return None


class _Animation:
    """An animated GIF, WebP or PNG, or a single picture, as a clip."""

    has_audio = False

    def __init__(self, path: Path) -> None:
        self._path = path
        times, end, tick, still = [], 0.0, 0.001, True
        for image in self._images():
            if not times:
                require_size(path, *image.size)
                note_if_reduced(path, *image.size)
                self.size = _size(self._drawn(image.copy()))
                tick = 0.01 if image.format == "GIF" else 0.001
            # Browsers show frames of up to 10 ms for 100 ms, and so people know these animations.
            milliseconds = image.info.get("duration") or 0
            times.append(end)
            end += (milliseconds if milliseconds > 10 else 100) / 1000
            still = still and milliseconds <= 10
        self.timing = timing_of(times, 0.0 if still and len(times) == 1 else end - times[-1], tick)

    def frames(self, start: float) -> Iterator[tuple[float, Callable[[], Picture]]]:
        """From the first frame on, whatever `start`: each is drawn over the one before."""
        for time, image in zip(self.timing.times, self._images(), strict=False):
            yield time, partial(self._drawn, image.copy())

    def _images(self) -> Iterator[Image.Image]:
        """The same Pillow image, drawn to one frame after the other, up to the first that is damaged."""
        path, number = self._path, 0
        try:
            with quiet_pillow():
                opened = open_picture(path)
            with opened as image:
                # An animated PNG may begin with a picture for programs that cannot animate.
                first = int(image.info.get("default_image", False))
                for number in count():
                    if (
                        number and image.format == "MPO"
                    ):  # a phone's JPEG with a second picture is no animation
                        return
                    try:
                        with quiet_pillow():
                            image.seek(first + number)
                            image.load()
                    except EOFError:
                        return
                    yield image
        except MemoryError:
            raise UserError(f"{path} does not fit into memory: make it smaller first") from None
        except DAMAGED as error:
            if not number:
                raise UserError(f"{path} is damaged or cut off ({error}): save or copy it again") from None
            log.warning("%s is cut off or damaged: its first %d frames are used", path, number)

    def _drawn(self, image: Image.Image) -> Picture:
        with quiet_pillow():
            return to_rgb(image, self._path)
