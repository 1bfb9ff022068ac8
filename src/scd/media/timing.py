"""When frames come: the rate of a clip whose frames may come unevenly, and its frames on an even grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from pathlib import Path
from typing import TypeVar

import numpy as np

from scd.types import UserError

DEFAULT_RATE = Fraction(30)  # frames per second where nothing says so: a folder of frames, a single picture

FASTEST = 1000  # frames per second that may be asked for: cameras of slow motion have up to 960
SLOWEST = 0.01  # likewise; a video itself may have a frame an hour
_LONGEST_STEP = 60.0  # seconds
_NTSC = Fraction(1000, 1001)
_COMMON = sorted(
    [Fraction(n) for n in (5, 8, 10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 100, 120, 240)]
    + [Fraction(n) * _NTSC for n in (24, 30, 48, 60, 120, 240)]
)

Item = TypeVar("Item")


def exact_rate(fps: float | Fraction) -> Fraction:
    """Frames per second as the fraction that is meant: 29.97 is 30000/1001, 23.976 is 24000/1001.

    UserError when it is not above 0; a number that is no Fraction is from 0.01 to 1,000.
    """
    if not isfinite(fps) or fps <= 0:
        raise UserError(f"--fps {float(fps):g}: give a number of frames per second above 0")
    if isinstance(fps, Fraction):
        return fps
    if fps > FASTEST:
        raise UserError(f"--fps {fps:g}: give at most {FASTEST} frames per second")
    if fps < SLOWEST:
        raise UserError(f"--fps {fps:g}: give at least {SLOWEST} frames per second")
    whole = round(fps * 1.001)
    if abs(fps * 1.001 - whole) < 5e-4:  # 23.976, 29.97, 59.94 and 119.88 miss by 2e-5 to 1.2e-4
        return whole * _NTSC
    return _fraction(fps, 10_000)


def part_of(
    path: Path, length: float, rate: Fraction, start: float | None, end: float | None, max_frames: int | None
) -> tuple[float, int]:
    """Of a clip of `length` seconds: where the part that is asked for begins, in seconds, and how many frames
    it has at `rate`. UserError when it has none."""
    first = start or 0.0
    if not 0 <= first < length:
        raise UserError(f"--start {first:g}: choose 0 to {length:.2f} s, the length of {path}")
    if end is not None and not end > first:
        raise UserError(f"--end {end:g}: choose more than --start, which is {first:g} s")
    if max_frames is not None and max_frames < 1:
        raise UserError(f"--max-frames {max_frames}: choose 1 or more")
    last = length if end is None else min(end, length)
    num_frames = max(1, round((last - first) * rate))
    return first, num_frames if max_frames is None else min(num_frames, max_frames)


@dataclass(frozen=True)
class Timing:
    """When the frames of a clip are on show, in seconds since its first frame."""

    times: Sequence[float]  # of each frame, rising, from 0
    end: float  # when the last frame goes
    rate: Fraction  # frames per second: the even grid on which the clip is read


def timing_of(
    times: Sequence[float], last: float = 0.0, tick: float = 0.0, stated: Fraction | None = None
) -> Timing:
    """The timing of frames that come at `times` (seconds, rising, from 0).

    `last` is how long the last frame stays (0 = unknown), `tick` the resolution of the clock that the times
    were rounded to, both in seconds, and `stated` the rate that the file claims; it is believed when the
    times agree. Frames of which 90 % come evenly have the rate of these (phones pause and stumble), others
    the average; either becomes the common rate within 1 %. A gap of over a minute and 100 usual steps is a
    clock that jumps (joined or damaged recordings), and becomes one usual step.
    """
    if len(times) == 1:
        rate = stated or DEFAULT_RATE
        return Timing(times, max(last, 1 / float(rate)), rate)
    steps = np.diff(times)
    step = float(np.median(steps))
    jumps = steps > max(_LONGEST_STEP, 100 * step)
    if jumps.any():
        steps[jumps] = step
        times = [0.0, *np.cumsum(steps).tolist()]
    regular = np.abs(steps - step) <= max(step / 4, 1.5 * tick)
    num_steps = len(steps)
    if regular.mean() >= 0.9:  # a gap counts as the frames that it should have had
        num_steps = float(np.maximum(1, np.round(steps / steps[regular].mean())).sum())
    mean = times[-1] / num_steps
    end = times[-1] + max(last, step)
    if np.ptp(steps) < 1e-9 and not stated:  # 3 centiseconds in a GIF are 100 / 3 and not 30
        return Timing(times, end, _fraction(1 / mean))
    if np.abs(steps - mean).max() <= 1.5 * tick + 1e-9:
        tolerance = 2 * tick / times[-1] + 1e-9
        if stated and abs(float(stated) * mean - 1) <= tolerance:
            return Timing(times, end, stated)
    else:
        tolerance = 0.01
    common = min(_COMMON, key=lambda one: abs(float(one) * mean - 1))
    close = abs(float(common) * mean - 1) <= tolerance
    return Timing(times, end, common if close else _fraction(1 / mean))


def _fraction(rate: float, largest: int = 1001) -> Fraction:
    return Fraction(rate).limit_denominator(largest) or Fraction(rate)  # a frame per hour is not none at all


def on_grid(
    frames: Iterable[tuple[float, Item]], timing: Timing, start: float, rate: Fraction, num_frames: int
) -> Iterator[Item]:
    """The frame at start + k / rate seconds, for k below `num_frames`; frames repeat or are left out.

    `frames` come with their times, from `start` or before. A frame counts from halfway after the one before
    it on, but not from more than half a step of the finer rate before its time: so a clip read at its own
    rate gives each frame once, however its clock trembles. Frames that `timing` promised and that do not
    come (a broken file) make the result shorter.
    """
    step, own = 1 / float(rate), 1 / float(timing.rate)
    index, time, last, shown = 0, 0.0, 0.0, None
    for time, frame in frames:
        early = start + min(step, own, time - last) / 2
        while shown is not None and index < num_frames and index * step + early < time:
            yield shown
            index += 1
        if index == num_frames:
            return
        shown, last = frame, time
    if time + own / 2 < timing.times[-1]:
        num_frames = min(num_frames, round((time + own - start) / step))
    while shown is not None and index < num_frames:
        yield shown
        index += 1
