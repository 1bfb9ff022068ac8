"""Clips as people have them, written here by PyAV and Pillow: every frame comes in its time and colours, and
what is written plays with its rate, length and sound."""

import hashlib
import os
import resource
import subprocess
import sys
import weakref
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from scd.media import ClipReader, content_hash, file_hash, open_clip, read_image, read_settings, write_clip
from scd.media.timing import exact_rate, on_grid, timing_of
from scd.types import UserError

SIZE = (48, 64)  # height, width
QUADRANTS = np.zeros((*SIZE, 3), np.uint8)  # red, green over blue, white
QUADRANTS[:24, :32], QUADRANTS[:24, 32:] = (255, 0, 0), (0, 255, 0)
QUADRANTS[24:, :32], QUADRANTS[24:, 32:] = (0, 0, 255), (255, 255, 255)


def frame(k: int, size=SIZE) -> np.ndarray:
    """A flat picture whose colour tells its number: below 28."""
    return np.full((*size, 3), (9 * k, 250 - 9 * k, 100), np.uint8)


def number(picture: np.ndarray) -> int:
    red, green, blue = np.median(picture.reshape(-1, 3), 0)
    assert abs(red + green - 250) < 12, (red, green, blue)
    assert abs(blue - 100) < 12
    return round(red / 9)


def numbers(clip) -> list[int]:
    return [number(picture) for picture in clip]


def make(
    path: Path,
    pictures,
    rate=30,
    codec="libx264",
    pixels="yuv420p",
    times=None,
    tick=None,
    stream=None,
    **options,
) -> Path:
    """A video of RGB(A) pictures; `times` in ticks of `tick` seconds; `stream` sets attributes of it."""
    with av.open(
        str(path), "w", options={"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    ) as out:
        video = out.add_stream(codec, rate, options={k: str(v) for k, v in options.items()})
        first = pictures[0]
        video.height, video.width, video.pix_fmt = *first.shape[:2], pixels
        tick = tick or 1 / Fraction(rate)
        video.time_base = video.codec_context.time_base = tick
        for name, value in (stream or {}).items():
            setattr(video.codec_context, name, value)
        for k, picture in enumerate(pictures):
            shown = av.VideoFrame.from_ndarray(picture, "rgba" if picture.shape[2] == 4 else "rgb24")
            shown.pts, shown.time_base = (times[k] if times else k), tick
            out.mux(video.encode(shown))
        out.mux(video.encode(None))
    return path


def error_of(call, *arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- the rate and the grid ----


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (30, 30), (30.0, 30), (25.0, 25), (12.5, Fraction(25, 2)), (29.97, Fraction(30000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)), (23.976, Fraction(24000, 1001)), (1000.0, 1000),
        (59.94, Fraction(60000, 1001)), (119.88, Fraction(120000, 1001)),
        (Fraction(7, 3), Fraction(7, 3)), (23.98, Fraction(1199, 50)),
    ],
)  # fmt: skip
def test_exact_rate(fps, rate):
    assert exact_rate(fps) == rate


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_rate_is_above_0(fps):
    assert error_of(exact_rate, fps) == f"--fps {fps}: give a number of frames per second above 0"


def test_a_rate_is_one_that_cameras_have():
    assert error_of(exact_rate, 1e12) == "--fps 1e+12: give at most 1000 frames per second"
    assert exact_rate(Fraction(90_000)) == 90_000, "a clip's own clock is not asked for"


@pytest.mark.parametrize(
    "rate", [Fraction(30), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25), Fraction(60)]
)
@pytest.mark.parametrize("tick", [1e-3, 1e-2, 1 / 90000])
@pytest.mark.parametrize("num", [2, 3, 10, 100])
def test_rounded_clocks_keep_every_frame(rate, tick, num):
    """Milliseconds (mkv), centiseconds (GIF), 1/90000 s (ts): each frame once, with a stated rate or not."""
    if tick * rate > 0.5:
        return
    times = [round(k / rate / tick) * tick for k in range(num)]
    for stated in (rate, None):
        timing = timing_of(times, 0, tick, stated)
        assert stated is None or timing.rate == rate
        assert abs(timing.end * rate - num) < 1
        assert round(timing.end * timing.rate) == num
        assert list(on_grid(zip(times, range(num), strict=True), timing, 0.0, timing.rate, num)) == list(
            range(num)
        )
    assert num < 100 or tick > 1e-3 or abs(timing.rate / rate - 1) < 2e-4


def test_a_phones_trembling_clock_has_its_nominal_rate():
    rng = np.random.default_rng(0)
    times = [k / 29.97 + rng.uniform(-0.004, 0.004) for k in range(200)]
    times = [0.0, *(time - times[0] for k, time in enumerate(times) if k and k not in (50, 51, 120))]
    timing = timing_of(times, 1 / 30, 1 / 90000, Fraction(2952, 100))
    assert timing.rate == Fraction(30000, 1001)
    shown = list(on_grid(zip(times, range(197), strict=True), timing, 0.0, timing.rate, 200))
    assert [shown.count(k) for k in (0, 1, 48, 49, 50, 117, 118)] == [
        1,
        1,
        1,
        3,
        1,
        2,
        1,
    ]  # held over the gaps


def test_a_frame_stays_until_the_next_one():
    """A slide show: nothing shows before its time, whatever the rate."""
    times = [0.0, 0.5, 2.5, 2.6]
    timing = timing_of(times, 0.4)
    assert timing.rate == Fraction(15, 13)  # 3 steps in 2.6 s
    assert timing.end == pytest.approx(3.1)  # no shorter than the steps usually are
    shown = list(on_grid(zip(times, "abcd", strict=True), timing, 0.0, Fraction(10), 31))
    assert "".join(shown) == "aaaaa" + "b" * 20 + "c" + "d" * 5
    assert "".join(on_grid(zip(times, "abcd", strict=True), timing, 0.3, Fraction(5), 4)) == "abbb"


def test_uneven_frames_are_not_shown_before_their_turn():
    """A frame of 40 ms before one of 120: the nearest is taken, and never one of a later step."""
    steps = np.array([40, 120, 40, 200, 80] * 4) / 1000
    times = [0.0, *np.cumsum(steps)[:-1].tolist()]
    timing = timing_of(times, steps[-1])
    number = round(timing.end * timing.rate)
    shown = list(on_grid(zip(times, range(20), strict=True), timing, 0.0, timing.rate, number))
    points = np.arange(number) / float(timing.rate)
    nearest = np.abs(points[:, None] - times).argmin(1)
    on_show = np.searchsorted(times, points, side="right") - 1
    assert shown[0] == 0
    assert all(one in pair for one, *pair in zip(shown, nearest, on_show, strict=True))
    assert max(times[one] - at for one, at in zip(shown, points, strict=True)) < 0.5 / float(timing.rate)


@pytest.mark.parametrize("fps", [60, 120, 240])
def test_fast_webp_lasts_as_long(tmp_path, fps):
    """Readers take 10 ms and less for 100: such frames are left out."""
    frames = [np.full((16, 16, 3), 5 * i, np.uint8) for i in range(fps // 5)]
    write_clip(tmp_path / "a.webp", frames, fps)
    clip = open_clip(tmp_path / "a.webp")
    assert clip.num_frames / float(clip.rate) == pytest.approx(0.2, abs=0.02)


# ---- videos of all kinds ----

KINDS = {
    "a.mp4": ("libx264", "yuv420p", {}),
    "b.mov": ("libx264", "yuv444p", {}),
    "c.mkv": ("libx264", "yuv422p10le", {}),
    "d.webm": ("libvpx-vp9", "yuv420p", {"cpu-used": 8, "deadline": "realtime"}),
    "e.avi": ("libx264", "yuv420p", {}),  # B-frames in AVI: its timestamps are in the order of decoding
    "f.avi": ("mpeg4", "yuv420p", {"b": 2_000_000}),
    "g.ts": ("libx264", "yuv420p", {}),
    "h.flv": ("flv1", "yuv420p", {"b": 2_000_000}),
    "i.mov": ("prores_ks", "yuv422p10le", {}),
    "j.mp4": ("libx265", "yuv420p10le", {"x265-params": "log-level=none"}),
    "k.mpg": ("mpeg2video", "yuv420p", {"b": 4_000_000}),
    "l.mkv": ("mjpeg", "yuvj420p", {"qscale": 2}),  # full range
    "m.h264": ("libx264", "yuv420p", {}),  # no clock at all
    "n.webm": ("libvpx", "yuv420p", {"b": 2_000_000}),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_video(tmp_path, name, caplog, capfd):
    codec, pixels, options = KINDS[name]
    path = make(tmp_path / name, [frame(k) for k in range(20)], 25, codec, pixels, **options)
    clip = open_clip(path)
    assert clip.rate == 25
    assert (clip.size, clip.num_frames, clip.duration, clip.start) == (SIZE, 20, 0.8, 0.0)
    assert not clip.has_audio
    first = list(clip)
    assert {(picture.shape, picture.dtype.str, picture.flags.writeable) for picture in first} == {
        ((*SIZE, 3), "|u1", True)
    }
    assert numbers(first) == list(range(20))
    assert numbers(clip) == list(range(20))  # and again
    assert not caplog.records
    assert "".join(capfd.readouterr()) == ""


def test_cinema_rates_are_exact(tmp_path):
    for rate in (Fraction(24000, 1001), Fraction(30000, 1001)):
        for suffix in ("mp4", "mkv", "ts"):
            clip = open_clip(make(tmp_path / f"a.{suffix}", [frame(k) for k in range(12)], rate))
            assert clip.rate == rate
            assert clip.fps == pytest.approx(float(rate))
            assert numbers(clip) == list(range(12))


def test_another_rate_shows_what_was_on_show(tmp_path):
    path = make(tmp_path / "a.mp4", [frame(k) for k in range(24)], 24)
    assert numbers(open_clip(path, fps=8)) == [0, 3, 6, 9, 12, 15, 18, 21]
    assert numbers(open_clip(path, fps=48)) == [k // 2 for k in range(48)]
    assert numbers(open_clip(path, fps=24, max_frames=5)) == [0, 1, 2, 3, 4]
    clip = open_clip(path, fps=29.97)
    assert (clip.rate, clip.num_frames) == (Fraction(30000, 1001), 30)
    assert abs(clip.duration - 1) < 1 / 30
    doubled = list(open_clip(path, fps=48, max_frames=2))
    doubled[0][:] = 0
    assert number(doubled[1]) == 0  # a frame that is shown twice is two arrays


def test_parts_of_a_clip(tmp_path):
    path = make(tmp_path / "a.mp4", [frame(k) for k in range(24)], 12)
    assert numbers(open_clip(path, start=0.5)) == list(range(6, 24))
    assert numbers(open_clip(path, start=0.5, end=1.0)) == list(range(6, 12))
    assert numbers(open_clip(path, end=99)) == list(range(24))
    clip = open_clip(path, start=1.0, end=1.5, fps=4)
    assert (numbers(clip), clip.start, clip.duration) == ([12, 15], 1.0, 0.5)
    assert numbers(open_clip(path, start=1.99)) == [23]
    assert error_of(open_clip, path, start=2.0) == f"--start 2: choose 0 to 2.00 s, the length of {path}"
    assert error_of(open_clip, path, start=-1.0).startswith("--start -1: choose 0 to 2.00 s")
    assert error_of(open_clip, path, start=1, end=0.5) == "--end 0.5: choose more than --start, which is 1 s"
    assert error_of(open_clip, path, max_frames=0) == "--max-frames 0: choose 1 or more"
    assert "--fps 0" in error_of(open_clip, path, fps=0)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_a_late_start_jumps_there(tmp_path, suffix, caplog):
    """Ten seconds with a key frame every second: frames are right, and the first ones are not decoded."""
    path = make(tmp_path / f"a.{suffix}", [frame(k // 4) for k in range(100)], 10, g=10)
    clip = open_clip(path, start=7.6, end=9.2)
    assert numbers(clip) == [k // 4 for k in range(76, 92)]
    begin = next(clip.source.frames(7.6))[0]
    assert begin == 0 if suffix == "avi" else 6 <= begin <= 7.61
    assert numbers(open_clip(path, start=9.95)) == [24]
    assert not caplog.records


def test_a_late_start_where_no_jump_is_possible(tmp_path):
    path = make(tmp_path / "a.ivf", [frame(k // 4) for k in range(100)], 10, "libvpx", b=2_000_000)
    assert numbers(open_clip(path, start=5, end=6)) == [k // 4 for k in range(50, 60)]


def test_a_late_start_without_key_frames(tmp_path):
    path = make(tmp_path / "a.ts", [frame(k // 4) for k in range(100)], 10, g=1000, sc_threshold=0)
    assert numbers(open_clip(path, start=5, end=6)) == [k // 4 for k in range(50, 60)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_variable_frame_rate(tmp_path, suffix):
    """A screen recording: quick, then 2 s of nothing, then quick. The grid keeps times and length."""
    times = [0, 40, 80, 130, 170, 2170, 2220, 2260, 2300]  # milliseconds
    path = make(
        tmp_path / f"a.{suffix}",
        [frame(3 * k) for k in range(9)],
        25,
        times=times,
        tick=Fraction(1, 1000),
        bf=0,
    )
    clip = open_clip(path, fps=25)
    assert abs(clip.duration - 2.34) < 1 / 25
    shown = [n // 3 for n in numbers(clip)]
    for k, n in enumerate(shown):
        now = k * 40 + 20  # the middle of the slot
        assert n == max(i for i, time in enumerate(times) if time <= now)
    average = open_clip(path)
    assert abs(average.fps - 8 / 2.3) < 0.05
    assert abs(average.duration - 2.34) < 1 / average.fps


def test_dropped_frames_are_held(tmp_path):
    times = [k for k in range(24) if k not in (10, 11, 17)]
    path = make(tmp_path / "a.mp4", [frame(k) for k in times], 30, times=times)
    clip = open_clip(path)
    assert (clip.rate, clip.num_frames) == (30, 24)
    assert numbers(clip) == [max(t for t in times if t <= k) for k in range(24)]


def test_a_clock_that_jumps(tmp_path, caplog):
    """Joined recordings: a frame an hour late is the next frame, not 86,400 copies of the one before."""
    times = [k if k < 12 else k + 24 * 3600 for k in range(24)]
    path = make(tmp_path / "a.mkv", [frame(k) for k in range(24)], 24, times=times)
    clip = open_clip(path)
    assert (clip.rate, clip.num_frames, numbers(clip)) == (24, 24, list(range(24)))
    assert numbers(open_clip(path, start=0.75)) == list(range(18, 24))
    notes = {record.getMessage() for record in caplog.records}
    assert notes == {f"{path}: its clock jumps by 3600 s, which are left out"}
    slides = make(
        tmp_path / "b.mkv", [frame(k) for k in range(3)], 24, times=[0, 2880, 5760]
    )  # 2 minutes each
    assert (open_clip(slides).rate, numbers(open_clip(slides, fps=Fraction(1, 60)))) == (
        Fraction(1, 120),
        [0, 0, 1, 1, 2, 2],
    )


def _turn(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write a display matrix into an mp4's track header, as a phone does: x' = a x + c y, y' = b x + d y."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes before the matrix
    assert data[at : at + 4] == (1 << 16).to_bytes(4, "big")
    for i, value in enumerate((a, b, 0, c, d)):
        data[at + 4 * i : at + 4 * i + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), QUADRANTS),
        ((0, 1, -1, 0), np.rot90(QUADRANTS, -1)),  # a portrait clip of a phone: a quarter turn clockwise
        ((-1, 0, 0, -1), np.rot90(QUADRANTS, 2)),
        ((0, -1, 1, 0), np.rot90(QUADRANTS, 1)),
        ((-1, 0, 0, 1), QUADRANTS[:, ::-1]),  # a selfie camera's mirror
        ((1, 0, 0, -1), QUADRANTS[::-1]),
        ((0, 1, 1, 0), QUADRANTS.transpose(1, 0, 2)),
        ((0, -1, -1, 0), np.rot90(QUADRANTS, 2).transpose(1, 0, 2)),
    ],
)
def test_rotation_is_applied(tmp_path, matrix, expected):
    path = make(tmp_path / "a.mp4", [QUADRANTS] * 3, pixels="yuv444p", qp=1)
    _turn(path, *matrix)
    clip = open_clip(path)
    assert clip.size == expected.shape[:2]
    for picture in clip:
        assert np.abs(picture.astype(int) - expected).max() <= 6


def test_rotation_agrees_with_pyav(tmp_path):
    path = make(tmp_path / "a.mp4", [QUADRANTS] * 2)
    _turn(path, 0, 1, -1, 0)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).rotation == -90  # degrees counterclockwise


def test_odd_sizes_are_exact(tmp_path):
    pictures = list(np.random.default_rng(0).integers(0, 256, (3, 33, 47, 3), dtype=np.uint8))
    clip = open_clip(make(tmp_path / "a.mkv", pictures, codec="ffv1", pixels="bgr0"))
    assert clip.size == (33, 47)
    np.testing.assert_array_equal(list(clip), pictures)


def test_pixels_become_square(tmp_path):
    path = make(tmp_path / "a.mkv", [QUADRANTS] * 2, stream={"sample_aspect_ratio": Fraction(3, 2)})
    clip = open_clip(path)
    assert clip.size == (48, 96)
    picture = next(iter(clip))
    assert picture.shape == (48, 96, 3)
    assert picture[4, [4, 40, 56, 90]].argmax(1).tolist() == [0, 0, 1, 1]  # red to 48, then green


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [
        ("a.mov", "qtrle", "argb", {}),
        ("a.mov", "prores_ks", "yuva444p10le", {"profile": 4}),
        ("a.webm", "libvpx-vp9", "yuva420p", {"cpu-used": 8, "crf": 10}),
        ("a.webm", "libvpx", "yuva420p", {"b": 2_000_000, "auto-alt-ref": 0}),
    ],
)
def test_transparency_lies_on_white(tmp_path, name, codec, pixels, options):
    rgba = np.zeros((*SIZE, 4), np.uint8)
    rgba[:, :16] = (200, 0, 0, 255)
    rgba[:, 16:32] = (200, 0, 0, 51)  # one fifth
    clip = open_clip(make(tmp_path / name, [rgba] * 3, codec=codec, pixels=pixels, **options))
    pictures = list(clip)
    assert len(pictures) == 3
    for picture in pictures:
        expected = [[200, 0, 0], [244, 204, 204], [255, 255, 255]]
        assert np.abs(picture[24, [6, 24, 50]].astype(int) - expected).max() <= 8


@pytest.mark.parametrize(("height", "matrix"), [(48, "601"), (720, "709")])
def test_colours_of_untagged_videos(tmp_path, height, matrix):
    """Players take untagged high definition for BT.709; red shifts by some 20 levels if that is mistaken."""
    colour = np.full((height, 64, 3), (220, 60, 40), np.uint8)
    standard = {"601": 5, "709": 1}[matrix]
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", 25, options={"qp": "5"})
        video.height, video.width, video.pix_fmt = height, 64, "yuv420p"
        shown = av.VideoFrame.from_ndarray(colour, "rgb24").reformat(
            format="yuv420p", dst_colorspace=standard
        )
        shown.colorspace = 2  # unspecified
        shown.pts = 0
        out.mux(video.encode(shown))
        out.mux(video.encode(None))
    assert np.abs(next(iter(open_clip(path))).astype(int) - colour).max() <= 4


def test_hdr_becomes_what_a_screen_shows(tmp_path):
    """Hybrid log-gamma: its reference white (75 % of the signal) is white, not light grey."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", 25, options={"qp": "5"})
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p10le"
        context = video.codec_context
        context.colorspace, context.color_trc, context.color_primaries, context.color_range = 9, 18, 9, 1
        shown = av.VideoFrame(64, 48, "yuv420p10le")
        for plane, value in zip(shown.planes, (64 + round(0.75 * 876), 512, 512), strict=True):
            plane.update(np.full(plane.buffer_size // 2, value, "<u2").tobytes())
        shown.pts = 0
        out.mux(video.encode(shown))
        out.mux(video.encode(None))
    converts = int(av.__version__.partition(".")[0]) >= 18  # PyAV 17, for Python 3.10, leaves HDR pale
    picture = next(iter(open_clip(path)))
    assert picture.min() >= (250 if converts else 185)


def test_colours_that_do_not_exist(tmp_path):
    """A damaged frame may claim any number of a colour standard; FFmpeg then refuses to convert it."""
    path = make(tmp_path / "a.mov", [frame(k) for k in range(5)], 25, "prores_ks", "yuv422p10le")
    data = bytearray(path.read_bytes())
    at = data.index(b"icpf") + 4 + 16  # the frame header's colour matrix, after primaries and transfer
    assert data[at - 2 : at + 1] in (b"\x02\x02\x02", b"\x02\x02\x06")
    data[at] = 79
    path.write_bytes(data)
    assert numbers(open_clip(path)) == [0, 1, 2, 3, 4]


def test_frames_that_change_their_size_are_scaled(tmp_path):
    """Video calls change their resolution on the way; the first frame's stays."""
    for name, size, first in (("a.h264", SIZE, 0), ("b.h264", (96, 128), 5)):
        make(tmp_path / name, [frame(first + k, size) for k in range(5)])
    both = tmp_path / "c.h264"
    both.write_bytes((tmp_path / "a.h264").read_bytes() + (tmp_path / "b.h264").read_bytes())
    pictures = list(open_clip(both))
    assert {picture.shape for picture in pictures} == {(*SIZE, 3)}
    assert numbers(pictures) == list(range(10))


def test_the_cover_of_a_song_is_no_video(tmp_path):
    song = tmp_path / "a.m4a"
    _sound(song, "aac", seconds=1)
    assert error_of(open_clip, song) == f"{song} has no video in it: choose a file with a picture"
    covered = _sound(tmp_path / "b.mp3", "libmp3lame", seconds=1)
    cover = BytesIO()
    Image.fromarray(QUADRANTS).save(cover, "JPEG")
    picture = (
        b"\0image/jpeg\0\x03\0" + cover.getvalue()
    )  # ID3v2.3: encoding, type, front cover, no description
    tag = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
    size = bytes(len(tag) >> shift & 127 for shift in (21, 14, 7, 0))
    data = covered.read_bytes()
    covered.write_bytes(b"ID3\x03\0\0" + size + tag + data[10 + int.from_bytes(data[6:10], "big") :])
    with av.open(str(covered)) as container:
        assert len(container.streams.video) == 1
    assert error_of(open_clip, covered) == f"{covered} has no video in it: choose a file with a picture"
    clip = tmp_path / "b.mp4"
    write_clip(clip, [frame(k) for k in range(10)], 10, audio_from=song)
    assert open_clip(clip).has_audio


# ---- damage ----


def _noisy() -> list[np.ndarray]:
    """24 frames with noise in the lowest quarter, so that every frame has about as many bytes."""
    pictures = [frame(k) for k in range(24)]
    for k, picture in enumerate(pictures):
        picture[36:] = np.random.default_rng(k).integers(0, 256, (12, SIZE[1], 3), dtype=np.uint8)
    return pictures


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "flv"])
@pytest.mark.parametrize("part", [0.4, 0.8, 0.93])
def test_a_cut_off_file_keeps_what_decodes(tmp_path, suffix, part, caplog):
    codec, options = ("flv1", {"b": 4_000_000}) if suffix == "flv" else ("libx264", {"qp": 10})
    path = make(tmp_path / f"a.{suffix}", _noisy(), 24, codec, g=8, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    clip = open_clip(path)
    shown = numbers(clip)
    assert shown == list(range(len(shown)))
    assert 0.2 * 24 < len(shown) <= 24
    assert len(shown) < 24 or part > 0.9
    assert numbers(clip) == shown
    notes = [record.getMessage() for record in caplog.records]
    assert notes == [f"{path} is cut off or damaged: its first {len(shown) / 24:.2f} s are used"]


def test_damage_in_the_middle_is_bridged(tmp_path, caplog):
    path = make(tmp_path / "a.mp4", _noisy(), 24, g=1)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][10]
        start, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[start + 4 : start + size] = bytes(size - 4)
    path.write_bytes(data)
    shown = numbers(open_clip(path))
    assert shown == [9 if k == 10 else k for k in range(24)]
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} is damaged: frames cannot be read (1), and those before them stay on instead"
    ]


def test_reading_errors_name_the_file_and_the_way_out(tmp_path):
    missing = tmp_path / "missing.mp4"
    assert error_of(open_clip, missing) == f"{missing} does not exist: check the name"
    text = tmp_path / "text.mp4"
    text.write_text("This is no video.\n" * 50)
    hint = "is not a video that can be read: use mp4, mov, webm, GIF or a folder of pictures"
    assert error_of(open_clip, text) == f"{text} {hint}"
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert error_of(open_clip, empty) == f"{empty} is empty: save or copy it again"
    headless = tmp_path / "headless.mp4"
    with av.open(str(headless), "w") as out:  # the index is at the end
        video = out.add_stream("libx264", 24)
        video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
        for k in range(5):
            out.mux(video.encode(av.VideoFrame.from_ndarray(frame(k), "rgb24")))
        out.mux(video.encode(None))
    headless.write_bytes(headless.read_bytes()[:-400])
    assert error_of(open_clip, headless) == f"{headless} is cut off or damaged: copy or record it again"
    tiny = make(tmp_path / "tiny.mkv", [np.zeros((8, 20, 3), np.uint8)], codec="ffv1", pixels="bgr0")
    assert error_of(open_clip, tiny) == (
        f"{tiny} is too small (20x8 pixels): the shorter side needs at least 16 pixels"
    )


def test_zero_frames(tmp_path):
    for name in ("a.mp4", "a.mkv"):
        path = tmp_path / name
        with av.open(str(path), "w") as out:
            video = out.add_stream("mpeg4", 24)
            video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
            out.start_encoding()
        message = error_of(open_clip, path)
        assert message.startswith(str(path))
        assert message.endswith(
            ("holds no frames that can be read: record, export or copy it again",
             "has no video in it: choose a file with a picture",
             "is cut off or damaged: copy or record it again")
        )  # fmt: skip
    path = make(tmp_path / "b.mp4", [frame(k) for k in range(5)])
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat")
    data[at + 4 :] = bytes(len(data) - at - 4)
    path.write_bytes(data)
    assert error_of(open_clip, path) == (
        f"{path} holds no frames that can be read: record, export or copy it again"
    )


def test_a_codec_that_is_not_there(tmp_path):
    path = make(tmp_path / "a.mov", [frame(k) for k in range(3)], codec="qtrle", pixels="rgb24")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"rle ", b"zzzz"))
    assert error_of(open_clip, path) == (
        f"{path} has a codec that cannot be decoded here: convert it to H.264 first"
    )


def test_play_lists_reach_no_other_file(tmp_path):
    make(tmp_path / "b.ts", [frame(k) for k in range(5)])
    for name, text in {
        "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nb.ts\n#EXT-X-ENDLIST\n",
        "a.ffconcat": "ffconcat version 1.0\nfile b.ts\n",
        "a.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/b.ts\n#EXT-X-ENDLIST\n",
    }.items():
        path = tmp_path / name
        path.write_text(text)
        assert "is not a video that can be read" in error_of(open_clip, path)


@pytest.mark.parametrize("name", ["a:b.mp4", "100%03d.mp4", 'a b\'s "ü☃".mp4', "-x.mp4"])
def test_odd_names(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_clip(name, [frame(k) for k in range(4)], 24) == 4
    assert numbers(open_clip(name)) == [0, 1, 2, 3]
    assert os.listdir() == [name]


# ---- animations and folders ----


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations(tmp_path, suffix):
    """Uneven times, a transparent frame: what a browser shows on a white page."""
    frames = [Image.fromarray(frame(k)) for k in (0, 5, 10, 20)]
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 100, 400, 100], **options)
    clip = open_clip(path, fps=10)
    assert (clip.size, clip.num_frames, clip.has_audio) == (SIZE, 7, False)
    assert numbers(clip) == [0, 5, 10, 10, 10, 10, 20]
    assert numbers(clip) == [0, 5, 10, 10, 10, 10, 20]
    assert numbers(open_clip(path, fps=10, start=0.5)) == [10, 20]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_transparent_animations_lie_on_white(tmp_path, suffix):
    frames = []
    for k in range(3):
        rgba = np.zeros((*SIZE, 4), np.uint8)
        rgba[:, 16 * k : 16 * k + 16] = (0, 0, 200, 255)
        rgba[40:, 60:] = (0, 0, 0, 128 + k)
        frames.append(Image.fromarray(rgba))
    options = {"disposal": 1 if suffix == "png" else 2} if suffix != "webp" else {"lossless": True}
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, **options)
    clip = open_clip(path)
    assert (clip.rate, clip.num_frames) == (25, 3)
    for k, picture in enumerate(clip):
        assert picture[8, 16 * k + 8].tolist() == [0, 0, 200]
        assert picture[8, 56].tolist() == [255, 255, 255]
        assert picture[8, 8].tolist() == ([0, 0, 200] if k == 0 else [255, 255, 255])


def test_frames_of_no_duration_are_shown_as_browsers_do(tmp_path):
    frames = [Image.fromarray(frame(k)) for k in range(5)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=0)
    clip = open_clip(tmp_path / "a.gif")
    assert (clip.rate, clip.num_frames, clip.duration) == (10, 5, 0.5)


def test_the_still_picture_of_an_animated_png_is_left_out(tmp_path):
    frames = [Image.fromarray(frame(k)) for k in (25, 0, 5)]
    frames[0].save(
        tmp_path / "a.png", save_all=True, append_images=frames[1:], default_image=True, duration=100
    )
    assert numbers(open_clip(tmp_path / "a.png")) == [0, 5]


def test_a_picture_is_a_clip_of_one_frame(tmp_path):
    for name in ("a.png", "a.jpg", "a.webp", "a.gif"):
        Image.fromarray(frame(7)).save(tmp_path / name)
        clip = open_clip(tmp_path / name)
        assert (clip.num_frames, numbers(clip)) == (1, [7])


def test_a_cut_off_gif_keeps_its_first_frames(tmp_path, caplog):
    noise = np.random.default_rng(0).integers(0, 256, (6, *SIZE, 3), dtype=np.uint8)
    frames = [Image.fromarray(one) for one in noise]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    clip = open_clip(path)
    assert clip.num_frames == len(list(clip)) == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} is cut off or damaged: its first 3 frames are used"
    ]
    path.write_bytes(data[:900])
    assert error_of(open_clip, path).startswith(f"{path} is damaged or cut off (")


def test_folders_of_frames(tmp_path, caplog):
    folder = tmp_path / "frames"
    folder.mkdir()
    for k in (0, 1, 2, 9, 10, 11):
        Image.fromarray(frame(k)).save(folder / f"frame{k}.png")
    (folder / "._frame1.png").write_bytes(b"a Mac was here")
    (folder / "notes.txt").write_text("no picture")
    clip = open_clip(folder)
    assert (clip.rate, clip.num_frames, clip.size, clip.has_audio) == (30, 6, SIZE, False)
    assert numbers(clip) == [0, 1, 2, 9, 10, 11]
    clip = open_clip(folder, fps=12)  # how fast they are, not how many there should be
    assert (clip.rate, clip.num_frames, clip.duration) == (12, 6, 0.5)
    assert numbers(open_clip(folder, start=0.1, end=0.17)) == [9, 10]
    Image.fromarray(frame(12, (96, 128))).save(folder / "frame12.jpg")
    last = list(open_clip(folder))[-1]
    assert last.shape == (*SIZE, 3)
    assert number(last) == 12
    (folder / "frame2.png").write_bytes((folder / "frame2.png").read_bytes()[:60])
    assert error_of(list, open_clip(folder)).startswith(f"{folder / 'frame2.png'} is damaged or cut off")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert error_of(open_clip, empty) == (
        f"{empty} holds no pictures: put the frames there, named in their order (0001.png)"
    )


def test_content_hash(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc" * 1_000_000)
    same = tmp_path / "renamed.mp4"
    same.write_bytes(path.read_bytes())
    assert content_hash(path) == content_hash(same)
    assert content_hash(path) == file_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    folders = []
    for names in (("1.png", "2.png", "10.png"), ("a.png", "b.png", "c.png"), ("3.png", "2.png", "1.png")):
        folder = tmp_path / "-".join(names)
        folder.mkdir()
        for k, name in enumerate(names):
            Image.fromarray(frame(k)).save(folder / name)
        (folder / "notes.txt").write_text(names[0])
        folders.append(content_hash(folder))
    assert folders[0] == folders[1] != folders[2]
    assert "does not exist" in error_of(content_hash, tmp_path / "missing")
    (tmp_path / "none").mkdir()
    assert "holds no pictures" in error_of(content_hash, tmp_path / "none")


# ---- writing ----


def _boxes(path: Path) -> list[bytes]:
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        found.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4], "big")
    return found


@pytest.mark.parametrize("fps", [24, 25.0, 29.97, Fraction(30000, 1001), 12.5, 59.94, Fraction(7, 3)])
def test_mp4_that_browsers_play(tmp_path, fps, capfd):
    path = tmp_path / "new" / "a.mp4"
    assert write_clip(path, (frame(k) for k in range(20)), fps) == 20
    rate = exact_rate(fps)
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert video.average_rate == rate
        assert video.frames == 20
        assert video.duration * video.time_base == 20 / rate
        assert video.start_time == 0
        context = video.codec_context
        assert (context.colorspace, context.color_trc, context.color_primaries, context.color_range) == (
            1,
            1,
            1,
            1,
        )
        assert not container.streams.audio
    assert _boxes(path).index(b"moov") < _boxes(path).index(b"mdat")  # plays before it is loaded
    clip = open_clip(path)
    assert (clip.rate, clip.num_frames, numbers(clip)) == (rate, 20, list(range(20)))
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]
    assert "".join(capfd.readouterr()) == ""


def test_colours_survive_mp4(tmp_path):
    colours = [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
        (0, 0, 0),
        (200, 120, 40),
        (12, 180, 220),
    ]
    write_clip(tmp_path / "a.mp4", [np.full((*SIZE, 3), colour, np.uint8) for colour in colours], 10)
    for picture, colour in zip(open_clip(tmp_path / "a.mp4"), colours, strict=True):
        assert np.abs(picture.astype(int) - colour).max() <= 5


@pytest.mark.parametrize("size", [(47, 64), (48, 63), (49, 65), (1, 1)])
def test_odd_sides_grow_by_one_pixel(tmp_path, size):
    rows, columns = np.mgrid[: size[0], : size[1]]
    picture = np.stack([rows * 4, columns * 3, rows + columns], -1).astype(np.uint8)
    write_clip(tmp_path / "a.mp4", [picture] * 3, 24)
    with av.open(str(tmp_path / "a.mp4")) as container:
        shown = next(container.decode(video=0)).to_ndarray(format="rgb24")
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert shown.shape == (*even, 3)
    expected = np.pad(picture, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
    assert np.abs(shown.astype(int) - expected).mean() < 4


def test_frames_are_taken_one_by_one(tmp_path):
    """200 frames, never more than a handful alive: a clip of any length fits into memory."""
    alive, most = set(), 0

    def frames():
        nonlocal most
        for k in range(200):
            picture = frame(k // 10)
            alive.add(k)
            weakref.finalize(picture, alive.discard, k)
            most = max(most, len(alive))
            yield picture
            del picture

    for name in ("a.mp4", "a.gif", "a.webp", "frames"):
        assert write_clip(tmp_path / name, frames(), 30) == 200
        assert most <= 4, name
    for name in ("a.mp4", "a.gif", "a.webp", "frames"):
        clip = open_clip(tmp_path / name)
        assert isinstance(clip, ClipReader)
        assert abs(clip.duration - 200 / 30) < 1 / 30
        assert numbers(open_clip(tmp_path / name, fps=30)) == [k // 10 for k in range(200)]


@pytest.mark.parametrize(("fps", "delays"), [(25, {40}), (30, {30, 40}), (50, {20}), (100, {20})])
def test_gif(tmp_path, fps, delays):
    path = tmp_path / "a.gif"
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    smooth = np.stack([rows * 5, columns * 3, 255 - columns * 3], -1).astype(np.uint8)
    pictures = [np.roll(smooth, 2 * k, 1) for k in range(20)]
    assert write_clip(path, pictures, fps) == 20
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        assert image.n_frames == (10 if fps == 100 else 20)
        found = []
        for k in range(image.n_frames):
            image.seek(k)
            found.append(image.info["duration"])
            source = pictures[2 * k if fps == 100 else k].astype(int)
            assert np.abs(np.asarray(image.convert("RGB")).astype(int) - source).mean() < 6
    assert set(found) == delays
    assert abs(sum(found) / 1000 - 20 / fps) <= 1 / fps
    clip = open_clip(path)
    assert clip.rate == min(fps, 50)


def test_gifs_of_one_frame_and_of_few_colours(tmp_path):
    write_clip(tmp_path / "a.gif", [QUADRANTS], 10)
    np.testing.assert_array_equal(next(iter(open_clip(tmp_path / "a.gif"))), QUADRANTS)


def test_webp(tmp_path):
    assert write_clip(tmp_path / "a.webp", [frame(k) for k in range(12)], 29.97) == 12
    with Image.open(tmp_path / "a.webp") as image:
        assert (image.n_frames, image.info["loop"]) == (12, 0)
    clip = open_clip(tmp_path / "a.webp")
    assert clip.rate == Fraction(30000, 1001)
    assert numbers(clip) == list(range(12))


def test_folder_of_frames_comes_back_exactly(tmp_path):
    pictures = list(np.random.default_rng(0).integers(0, 256, (5, 33, 47, 3), dtype=np.uint8))
    assert write_clip(tmp_path / "out", pictures, 23.976) == 5
    assert sorted(os.listdir(tmp_path / "out")) == ["000000.png", "000001.png", "000002.png", "000003.png",
                                                    "000004.png", "clip.json"]  # fmt: skip
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "000003.png"), pictures[3])
    clip = open_clip(tmp_path / "out")
    assert clip.rate == Fraction(24000, 1001)
    np.testing.assert_array_equal(list(clip), pictures)
    assert len(list(open_clip(tmp_path / "out", fps=48))) == 10  # the rate is known, so this resamples
    (tmp_path / "out" / "clip.json").write_text("[]")
    assert open_clip(tmp_path / "out").rate == 30


def test_settings_travel_beside(tmp_path):
    settings = {"seed": 3, "prompt": "größer ☃"}
    for name in ("a.mp4", "a.gif", "frames"):
        write_clip(tmp_path / name, [frame(0)], 10, settings=settings)
        assert read_settings(tmp_path / name) == settings
    (tmp_path / "b.mp4.json").write_text("mine")

    def frames():
        raise AssertionError("nothing is computed when the result could not be written")
        yield

    assert "b.mp4.json exists already" in error_of(
        write_clip, tmp_path / "b.mp4", frames(), 10, settings=settings
    )
    assert "a.mp4 exists already" in error_of(write_clip, tmp_path / "a.mp4", frames(), 10)
    assert not (tmp_path / "b.mp4").exists()


# ---- sound ----


def _sound(path: Path, codec: str, seconds: int = 4, rate: int = 48_000, video: str | None = None) -> Path:
    """A beep of 0.1 s at every whole second, with or without pictures (24 a second, number = half second)."""
    times = np.arange(rate * seconds) / rate
    wave = (np.sin(2 * np.pi * 880 * times) * 0.5 * (times % 1 < 0.1)).astype(np.float32)
    with av.open(str(path), "w") as out:
        if video:
            pictures = out.add_stream(video, 24)
            pictures.height, pictures.width, pictures.pix_fmt = *SIZE, "yuv420p"
        sound = out.add_stream(codec, rate, layout="stereo")
        if video:
            for k in range(24 * seconds):
                out.mux(pictures.encode(av.VideoFrame.from_ndarray(frame(k // 12), "rgb24")))
            out.mux(pictures.encode(None))
        for start in range(0, len(wave), 1024):
            samples = np.ascontiguousarray(np.stack([wave[start : start + 1024]] * 2))
            shown = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
            shown.sample_rate, shown.pts, shown.time_base = rate, start, Fraction(1, rate)
            out.mux(sound.encode(shown))
        out.mux(sound.encode(None))
    return path


def _heard(path: Path) -> tuple[str, float, list[float]]:
    """The codec, where the sound ends (seconds), when beeps begin."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        pieces, begin = [], None
        for shown in container.decode(stream):
            begin = shown.time if begin is None else begin
            pieces.append(shown.to_ndarray()[0].astype(float))
        wave = np.abs(np.concatenate(pieces))
    loud = np.flatnonzero(wave > 0.15)
    starts = loud[np.diff(loud, prepend=-stream.rate) > stream.rate / 3] / stream.rate + begin
    return stream.codec_context.name, begin + len(wave) / stream.rate, starts.tolist()


SOURCES = [
    ("a.mp4", "aac", "libx264", "aac"),
    ("a.mkv", "aac", "libx264", "aac"),
    ("a.ts", "aac", "mpeg2video", "aac"),
    ("a.mp4", "libmp3lame", "libx264", "mp3float"),
    ("a.webm", "libopus", "libvpx", "aac"),
    ("a.mov", "pcm_s16le", "mpeg4", "aac"),
    ("a.wav", "pcm_s16le", None, "aac"),
    ("a.mp3", "libmp3lame", None, "mp3float"),
]


@pytest.mark.parametrize(("name", "codec", "video", "result"), SOURCES)
def test_sound_of_the_driving_clip(tmp_path, name, codec, video, result):
    source = _sound(tmp_path / name, codec, video=video)
    for start, beeps in ((0.0, [0.0, 1.0]), (0.75, [0.25]), (2.5, [0.5])):
        out = tmp_path / "out.mp4"
        num = 30 if start < 2 else 24
        write_clip(out, [frame(k // 2) for k in range(num)], 24, source, start, force=True)
        found, end, heard = _heard(out)
        assert found == result
        assert abs(end - num / 24) <= 1 / 24
        heard = [time for time in heard if time < num / 24 - 0.02]
        assert np.abs(np.array(heard) - beeps).max() < 0.015, (start, heard)
        with av.open(str(out)) as container:
            assert abs(container.duration / 1e6 - num / 24) <= 1 / 24
            assert container.streams.video[0].duration * container.streams.video[0].time_base == Fraction(
                num, 24
            )
        assert open_clip(out).num_frames == num


def test_a_clip_goes_through_with_its_length_and_sound(tmp_path):
    source = _sound(tmp_path / "a.mp4", "aac", video="libx264")
    clip = open_clip(source, start=1.5, end=3.5)
    out = tmp_path / "b.mp4"
    assert write_clip(out, clip, clip.rate, source, clip.start) == clip.num_frames == 48
    again = open_clip(out)
    assert (again.rate, again.num_frames, again.has_audio) == (24, 48, True)
    assert numbers(again) == [k // 12 for k in range(36, 84)]
    _, end, heard = _heard(out)
    assert abs(end - 2.0) <= 1 / 24
    assert np.abs(np.array(heard) - [0.5, 1.5]).max() < 0.015


def test_sound_and_pictures_lie_side_by_side(tmp_path):
    """A browser that plays while it loads needs both within a second of each other in the file."""
    source = _sound(tmp_path / "a.mkv", "libopus", seconds=10)
    rng = np.random.default_rng(0)
    write_clip(
        tmp_path / "b.mp4", (rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(240)), 24, source
    )
    with av.open(str(tmp_path / "b.mp4")) as container:
        places = {"video": [], "audio": []}
        for packet in container.demux():
            if packet.size:
                places[packet.stream.type].append((packet.pos, float(packet.dts * packet.time_base)))
    for position, time in places["audio"]:
        before = [other for at, other in places["video"] if at < position]
        assert not before or abs(max(before) - time) < 1.5


def test_silence(tmp_path):
    """A clip without sound, a GIF or a folder to take it from is no error; a missing file is."""
    silent = make(tmp_path / "a.mp4", [frame(k) for k in range(5)])
    Image.fromarray(frame(0)).save(tmp_path / "a.gif")
    write_clip(tmp_path / "frames", [frame(0)], 10)
    for source in (silent, tmp_path / "a.gif", tmp_path / "frames"):
        write_clip(tmp_path / "out.mp4", [frame(k) for k in range(5)], 10, source, force=True)
        assert not open_clip(tmp_path / "out.mp4").has_audio
    missing = tmp_path / "missing.mp4"
    assert error_of(write_clip, tmp_path / "b.mp4", [frame(0)], 10, missing) == (
        f"{missing} does not exist: check the name of the file with the sound"
    )


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "libopus"), ("a.mp3", "libmp3lame")])
def test_sound_that_ends_early(tmp_path, name, codec):
    source = _sound(tmp_path / name, codec, seconds=3)
    out = tmp_path / "b.mp4"
    for start, length in ((2.0, 1.0), (2.5, 0.5), (30.0, 0.0)):
        write_clip(out, [frame(k // 4) for k in range(72)], 24, source, start, force=True)
        assert numbers(open_clip(out)) == [k // 4 for k in range(72)]
        if length:
            assert abs(_heard(out)[1] - length) < 0.08


# ---- nothing half-written ----


def _until(stop: Exception | type[BaseException], num: int = 40):
    yield from (frame(k % 20) for k in range(num))
    raise stop


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "frames"])
def test_an_interruption_leaves_nothing(tmp_path, name):
    for stop in (KeyboardInterrupt, RuntimeError("out of memory"), UserError("frame 41 has no person")):
        with pytest.raises(stop if isinstance(stop, type) else type(stop)):
            write_clip(tmp_path / name, _until(stop), 24, settings={"seed": 1})
        assert not list(tmp_path.iterdir())
    write_clip(tmp_path / name, [frame(3)], 24)
    before = content_hash(tmp_path / name)
    with pytest.raises(KeyboardInterrupt):
        write_clip(tmp_path / name, _until(KeyboardInterrupt), 24, force=True)
    assert os.listdir(tmp_path) == [name]
    assert content_hash(tmp_path / name) == before


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "frames"])
def test_existing_clips_are_kept_unless_forced(tmp_path, name):
    path = tmp_path / name
    write_clip(path, [frame(3), frame(4), frame(3)], 25)
    assert error_of(write_clip, path, [frame(4)], 24) == (
        f"{path} exists already: choose another name, or --force to replace it"
    )
    assert numbers(open_clip(path)) == [3, 4, 3]
    write_clip(path, [frame(4)], 24, force=True)
    assert set(numbers(open_clip(path))) == {4}
    assert os.listdir(tmp_path) == [name]


def test_force_deletes_only_what_scd_wrote(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    assert write_clip(folder, [frame(0)], 10) == 1  # an empty folder is nobody's
    (folder / "mine.png").write_bytes(b"mine")
    message = f"{folder} holds more than frames written by scd: name a new folder"
    assert error_of(write_clip, folder, [frame(1)], 10, force=True) == message
    assert (folder / "mine.png").read_bytes() == b"mine"
    (folder / "mine.png").unlink()
    link = tmp_path / "link"
    link.symlink_to(folder, target_is_directory=True)
    write_clip(link, [frame(5)], 10, force=True)
    assert link.is_symlink()
    assert numbers(open_clip(folder)) == [5]
    file = tmp_path / "file"
    file.write_text("text")
    assert error_of(write_clip, file, [frame(0)], 10, force=True) == f"{file} is a file: name a new folder"
    (tmp_path / "b.mp4").mkdir()
    assert error_of(write_clip, tmp_path / "b.mp4", [frame(0)], 10) == (
        f"{tmp_path / 'b.mp4'} is a folder: name a file in it"
    )


@contextmanager
def _file_size_limit(size: int):
    """The system refuses to write more than so many bytes to a file: as a full disk, and real."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "frames"])
def test_a_full_disk(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (30, *SIZE, 3), dtype=np.uint8)
    path = tmp_path / name
    with _file_size_limit(5_000):
        assert error_of(write_clip, path, noise, 24) == f"{path} cannot be written: File too large"
    assert not list(tmp_path.iterdir())


def test_other_writing_errors(tmp_path):
    odd = tmp_path / "a.xyz"
    assert error_of(write_clip, odd, [frame(0)], 10) == (
        f"{odd} has no ending that can be written: "
        "use .mp4, .m4v, .mov, .gif, .webp, or none for a folder of PNG"
    )
    wide = np.zeros((16, 16400, 3), np.uint8)
    assert error_of(write_clip, tmp_path / "a.webp", [wide], 10).startswith(
        f"{tmp_path / 'a.webp'} cannot be written:"
    )
    assert "--fps 0" in error_of(write_clip, tmp_path / "a.mp4", [frame(0)], 0)
    for name in ("a.mp4", "a.gif", "a.webp", "frames"):
        with pytest.raises(ValueError, match="at least one frame"):
            write_clip(tmp_path / name, [], 10)
        with pytest.raises(
            ValueError, match=r"frame 1 should be uint8 \(48, 64, 3\), not uint8 \(64, 48, 3\)"
        ):
            write_clip(tmp_path / name, [frame(0), frame(1, (64, 48))], 10)
        with pytest.raises(ValueError, match="frame 0 should be uint8"):
            write_clip(tmp_path / name, [frame(0).astype(np.float32)], 10)
    assert not list(tmp_path.iterdir())


# ---- the house ----


def test_names_load_when_used():
    code = (
        "import sys; from scd.media import replacing\n"
        "print(*{'av', 'cv2', 'PIL'} & set(sys.modules))\n"
        "from scd.media import *; import scd.media\n"
        "assert set(scd.media.__all__) <= set(dir())\n"
        "print('torch' in sys.modules, 'av' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\nFalse True\n"
    import scd.media

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = scd.media.nothing
