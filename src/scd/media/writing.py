"""Clips out, frame by frame: H.264 that browsers play, with the sound of another file; GIF, WebP, folders."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import VideoReformatter
from PIL import Image

from scd.media.files import RATE_FILE, replacing, replacing_folder
from scd.media.picture import forget_settings, settings_beside
from scd.media.sound import sound_into
from scd.media.timing import exact_rate
from scd.media.video import ACCURATE
from scd.types import Picture, UserError

# World people at 512 x 384: 7 kB a frame, 35.1 dB; crf 15 has 9 kB and 35.7: the rest is 4:2:0's
_H264 = {"crf": "18", "preset": "medium"}
_SECONDS_PER_KEY_FRAME = 2  # players can only jump to key frames
_BT709, _LIMITED_RANGE = 1, 1  # ITU-T H.273; said in the file, because players guess differently
_CENTISECOND = Fraction(1, 100)  # the clock of a GIF
_FASTEST_GIF = 2  # centiseconds: browsers show frames of 1 for 10
_FASTEST_WEBP = Fraction(11, 1000)  # seconds: likewise, in milliseconds


def write_clip(
    path: str | Path,
    frames: Iterable[Picture],
    fps: float | Fraction,
    audio_from: str | Path | None = None,
    audio_start: float = 0.0,
    settings: Mapping[str, Any] | None = None,
    force: bool = False,
) -> int:
    """Write frames, each uint8 (H, W, 3) RGB, as they come; the number of frames comes back.

    The name's ending chooses. .mp4, .m4v and .mov are mp4 with H.264 (yuv420p, BT.709, index in front) at
    exactly `fps`; an odd side grows by one pixel that repeats the last one, which is kinder than losing one.
    .gif has one palette for all frames and delays in whole 1/100 s (over 50 frames per second some are left
    out; of WebP over 90), .webp is lossy at quality 90, joins equal frames, and forgets how long one lasts
    that stands still throughout. A name without ending is a folder of PNG:
    000000.png and on, and clip.json with the rate, which `open_clip` reads.

    The H.264 kinds take the sound of `audio_from` (a video or audio file; no sound in it is no error) from
    `audio_start` seconds after its first frame on, for as long as the frames last: AAC and MP3 as they are,
    cut between packets (about 1/45 s), anything else as AAC, because not every browser plays it in mp4.

    `settings` go beside it in NAME.json; `read_settings` gives them back. One frame is in memory at a time;
    a GIF also needs H x W x 3 bytes per frame on the disk while it is made. `path` appears when it is whole:
    an error or Ctrl-C leaves nothing. UserError as in `replacing`, for a missing `audio_from` and for another
    ending; ValueError for frames that are none, or differ in size.
    """
    path, rate = Path(path), exact_rate(fps)
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        endings = ", ".join(ending for ending in _WRITERS if ending)
        raise UserError(
            f"{path} has no ending that can be written: use {endings}, or none for a folder of PNG"
        )
    if audio_from is not None and not Path(audio_from).exists():
        raise UserError(f"{audio_from} does not exist: check the name of the file with the sound")
    text = None if settings is None else json.dumps(dict(settings), indent=1, ensure_ascii=False)
    whole = (replacing if path.suffix else replacing_folder)(path, force)
    beside = nullcontext(None) if text is None else replacing(settings_beside(path), force)
    with (
        whole as temporary,
        beside as sidecar,
    ):  # both names are free, or an error says so, before any frame is made
        try:
            num_frames = writer(temporary, _checked(frames), rate, audio_from, audio_start)
        except av.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            raise UserError(f"{path} cannot be written: {error.strerror}") from None
        if sidecar is None or text is None:
            forget_settings(path)
        else:
            sidecar.write_text(text, encoding="utf-8")
    return num_frames


def _checked(frames: Iterable[Picture]) -> Iterator[Picture]:
    shape = None
    for number, frame in enumerate(frames):
        shape = shape or frame.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape:
            raise ValueError(
                f"frame {number} should be uint8 {shape or '(H, W, 3)'}, not {frame.dtype} {frame.shape}"
            )
        yield np.ascontiguousarray(frame)
    if shape is None:
        raise ValueError("a clip has at least one frame")


def _write_h264(
    path: Path, frames: Iterator[Picture], rate: Fraction, audio_from: str | Path | None, audio_start: float
) -> int:
    number, first = 0, next(frames)
    with av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"}) as output:
        stream: Any = output.add_stream("libx264", rate, options=_H264)
        stream.height, stream.width = _even(first).shape[:2]
        stream.pix_fmt, stream.time_base = "yuv420p", 1 / rate
        context = stream.codec_context
        context.time_base, context.gop_size = 1 / rate, max(1, round(_SECONDS_PER_KEY_FRAME * rate))
        context.colorspace = context.color_trc = context.color_primaries = _BT709
        context.color_range = _LIMITED_RANGE
        scaler = VideoReformatter()
        with sound_into(output, audio_from, audio_start) as sound_until:
            for number, frame in enumerate(chain([first], frames), 1):
                picture = scaler.reformat(
                    av.VideoFrame.from_ndarray(_even(frame), "rgb24"),
                    format="yuv420p",
                    dst_colorspace=_BT709,
                    dst_color_range=_LIMITED_RANGE,
                    interpolation=ACCURATE,
                )
                picture.pts, picture.time_base = number - 1, 1 / rate
                output.mux(stream.encode(picture))
                sound_until(float(number / rate))
            output.mux(stream.encode(None))
    return number


def _even(frame: Picture) -> Picture:
    """4:2:0 shares one colour among 2 x 2 pixels, so both sides must be even."""
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return frame


def _write_webp(path: Path, frames: Iterator[Picture], rate: Fraction, *_: Any) -> int:
    number, first, shown = 0, next(frames), None
    with av.open(f"file:{path}", "w", format="webp", options={"loop": "0"}) as output:
        stream: Any = output.add_stream("libwebp_anim", rate, options={"quality": "90"})
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "bgra"
        for number, frame in enumerate(chain([first], frames), 1):
            if shown is not None and (number - 1 - shown) / rate < _FASTEST_WEBP:
                continue
            shown = number - 1
            picture = av.VideoFrame.from_ndarray(frame, "rgb24").reformat(format="bgra")
            picture.pts, picture.time_base = number - 1, 1 / rate
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return number


def _write_gif(path: Path, frames: Iterator[Picture], rate: Fraction, *_: Any) -> int:
    """Two passes, through a file on the same disk: the palette is known when the last frame is."""
    first = next(frames)
    height, width = first.shape[:2]
    number, stamps = 0, []
    palette_of = _Graph([("rgb24", width, height)], "palettegen")
    with TemporaryFile(dir=path.parent) as kept:
        for number, frame in enumerate(chain([first], frames), 1):
            stamp = round((number - 1) / rate / _CENTISECOND)
            if not stamps or stamp >= stamps[-1] + _FASTEST_GIF:
                stamps.append(stamp)
                kept.write(frame.tobytes())
                palette_of.push(_stamped(frame, stamp))
        palette = palette_of.end()[0]
        palette.pts, palette.time_base = 0, _CENTISECOND
        # Ordered dither stands still where the picture does; error diffusion flickers from frame to frame.
        painted = _Graph(
            [("rgb24", width, height), (palette.format.name, palette.width, palette.height)],
            "paletteuse", "dither=bayer:bayer_scale=4:diff_mode=rectangle",
        )  # fmt: skip
        painted.push(palette, 1)
        painted.push(None, 1)
        kept.seek(0)
        with av.open(f"file:{path}", "w", format="gif", options={"loop": "0"}) as output:
            stream: Any = output.add_stream("gif", min(rate, 1 / (_FASTEST_GIF * _CENTISECOND)))
            stream.height, stream.width, stream.pix_fmt = height, width, "pal8"
            stream.codec_context.time_base = _CENTISECOND
            for stamp in stamps:
                frame = np.frombuffer(kept.read(first.nbytes), np.uint8).reshape(first.shape)
                for drawn in painted.push(_stamped(frame, stamp)):
                    output.mux(stream.encode(drawn))
            for drawn in painted.end():
                output.mux(stream.encode(drawn))
            output.mux(stream.encode(None))
    return number


def _stamped(frame: Picture, stamp: int) -> av.VideoFrame:
    result = av.VideoFrame.from_ndarray(frame, "rgb24")
    result.pts, result.time_base = stamp, _CENTISECOND
    return result


class _Graph:
    """One FFmpeg filter with its inputs, (pixel format, width, height) each."""

    def __init__(self, inputs: list[tuple[str, int, int]], name: str, arguments: str = "") -> None:
        self._graph = graph = Graph()  # held: its parts do not hold it, and die with it
        step = graph.add(name, arguments)
        self._inputs = [
            graph.add_buffer(
                width=width, height=height, format=av.VideoFormat(kind, width, height), time_base=_CENTISECOND
            )
            for kind, width, height in inputs
        ]
        for index, source in enumerate(self._inputs):
            source.link_to(step, 0, index)
        self._sink = graph.add("buffersink")
        step.link_to(self._sink)
        graph.configure()

    def push(self, frame: av.VideoFrame | None, index: int = 0) -> list[Any]:
        """Hand a frame to an input (None = no more), get the frames that are ready."""
        self._inputs[index].push(frame)
        ready = []
        with suppress(av.BlockingIOError, av.EOFError):  # it wants more; it is done
            while True:
                ready.append(self._sink.pull())
        return ready

    def end(self) -> list[Any]:
        return self.push(None)


def _write_folder(path: Path, frames: Iterator[Picture], rate: Fraction, *_: Any) -> int:
    number = 0
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(path / f"{number - 1:06d}.png")
    (path / RATE_FILE).write_text(json.dumps({"fps": str(rate)}), encoding="utf-8")
    return number


_WRITERS = {
    ".mp4": _write_h264,
    ".m4v": _write_h264,
    ".mov": _write_h264,
    ".gif": _write_gif,
    ".webp": _write_webp,
    "": _write_folder,
}
