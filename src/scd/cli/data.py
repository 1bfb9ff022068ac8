"""`scd data`: what a dataset holds, its poses and regions, how training will see it, and how fast."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scd import media
from scd.cli import similar
from scd.cli.data_options import Data
from scd.cli.job import require_free
from scd.cli.terminal import SHOWN, json_line, no_bars_of_loading, progress, table
from scd.config import DataConfig
from scd.data.buckets import Buckets
from scd.data.check import STAGE_1, Report, check, preview
from scd.data.find import KINDS, find_dataset, kind_of
from scd.data.frames import Frames
from scd.data.layouts import Layout, own_manifest
from scd.data.manifest import Entry, is_manifest, require_files
from scd.data.mixed import pairs_config
from scd.data.pairs import TryOnLayout
from scd.data.prepare import find_all_poses, lacks_poses, survey
from scd.data.real import open_real
from scd.data.shots import all_shots
from scd.data.speed import time_samples
from scd.data.tryon_check import check_pairs, preview_pairs
from scd.data.tryon_pictures import open_tryon, usable_pairs
from scd.data.tryon_prepare import num_pictures, prepare_pairs
from scd.types import UserError


def data(options: Data) -> None:
    """Run the verb. Raises UserError, also when the dataset cannot train."""
    for name, value, least in (("workers", options.workers, 0), ("n", options.num, 1)):
        if value is not None and value < least:
            raise UserError(f"-{'-' * (len(name) > 1)}{name} {value}: {least} at least")
    if options.size < 32 or options.size % 16:
        raise UserError(f"--size {options.size}: a multiple of 16, 32 at least")
    kind, root = _where(options.where)
    if options.what == "bench":
        _bench(options, DataConfig(kind or kind_of(root) or "folder", str(root)))  # type: ignore[arg-type]
        return
    manifest = _manifest(options, root) if options.what == "prepare" else None
    dataset = find_dataset(root, kind, manifest)
    if options.what == "preview":
        _preview(options, dataset)
    elif options.what == "encode":
        _encode(options, dataset)
    elif isinstance(dataset, Layout):
        _clips(options, dataset)
    else:
        _pairs(options, dataset, manifest)


def _where(words: tuple[str, ...]) -> tuple[str | None, Path]:
    """[LAYOUT] ROOT."""
    if not 1 <= len(words) <= 2:
        raise UserError(
            "name one folder or manifest, and before it, if you like, its layout: " + ", ".join(KINDS)
        )
    if len(words) == 1:
        return None, Path(words[0])
    if words[0] not in KINDS:
        raise UserError(f"there is no layout {words[0]!r}{similar(words[0], KINDS)}: use {', '.join(KINDS)}")
    return words[0], Path(words[1])


def _manifest(options: Data, root: Path) -> Path | None:
    """The manifest that is to be written; None = the dataset's own."""
    if options.out is None:
        return None
    if not is_manifest(options.out):
        raise UserError(f"{options.out}: a manifest's name ends in .jsonl")
    if is_manifest(root) and root.resolve() != options.out.resolve():
        raise UserError(
            f"-o {options.out}: {root} is a manifest itself, and goes on where it is; leave -o away"
        )
    return options.out


def _clips(options: Data, layout: Layout) -> None:
    """Check or prepare a dataset of clips."""
    if options.what == "prepare":
        entries = with_poses(layout, options.detector, options.workers)
    else:
        entries = read_through(layout, options.workers)
    report = check(layout, entries, options.size)
    unknown = f"not known yet: scd data prepare {' '.join(options.where)}"
    stage_1, stage_2 = "training_pairs", "training_windows"
    names = {
        "unusable": "clips that cannot be used", "missing": "of these, not there",
        "broken": "of these, cannot be read", "without_person": "of these, without a person",
        "copies": "clips with the same content as another", "small": f"clips small for --size {options.size}",
        "durations": "shortest, median, longest clip, seconds",
        "sizes": "sizes, pixels", "rates": "frames a second", "without_poses": "clips without poses yet",
        "frames_without_person": "frames without a person", "buckets": f"buckets at --size {options.size}",
        "held_out": "held out clips, never trained on", stage_1: "stage 1: pairs of reference and target",
        stage_2: "stage 2: windows of 24 frames at stride 4",
    }  # fmt: skip
    _print(options, layout, report, names, layout.manifest, unknown)


def _pairs(options: Data, layout: TryOnLayout, manifest: Path | None) -> None:
    """Check or prepare a try-on dataset."""
    where = layout.listed_in
    if options.what == "prepare":
        where = manifest or layout.listed_in or own_manifest(layout.root)
        with progress("reading pictures", num_pictures(layout), "pictures") as advance:
            layout = prepare_pairs(layout, where, options.detector, advance, options.workers)
    with progress("reading pictures", num_pictures(layout), "pictures") as advance:
        report = check_pairs(layout, options.size, advance, options.workers)
    names = {
        "training_pairs": "pairs to train with", "test_paired": "test pairs, the garment worn",
        "test_unpaired": "test pairs, another garment", "with_truth": "of these, with the exact result",
        "categories": "pairs by category", "missing": "pairs without their pictures",
        "unusable": "people that cannot be used", "copies": "people with the same picture as another",
        "small": f"people small for --size {options.size}", "sizes": "people, pixels",
        "garment_sizes": "garments, pixels",
        "without_mask": "people without an agnostic mask", "without_pose": "people without a pose",
        "without_person": "pose files without a person", "buckets": f"buckets at --size {options.size}",
    }  # fmt: skip
    _print(options, layout, report, names, where)


def _preview(options: Data, dataset: Layout | TryOnLayout) -> None:
    out, num = options.out or Path("out") / f"{dataset.root.resolve().name}.png", options.num or 8
    require_free([out], options.force)
    if isinstance(dataset, Layout):
        entries = with_poses(dataset, options.detector, options.workers)
        sheet = preview(dataset, entries, replace(STAGE_1, size=options.size), num)
    else:
        sheet = preview_pairs(dataset, options.size, num)
    media.write_image(out, sheet, force=options.force)
    print(out)


def _encode(options: Data, dataset: Layout | TryOnLayout) -> None:
    """What `--data.latents` would do before the first step."""
    if options.out is None:
        raise UserError("-o: name the folder for the latents, to be given to scd train as --data.latents")
    items: Sequence[Frames]
    if isinstance(dataset, Layout):
        entries = with_poses(dataset, options.detector, options.workers)
        items = [*all_shots(dataset, entries, dataset.training, Buckets(options.size))]
    else:
        config = DataConfig(dataset.kind, options.where[-1], size=options.size)  # type: ignore[arg-type]
        items = open_tryon(config, 0).items
    if not items:
        raise UserError(f"{dataset.root}: nothing to encode; scd data check says why")

    from scd.config import TrainConfig
    from scd.latents import keep_latents
    from scd.model import load_init, resolve_device

    no_bars_of_loading()
    with progress("loading the model", None):
        pipe = load_init(TrainConfig(init=options.init, image_encoder=options.image_encoder))
        pipe.to(resolve_device(options.device))
    began = time.monotonic()
    with progress("encoding", len(items), "shots" if isinstance(dataset, Layout) else "pairs") as advance:
        new = keep_latents(pipe, items, options.out, advance)
    figures = {"items": len(items), "encoded": new, "seconds": round(time.monotonic() - began, 2)}
    table(str(options.out), figures)
    json_line({**figures, "folder": str(options.out)})


def _bench(options: Data, config: DataConfig) -> None:
    """Samples a second, as stage 1 and try-on read them."""
    num = options.num or 64
    length = num + 4 * options.workers + 1
    if config.is_tryon:
        dataset = open_tryon(replace(config, size=options.size, augment=False), length)
    else:
        dataset = open_real(replace(STAGE_1, kind=config.kind, root=config.root, size=options.size), length)
    with progress("reading", num * (2 if options.workers else 1)) as advance:
        figures = time_samples(dataset, num, options.workers, advance)
    shown = {name: " x ".join(map(str, v)) if isinstance(v, list) else v for name, v in figures.items()}
    table(f"{config.root}: samples of {config.kind}", shown)
    json_line({**figures, "layout": config.kind})


def with_kind(config: DataConfig) -> DataConfig:
    """The config with the layout that a manifest names; of a folder, for a preset of the world, the one that
    it seems to have. Raises UserError."""
    if not config.root or not (config.kind == "world" or is_manifest(Path(config.root))):
        return config
    kind: Any = kind_of(config.root) or "folder"
    found = replace(config, kind=kind)
    if config.kind != "world" and found.is_tryon != config.is_tryon:
        fitting = f"pairs, the preset {kind}" if found.is_tryon else f"clips, the preset {kind}-stage1"
        raise UserError(
            f"{config.root}: does not go with {config.kind}'s presets; it lists {fitting} is for them"
        )
    return found


def ready(config: DataConfig, look: bool = True) -> DataConfig:
    """Real data of a training run: there, and (with `look`) prepared; `with_kind`. Raises UserError."""
    config = with_kind(config)
    if config.tryon:
        usable_pairs(pairs_config(config))
    if config.kind == "world":
        return config
    dataset = find_dataset(config.root, config.kind)
    if isinstance(dataset, TryOnLayout):  # poses and masks come with it
        usable_pairs(config)
        return config
    if dataset.listed_in:
        require_files(dataset.manifest, map(dataset.path, dataset.clips))
    if look:
        with_poses(dataset)
    return config


def with_poses(layout: Layout, detector: str = "mediapipe", workers: int = 1) -> dict[str, Entry]:
    """The dataset's entries after reading what is new and looking for the poses that are missing."""
    entries = read_through(layout, workers)
    frames = sum(entry.frames for entry in entries.values() if lacks_poses(layout, entry))
    if not frames:
        return entries
    with progress("finding poses", frames, "frames") as advance:
        return find_all_poses(layout, entries, detector, advance, workers)


def read_through(layout: Layout, workers: int = 1) -> dict[str, Entry]:
    with progress("reading clips", len(layout.clips), "clips") as advance:
        return survey(layout, advance, workers)


def _print(
    options: Data, dataset: Layout | TryOnLayout, report: Report, names: dict[str, str],
    manifest: Path | None, unknown: str = "",
) -> None:  # fmt: skip
    """The figures by name, the problems, a JSON line. Raises UserError with the verdict."""
    root = options.where[-1]
    table(root, {names.get(key, key): _cell(value, unknown) for key, value in report.figures.items()})
    for line in report.problems[:SHOWN]:
        print(line)
    if len(report.problems) > SHOWN:
        print(f"... and {len(report.problems) - SHOWN} more")
    if dataset.note:
        print(f"licence: {dataset.note}")
    more = {"manifest": str(manifest)} if manifest else {}
    json_line({**report.figures, **more, "problems": len(report.problems)})
    if report.verdict:
        raise UserError(f"{root} cannot train: {report.verdict}")
    if options.strict and report.problems:
        raise UserError(f"{root} can train, but --strict: problems, {len(report.problems)} of them")


def _cell(value: object, unknown: str) -> str:
    if isinstance(value, dict):
        shown = [f"{name} ({count:,})" for name, count in list(value.items())[:6]]
        return "\n".join([*shown, *(["..."] if len(value) > 6 else [])])
    if isinstance(value, list):
        return ", ".join(f"{one:,}" for one in value)
    return unknown if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)
