"""A video file through PyAV: when its frames come, and each as uint8 RGB, upright and on white."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from scd.media.files import reading
from scd.media.picture import note_if_reduced, reduced, require_size
from scd.media.timing import DEFAULT_RATE, timing_of
from scd.types import Picture, UserError

log = logging.getLogger("scd")

# What people's videos come in. FFmpeg also knows play lists, which open other files and addresses, and takes
# plain text for terminal art.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,asf,ogg,nut,ivf,mxf,dv,rm,"
    "yuv4mpegpipe,mp3,wav,flac,aac,h264,hevc,obu,wtv,mjpeg,gxf,swf"
)
_STATES_DURATION = ("mov", "matroska", "flv")  # in its header: an earlier end means a broken copy
_WORTH_SEEKING = 2.0  # seconds; below, decoding from the first frame costs less than a second opening
_AIMS = (0.0, 2.0, 12.0)  # seconds before the start: MPEG-TS has no index, and a jump may land behind its aim
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC

_PQ, _HLG = 16, 18  # transfer functions of HDR (ITU-T H.273)
_BT709, _BT601, _UNSPECIFIED = 1, 5, 2
_HD = 720  # lines; players take untagged video of this height for BT.709, lower for BT.601
# Without ACCURATE_RND flat colours come back up to 3 levels off; PyAV before 17 has no name for it
ACCURATE = int(Interpolation.BICUBIC) | 0x40000 | 0x2000


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The PyAV container of a file, which can reach nothing but that file. UserError when it is none."""
    # "file:" because FFmpeg takes "a:b.mp4" for a protocol
    options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
    with reading(path), path.open("rb") as file:
        head = file.read(12)
    try:
        container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except av.FFmpegError:
        if head[4:8] == b"ftyp" or head[:4] in (b"\x1aE\xdf\xa3", b"RIFF"):  # mp4 and mov; mkv and webm; avi
            raise UserError(f"{path} is cut off or damaged: copy or record it again") from None
        hint = "use mp4, mov, webm, GIF or a folder of pictures"
        raise UserError(f"{path} is not a video that can be read: {hint}") from None
    with container:
        yield container


def find_video(container: Any) -> Any:
    """The container's video stream, or None; the cover picture of a song is no video."""
    streams = [
        stream for stream in container.streams.video if not int(stream.disposition) & _ATTACHED_PICTURE
    ]  # fmt: skip
    best = container.streams.best("video")
    return best if best in streams else next(iter(streams), None)


@dataclass(frozen=True)
class _Look:
    """How a file's frames become pictures; found once, from the first frame."""

    width: int  # of the coded picture, pixels made square, before it is turned
    height: int
    transposed: bool  # then rows and columns change places,
    flip_x: bool  # and left and right,
    flip_y: bool  # and top and bottom
    alpha: bool
    options: dict[str, Any]  # of PyAV's `reformat`: the colours

    @property
    def size(self) -> tuple[int, int]:
        return (self.width, self.height) if self.transposed else (self.height, self.width)

    def picture(self, frame: Any, scaler: VideoReformatter) -> Picture:
        """(H, W, 3), uint8 RGB; a frame of another size than the first is scaled to it."""
        kind = "rgba" if self.alpha else "rgb24"
        size = self.width, self.height
        try:
            scaled = scaler.reformat(frame, *size, kind, interpolation=ACCURATE, **self.options)
        except (av.FFmpegError, ValueError):  # it claims colours that do not exist, for what damage may do
            frame.colorspace = frame.color_trc = frame.color_primaries = _UNSPECIFIED
            scaled = scaler.reformat(frame, *size, kind, interpolation=ACCURATE)
        pixels: NDArray[Any] = scaled.to_ndarray()
        if self.alpha:
            alpha = pixels[..., 3:].astype(np.uint16)
            pixels = ((pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
        pixels = pixels.transpose(1, 0, 2) if self.transposed else pixels
        pixels = pixels[:, ::-1] if self.flip_x else pixels
        return np.ascontiguousarray(pixels[::-1] if self.flip_y else pixels)


def _look(frame: Any, pixel_aspect: float) -> _Look:
    width, height = reduced(max(1, round(frame.width * pixel_aspect)), frame.height)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    turn = (False, False, False)
    if matrix is not None:
        # x' = a x + c y, y' = b x + d y: only quarter turns and mirrors are made by cameras
        a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
        turn = (False, a < 0, d < 0) if abs(a) >= abs(b) else (True, c < 0, b < 0)
    options: dict[str, Any] = {}
    if frame.color_trc in (_PQ, _HLG):
        options = {"dst_colorspace": _BT709, "dst_color_trc": _BT709, "dst_color_primaries": _BT709}
    elif frame.colorspace == _UNSPECIFIED:
        options = {"src_colorspace": _BT709 if frame.height >= _HD else _BT601}
    alpha = frame.format.has_palette or any(part.is_alpha for part in frame.format.components)
    return _Look(width, height, *turn, alpha, options)


@dataclass(frozen=True)
class _Scan:
    """What the timestamps of a file say, nothing decoded."""

    times: list[int]  # of the frames on show, rising, in ticks of the stream's clock
    last: int  # how long the last frame stays, in ticks; 0 = the file does not say
    counted: bool  # the timestamps do not tell which frame is which: frames have the times in their order
    cut: bool  # the file ends before it should


class VideoFile:
    """A video file as a `Source`: what `open_clip` reads through PyAV. UserErrors as there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._noted = False  # that the file is damaged: said once, however often it is read
        with opened(path) as container:
            stream = find_video(container)
            if stream is None:
                raise UserError(f"{path} has no video in it: choose a file with a picture")
            if stream.codec_context is None:
                raise UserError(f"{path} has a codec that cannot be decoded here: convert it to H.264 first")
            self._tick = float(stream.time_base)
            self.has_audio = bool(container.streams.audio)
            aspect = float(stream.sample_aspect_ratio or 1)
            stated = stream.average_rate
            scan = _scan(container, stream)
        if not scan.times:
            self._no_frames()
        self._counted, self._first = scan.counted, scan.times[0]
        times = [(tick - self._first) * self._tick for tick in scan.times]
        self.timing = timing_of(times, scan.last * self._tick, self._tick, stated)
        self._time_of = dict(zip(scan.times, self.timing.times, strict=True))
        self._smooth = self.timing.times[-1] == times[-1]  # the clock does not jump
        if not self._smooth:
            self._note("%s: its clock jumps by %.0f s, which are left out", times[-1] - self.timing.times[-1])
        _, frame = next(self._decoded(None), (0.0, None))
        if frame is None:
            self._no_frames()
        require_size(path, frame.width, frame.height)
        self._look = _look(frame, aspect)
        self.size = self._look.size
        note_if_reduced(path, round(frame.width * aspect), frame.height)
        if scan.cut:
            self._note("%s is cut off or damaged: its first %.2f s are used", self.timing.end)

    def frames(self, start: float) -> Iterator[tuple[float, Callable[[], Picture]]]:
        """(seconds since the first frame, what makes the picture), from `start` or a little before on."""
        scaler = VideoReformatter()  # one for all frames: making the tables for HDR takes it 3 s
        for time, frame in self._from(start):
            yield time, partial(self._look.picture, frame, scaler)

    def _from(self, start: float) -> Iterator[tuple[float, Any]]:
        for earlier in _AIMS:
            if start - earlier > _WORTH_SEEKING and not self._counted and self._smooth:
                frames = self._decoded(start - earlier)
                first = next(frames, None)
                if first is not None and first[0] <= start:
                    return chain([first], frames)
        return self._decoded(None)

    def _decoded(self, start: float | None) -> Iterator[tuple[float, Any]]:
        """Every frame that decodes, with its time in seconds."""
        times, step = self.timing.times, 1 / float(self.timing.rate)
        number, time, failed, doubtful = 0, 0.0, 0, 0
        with opened(self._path) as container:
            stream = find_video(container)
            decoder = _decoder(stream)
            if start is not None:
                try:
                    container.seek(self._first + int(start / self._tick), stream=stream)
                except av.FFmpegError:  # no jumps in this container
                    return
            for frame in frames_of(decoder, packets_of(container, stream)):
                if frame is None:
                    doubtful += 1 if number or start is None else 0  # behind a jump, frames lack their past
                    continue
                failed, doubtful = failed + doubtful, 0  # what fails at the very end is cut off
                if self._counted or frame.pts is None:
                    time = times[min(number, len(times) - 1)]
                elif frame.pts in self._time_of:
                    time = self._time_of[frame.pts]
                else:
                    time = (frame.pts - self._first) * self._tick
                number += 1
                yield time, frame
        if number and time + step / 2 < times[-1]:
            self._note("%s is cut off or damaged: its first %.2f s are used", time + step)
        elif failed:
            self._note(
                "%s is damaged: frames cannot be read (%d), and those before them stay on instead", failed
            )

    def _note(self, text: str, value: float) -> None:
        if not self._noted:
            self._noted = True
            log.warning(text, self._path, value)

    def _no_frames(self) -> NoReturn:
        raise UserError(f"{self._path} holds no frames that can be read: record, export or copy it again")


def _decoder(stream: Any) -> Any:
    """FFmpeg's own VP8 and VP9 decoders leave transparency out; libvpx reads it."""
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    if name and stream.metadata.get("alpha_mode") == "1":
        return av.CodecContext.create(name, "r")
    stream.thread_type = "AUTO"
    return stream.codec_context


def packets_of(container: Any, *streams: Any) -> Iterator[Any]:
    """The packets of these streams, or of all; None where the file is broken."""
    packets = container.demux(*streams)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            yield None
            return
        except IndexError:  # PyAV's, at the end of a file in which more streams turned up than at its start
            return
        if packet is None:
            return
        if packet.is_corrupt:  # only a part of it lies in the file
            yield None
        elif packet.size:  # the last ones of each stream are empty: PyAV's sign to empty the decoder
            yield packet


def frames_of(decoder: Any, packets: Iterable[Any]) -> Iterator[Any]:
    """The frames of these packets in the order of showing; None for what does not decode."""
    for packet in chain(packets, (_NO_MORE,)):
        if packet is None:
            yield None
            continue
        try:
            frames = decoder.decode(None if packet is _NO_MORE else packet)
        except av.FFmpegError:
            yield None
            continue
        for frame in frames:
            yield None if frame.is_corrupt else frame


def _scan(container: Any, stream: Any) -> _Scan:
    stamps: dict[int | None, int] = {}  # when a frame comes -> how long it stays
    num, broken, reached = 0, False, 0.0
    counted = container.format.name == "avi"  # it numbers frames as they are decoded, not as they are shown
    for packet in packets_of(container):
        broken = packet is None
        if packet is None:
            continue
        stamp, duration = packet.dts if packet.pts is None else packet.pts, packet.duration or 0
        if stamp is not None:
            reached = max(reached, float((stamp + duration) * packet.stream.time_base))
        if packet.stream.index == stream.index and not packet.is_discard:
            stamps[stamp] = duration
            counted |= packet.pts is None
            num += 1
    if None in stamps:  # a bare stream of pictures without a clock
        step = stamps[None] or round(1 / (stream.time_base * (stream.average_rate or DEFAULT_RATE)))
        return _Scan([step * index for index in range(num)], step, True, broken)
    times = sorted(stamp for stamp in stamps if stamp is not None)
    if times and container.format.name.startswith(_STATES_DURATION) and container.duration:
        # A last frame may lack its duration, and the header may be rounded.
        step = (times[-1] - times[0]) / len(times) * float(stream.time_base)
        broken = reached + (0.02 if broken else 0.03 + step) < container.duration / 1e6
    return _Scan(times, stamps[times[-1]] if times else 0, counted, broken)


_NO_MORE = object()
