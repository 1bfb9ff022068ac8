"""`scd data`: what a dataset holds, its poses, and how training will see it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from scd import media
from scd.cli.job import require_free
from scd.cli.options import Data
from scd.cli.terminal import json_line, progress, table
from scd.config import DataConfig
from scd.data.check import STAGE_1, Report, check, preview
from scd.data.layouts import Layout, find_clips
from scd.data.manifest import Entry
from scd.data.prepare import find_all_poses, lacks_poses, survey
from scd.data.tryon import TRYON_LAYOUTS, find_pairs, guess_tryon
from scd.data.tryon_check import check_pairs, preview_pairs
from scd.data.tryon_pictures import usable_pairs
from scd.types import UserError

QUIET_SECONDS = 30  # between two lines of progress where there is no terminal
SHOWN = 20  # problems; the rest is counted


def data(options: Data) -> None:
    """Run the verb. Raises UserError, also when the dataset cannot train."""
    if options.size < 32 or options.size % 16:
        raise UserError(f"--size {options.size}: a multiple of 16, 32 at least")
    if options.num is not None and options.num < 1:
        raise UserError(f"-n {options.num}: show one at least")
    tryon = options.kind in TRYON_LAYOUTS or (options.kind == "auto" and guess_tryon(options.root))
    if tryon:
        _pairs(options)
        return
    layout = find_clips(options.root, None if options.kind == "auto" else options.kind)
    if options.what == "preview":
        out = _preview_file(layout.root, options)
        entries = with_poses(layout, options.detector)
        sheet = preview(layout, entries, replace(STAGE_1, size=options.size), options.num or 8)
        media.write_image(out, sheet, force=options.force)
        print(out)
        return
    prepared = options.what == "prepare"
    _report(layout, with_poses(layout, options.detector) if prepared else read_through(layout), options)


def _pairs(options: Data) -> None:
    """The same for a try-on dataset. It needs no preparation: poses and masks come with it."""
    layout = find_pairs(options.root, None if options.kind == "auto" else options.kind)
    if options.what == "preview":
        out = _preview_file(layout.root, options)
        media.write_image(out, preview_pairs(layout, options.size, options.num or 8), force=options.force)
        print(out)
        return
    with _progress("reading people", len({pair.person for pair in layout.pairs}), "people") as advance:
        report = check_pairs(layout, options.size, advance)
    names = {
        "training_pairs": "pairs to train with", "test_paired": "test pairs, the garment worn",
        "test_unpaired": "test pairs, another garment", "with_truth": "of these, with the exact result",
        "categories": "pairs by category", "missing": "pairs without their pictures",
        "unusable": "people that cannot be used", "sizes": "people, pixels",
        "garment_sizes": "garments, pixels",
        "without_mask": "people without an agnostic mask", "without_pose": "people without a pose",
        "buckets": f"buckets at --size {options.size}",
    }  # fmt: skip
    _print(layout.root, layout.note, report, names, {})


def _preview_file(root: Path, options: Data) -> Path:
    out = options.out or Path("out") / f"{root.resolve().name}.png"
    require_free([out], options.force)
    return out


def ready(config: DataConfig, look: bool = True) -> None:
    """Real data of a training run: there, and (with `look`) prepared. Raises UserError."""
    if config.kind == "world":
        return
    if config.kind in TRYON_LAYOUTS:  # poses and masks come with it
        usable_pairs(config)
        return
    layout = find_clips(config.root, config.kind)
    if look:
        with_poses(layout)


def with_poses(layout: Layout, detector: str = "mediapipe") -> dict[str, Entry]:
    """The dataset's entries after reading what is new and looking for the poses that are missing."""
    entries = read_through(layout)
    frames = sum(entry.frames for entry in entries.values() if lacks_poses(layout, entry))
    if not frames:
        return entries
    with _progress("finding poses", frames, "frames") as advance:
        return find_all_poses(layout, entries, detector, advance)


def read_through(layout: Layout) -> dict[str, Entry]:
    with _progress("reading clips", len(layout.clips), "clips") as advance:
        return survey(layout, advance)


def _report(layout: Layout, entries: dict[str, Entry], options: Data) -> None:
    report = check(layout, entries, options.size)
    unknown = f"not known yet: scd data prepare {options.root}"
    stage_1, stage_2 = "training_pairs", "training_windows"
    names = {
        "unusable": "clips that cannot be used", "copies": "clips with the same content as another",
        "sizes": "sizes, pixels", "rates": "frames a second", "without_poses": "clips without poses yet",
        "frames_without_person": "frames without a person", "buckets": f"buckets at --size {options.size}",
        "held_out": "held out clips, never trained on", stage_1: "stage 1: pairs of reference and target",
        stage_2: "stage 2: windows of 24 frames at stride 4",
    }  # fmt: skip
    _print(layout.root, layout.note, report, names, {"manifest": str(layout.manifest)}, unknown)


def _print(
    root: Path, note: str, report: Report, names: dict[str, str], more: dict[str, str], unknown: str = ""
) -> None:
    """The figures by name, the problems, a JSON line with `more`. Raises UserError with the verdict."""
    table(str(root), {names.get(key, key): _cell(value, unknown) for key, value in report.figures.items()})
    for line in report.problems[:SHOWN]:
        print(line)
    if len(report.problems) > SHOWN:
        print(f"... and {len(report.problems) - SHOWN} more")
    if note:
        print(f"licence: {note}")
    json_line({**report.figures, **more, "problems": len(report.problems)})
    if report.verdict:
        raise UserError(f"{root} cannot train: {report.verdict}")


def _cell(value: object, unknown: str) -> str:
    if isinstance(value, dict):
        shown = [f"{name} ({count:,})" for name, count in list(value.items())[:6]]
        return "\n".join([*shown, *(["..."] if len(value) > 6 else [])])
    return unknown if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)


@contextmanager
def _progress(label: str, total: int, unit: str) -> Iterator[Callable[[], None]]:
    """A bar; where there is no terminal, now and then a line with the time that is left."""
    began = spoken = time.monotonic()
    done = 0
    with progress(label, total) as bar:

        def advance() -> None:
            nonlocal done, spoken
            done += 1
            bar()
            now = time.monotonic()
            if not sys.stderr.isatty() and now - spoken > QUIET_SECONDS:
                spoken = now
                left = (total - done) * (now - began) / done / 60
                print(f"{label}: {done:,} of {total:,} {unit}, {left:.0f} min left", file=sys.stderr)

        yield advance
