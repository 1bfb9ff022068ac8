"""The sound of one file for the pictures of another: copied where browsers play it, else AAC."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from scd.media.video import find_video, frames_of, opened, packets_of
from scd.types import UserError

log = logging.getLogger("scd")

_COPIED = (
    "aac",
    "mp3",
    "mp3float",
)  # mp4 could hold more, but not every browser plays AC-3, ALAC, FLAC or Opus there
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_AAC_FRAME = 1024  # samples
_AAC_BIT_RATE = 192_000
_WORTH_SEEKING = 2.0  # seconds

_Timed = tuple[float, Any]  # (middle of the packet in seconds from the first picture, packet)


@contextmanager
def sound_into(output: Any, path: str | Path | None, start: float) -> Iterator[Callable[[float], None]]:
    """Give `output`, a PyAV container that nothing was written to yet, the sound of `path` from `start` on.

    What comes back takes the seconds of pictures written so far and writes as much sound. `start` counts
    seconds from the file's first picture, or sound where it has no pictures. No path, a folder, an animation
    and a file without sound are silence.
    """
    if path is None or not _has_sound(Path(path)):
        yield lambda seconds: None
        return
    with opened(Path(path)) as container:
        stream = container.streams.best("audio")
        if stream.codec_context is None:
            log.warning("%s: its sound is in a format that cannot be read here, and is left out", path)
            yield lambda seconds: None
            return
        picture = find_video(container)
        first = picture if picture is not None and picture.start_time is not None else stream
        origin = float((first.start_time or 0) * first.time_base) + start
        if start > _WORTH_SEEKING:
            with suppress(
                av.FFmpegError
            ):  # no jumps in this container, or the sound ends before: all is read
                container.seek(int(origin / stream.time_base), stream=stream)
        make = _copied if stream.codec_context.name in _COPIED else _encoded
        packets = make(container, stream, output, origin)
        upcoming = next(packets, None)

        def until(seconds: float) -> None:
            nonlocal upcoming
            while upcoming is not None and upcoming[0] < seconds:
                output.mux(upcoming[1])
                upcoming = next(packets, None)

        yield until


def _has_sound(path: Path) -> bool:
    if path.is_dir():
        return False
    try:
        with opened(path) as container:
            return bool(container.streams.audio)
    except UserError:  # a GIF, say: no container that has sound
        return False


def _copied(container: Any, stream: Any, output: Any, origin: float) -> Iterator[_Timed]:
    """The packets as they are. One before the cut comes too, for decoders to start from: players skip it."""
    target = output.add_stream_from_template(stream)
    shift = round(origin / stream.time_base)

    def packets() -> Iterator[_Timed]:
        for packet in packets_of(container, stream):
            if packet is None or packet.pts is None:
                continue
            time = float(packet.pts * packet.time_base) - origin
            length = float((packet.duration or 0) * packet.time_base)
            if time + 2 * length > 0:
                packet.stream = target
                packet.pts -= shift
                packet.dts = packet.pts
                yield time + length / 2, packet

    return packets()


def _encoded(container: Any, stream: Any, output: Any, origin: float) -> Iterator[_Timed]:
    source = stream.codec_context
    rate = source.sample_rate if source.sample_rate in _AAC_RATES else 48_000
    layout = "mono" if source.channels == 1 else "stereo"
    target = output.add_stream("aac", rate, layout=layout, bit_rate=_AAC_BIT_RATE)
    resampler = av.AudioResampler("fltp", layout, rate, _AAC_FRAME)

    def packets() -> Iterator[_Timed]:
        for frame in _resampled(frames_of(source, packets_of(container, stream)), resampler):
            first = round((frame.pts * float(frame.time_base) - origin) * rate)
            if first + _AAC_FRAME > 0:
                frame.pts, frame.time_base = first, Fraction(1, rate)
                yield from _timed(target.encode(frame))
        yield from _timed(target.encode(None))

    return packets()


def _resampled(frames: Iterator[Any], resampler: Any) -> Iterator[Any]:
    for frame in frames:
        if frame is not None:
            yield from resampler.resample(frame)
    yield from resampler.resample(None)


def _timed(packets: list[Any]) -> Iterator[_Timed]:
    for packet in packets:
        yield float((packet.pts + (packet.duration or 0) / 2) * packet.time_base), packet
