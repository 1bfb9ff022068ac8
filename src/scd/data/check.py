"""Whether a dataset can train, in figures a person understands; and how training will see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scd.config import PRESETS, DataConfig
from scd.data.buckets import Buckets
from scd.data.layouts import LAYOUTS, Layout
from scd.data.manifest import Entry
from scd.data.prepare import lacks_poses
from scd.data.real import RealClips, RealPictures, in_seconds
from scd.data.shots import Shot, all_shots
from scd.media import contact_sheet
from scd.media.files import VIDEOS
from scd.types import UserError

STAGE_1, STAGE_2 = (PRESETS[f"folder-{stage}"].data for stage in ("stage1", "stage2"))
WORTH_A_WORD = 1.5  # times enlarged: a shot with so few pixels for its bucket is named
# Figures that only poses tell, None before
LATER = ("frames_without_person", "shots", "buckets", "training_pairs", "training_windows")
NOBODY = "no person found"  # how the error of a clip without a person begins (scd.pose.track)


@dataclass(frozen=True)
class Report:
    figures: dict[str, Any]  # JSON; None = not known before the poses were looked for
    problems: list[str]  # a line each, with the clip's name
    verdict: str  # why it cannot train; "" = it can


def check(layout: Layout, entries: dict[str, Entry], size: int) -> Report:
    """What a surveyed dataset holds, and how much of it trains at buckets of `size`."""
    good = [entry for entry in entries.values() if not entry.error]
    small = {e.clip for e in good if WORTH_A_WORD**2 * e.size[0] * e.size[1] < size**2}
    figures, problems = _of_clips(layout, entries, good, small)
    if not good:
        return Report(figures, problems, "none of its clips can be read")
    if figures["without_poses"]:
        problems += [f"{name}: small, under the pixels of buckets of {size}" for name in sorted(small)]
        return Report(figures, problems, "")
    later, more = _of_shots(layout, entries, good, small, size)
    lacking = f"no clip shows the person in two frames {in_seconds(STAGE_1.gap)}"
    verdict = "" if later["training_pairs"] else lacking
    return Report(figures | later, problems + more, verdict)


def _of_clips(
    layout: Layout, entries: dict[str, Entry], good: list[Entry], small: set[str]
) -> tuple[dict[str, Any], list[str]]:
    """Figures and problems that are known before poses were looked for."""
    problems = [f"{e.clip}: {e.error.removeprefix(f'{e.clip} ')}" for e in entries.values() if e.error]
    missing = sum(not layout.path(entry.clip).exists() for entry in entries.values())
    nobody = sum(entry.error.startswith(NOBODY) for entry in entries.values())
    copies = _copies(layout, good)
    seconds = [entry.frames / _rate(entry) for entry in good]
    figures: dict[str, Any] = {
        "layout": layout.kind, "clips": len(entries), "held_out": len(layout.held_out),
        "unusable": len(problems), "missing": missing, "broken": len(problems) - missing - nobody,
        "without_person": nobody, "copies": len(copies), "small": len(small),
        "frames": sum(entry.frames for entry in good),
        "seconds": round(sum(seconds), 2),
        "durations": [round(find(seconds), 2) for find in (min, median, max)] if seconds else None,
        "sizes": counted(f"{entry.size[1]}x{entry.size[0]}" for entry in good),
        "rates": counted(f"{_rate(entry):g}" for entry in good),
        "without_poses": sum(lacks_poses(layout, entry) for entry in good),
    }  # fmt: skip
    return figures | dict.fromkeys(LATER), [*problems, *copies, *_elsewhere(layout)]


def _of_shots(
    layout: Layout, entries: dict[str, Entry], good: list[Entry], small: set[str], size: int
) -> tuple[dict[str, Any], list[str]]:
    """The figures of LATER, "small" with what poses say of it, and the problems of shots."""
    shots = all_shots(layout, entries, layout.training, Buckets(size))
    held_out = all_shots(layout, entries, sorted(layout.held_out), Buckets(size))
    everything = [*shots, *held_out]
    pairs = _training_set(RealPictures, shots, STAGE_1.targets, gap=STAGE_1.gap)
    windows = _training_set(RealClips, shots, STAGE_2.frames, strides=STAGE_2.strides)
    figures = {
        "small": len(small | {shot.clip for shot in everything if 1 / shot.scale >= WORTH_A_WORD}),
        "frames_without_person": (
            sum(entry.frames for entry in good) - sum(len(shot.usable) for shot in everything)
        ),
        "shots": len(everything),
        "buckets": counted(f"{shot.bucket[1]}x{shot.bucket[0]}" for shot in shots),
        "training_pairs": 0 if pairs is None else sum(num_pairs(shot, STAGE_1.gap) for shot in pairs.shots),
        "training_windows": 0 if windows is None else sum(
            len(windows.windows(shot, stride)) for shot in windows.shots for stride in STAGE_2.strides
        ),
    }  # fmt: skip
    problems = []
    names = {shot.name for shot in pairs.shots} if pairs is not None else set()
    for shot in shots:
        if shot.name not in names:
            problems.append(
                f"{shot.name}: too short, no two frames with the person {in_seconds(STAGE_1.gap)}"
            )
        elif (enlarged := 1 / shot.scale) >= WORTH_A_WORD:
            problems.append(f"{shot.name}: small, enlarged {enlarged:.1f} times for buckets of {size}")
    for shot in held_out:
        if not num_pairs(shot, STAGE_1.gap):
            problems.append(
                f"{shot.name}: held out, but too short to be looked at, no two frames with the person "
                f"{in_seconds(STAGE_1.gap)}"
            )
    return figures, problems


def _elsewhere(layout: Layout) -> list[str]:
    """A line when TikTok's or UBCFashion's layout, which may have been guessed, takes not all videos."""
    if layout.kind == "folder" or layout.listed_in is not None or not layout.root.is_dir():
        return []
    try:
        below = LAYOUTS["folder"](layout.root).clips
    except UserError:
        return []
    others = [clip for clip in below if Path(clip).suffix.lower() in VIDEOS and clip not in layout.clips]
    if not others:
        return []
    names = ", ".join(others[:3]) + (" ..." if len(others) > 3 else "")
    way = f"scd data prepare folder {layout.root} takes all"
    return [f"{len(others)} videos are none of {layout.kind}'s layout ({names}): {way}"]


def _copies(layout: Layout, entries: list[Entry]) -> list[str]:
    """A line for every clip with the content of one before."""
    first: dict[str, str] = {}
    lines = []
    for clip, content in ((entry.clip, entry.content) for entry in entries):
        other = first.setdefault(content, clip)
        if other != clip:
            leak = (other in layout.held_out) != (clip in layout.held_out)
            why = ", and one of the two is held out: training would see it" if leak else ""
            lines.append(f"{clip}: shows the same as {other}{why}")
    return lines


def num_pairs(shot: Shot, gap: int) -> int:
    """(reference, target) pairs of frames with the person, at least `gap` frames of 30 a second apart."""
    later = len(shot.usable) - np.searchsorted(shot.usable, shot.usable + shot.apart(gap))
    return 2 * int(later.sum())


def preview(layout: Layout, entries: dict[str, Entry], data: DataConfig, num: int) -> NDArray[np.uint8]:
    """A sheet of up to `num` clips: reference and target, each with its drawing, as training reads them."""
    shots = all_shots(layout, entries, layout.training, Buckets(data.size))
    dataset = RealPictures(shots, 0, num_targets=1, gap=data.gap)
    rows, names = [], []
    for number in spread(num, len(dataset.shots)):
        sample = dataset.sample(dataset.shots[number], 1, np.random.default_rng([0, number]))
        pairs = zip(
            (*sample.references, *sample.targets), (*sample.reference_drawings, *sample.target_drawings),
            strict=True,
        )  # fmt: skip
        rows.append([cell for pair in pairs for cell in pair])
        names.append(f"{dataset.shots[number].name}, {rows[-1][0].shape[1]}x{rows[-1][0].shape[0]}")
    return contact_sheet(rows, ["reference", "its pose", "target", "its pose"], names)


def _training_set(cls: Any, shots: list[Shot], num: int, **options: Any) -> Any:
    try:
        return cls(shots, 0, num, **options)
    except UserError:
        return None


def _rate(entry: Entry) -> float:
    return float(Fraction(entry.fps))


def counted(names: Iterable[str]) -> dict[str, int]:
    """How often each comes, the most frequent first."""
    return dict(Counter(names).most_common())


def spread(num: int, total: int) -> list[int]:
    """Up to `num` of the numbers 0 .. total - 1, evenly from the first to the last."""
    return np.unique(np.linspace(0, total - 1, num).round().astype(int)).tolist()
