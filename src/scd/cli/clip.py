"""`scd animate PHOTO DRIVING.mp4`: one person through a whole clip, with the driving clip's rate, length and
sound."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scd import media
from scd.animate import (
    Drive,
    Subject,
    compare_frames,
    make_drive,
    num_steps,
    paint_drive,
    place_in_model,
    placed,
    read_subject,
)
from scd.cli.animate import enlarged, note_drawn_people
from scd.cli.clip_job import (
    WRITTEN,
    WRITTEN_IN_WORDS,
    Source,
    is_frame_folder,
    open_driving,
    record_of,
    reference_poses,
    references,
    settled,
)
from scd.cli.job import parse_person, require_apart, require_free
from scd.cli.models import identity, load_pipeline, lora_file, require_same
from scd.cli.options import Animate, ModelOptions
from scd.cli.terminal import progress
from scd.cli.where import detector_if_there, note_garments
from scd.media.files import PICTURES
from scd.media.picture import settings_beside
from scd.pose.draw import draw_pose
from scd.pose.find import find_poses
from scd.pose.preview import preview_frames
from scd.savepoint import Savepoint
from scd.types import Person, Picture, Pose, UserError

log = logging.getLogger("scd")
Progress = Callable[[str, int | None], AbstractContextManager[Callable[..., None]]]  # as terminal.progress
SHEET_FRAMES = 6


def animate_clip(
    options: Animate,
    expected: Mapping[str, Any] | None = None,
    load: Callable[[ModelOptions], Any] | None = None,
    progress: Progress = progress,
) -> Drive:
    """Run the verb for a clip; what drove it comes back. Raises UserError.

    `expected` is the record to be repeated; its model is None when another one was asked for. `load` and
    `progress` are the terminal's; the demo page has its own.
    """
    if options.num is not None:
        raise UserError("-n: for pictures; a clip is painted once, and another --seed gives another one")
    options = settled(options)
    assert options.person  # settled: they are not None any more
    assert options.detector
    for named in options.model.lora:
        lora_file(named)  # finding the poses takes long
    names = references(options)
    files, person = _files(options, names), parse_person(options.person)
    images = [media.read_image(path) for path in names]
    garments = [media.read_image(path) for path in options.garment]
    with progress("finding poses", None):
        poses = reference_poses(options, images, options.detector)
        if garments:
            note_garments(options.garment, garments, detector_if_there(options.detector))
    source = open_driving(options, person)
    drive = _drive(options, source, person, poses, progress)
    if files.preview is not None:
        with progress("writing the preview", None):
            shown = _preview(images[drive.reference], poses[drive.reference], source, drive)
            media.write_clip(files.preview, shown, source.rate, force=options.force)
        print(files.preview)
        return drive

    pipe = (load or load_pipeline)(options.model)
    model = identity(pipe, options.model)
    if expected is not None and expected["model"] is not None:
        require_same(model, expected["model"], options.model)
    note_drawn_people(pipe, names[0])
    subject = read_subject(pipe, images, poses, garments, canvas=drive.retargeted.size)
    record = record_of(options, pipe, model, drive)
    if expected is not None and _other_poses(record, expected):
        log.warning("the detector finds other poses than when this was recorded: the clip will differ")
    work = files.out.with_name(files.out.name + ".work")
    kept: dict[int, Picture] = {}
    with progress("painting", num_steps(pipe, len(drive.retargeted))) as advance:
        painted = paint_drive(pipe, subject, drive, record["seed"], work, advance)
        sound = None if options.mute else source.sound
        written = media.write_clip(
            files.out, _keeping(painted, len(drive.retargeted), kept), source.rate, sound, source.start,
            record, options.force,
        )  # fmt: skip
    print(f"{files.out}: {written} frames, {float(written / source.rate):.2f} s")
    if files.sheet is not None:
        media.write_image(files.sheet, _sheet(pipe, subject, drive, kept), record, options.force)
        print(files.sheet)
    if files.compare is not None:
        drivers = None if source.clip is None else iter(source.clip)
        results = media.open_clip(files.out, fps=source.rate)  # not kept in memory, however long the clip
        shown = compare_frames(images[drive.reference], drivers, drive.retargeted, results)
        with progress("writing the comparison", None):
            media.write_clip(files.compare, shown, source.rate, force=options.force)
        print(files.compare)
    Savepoint.clear(work)  # cut off until here, the same command with --force does not paint again
    return drive


@dataclass(frozen=True)
class _Files:
    """What is to be written."""

    out: Path
    sheet: Path | None
    preview: Path | None  # and then nothing else
    compare: Path | None


def _files(options: Animate, references: Sequence[Path]) -> _Files:
    """Raises UserError for names that cannot be, are taken, or are those of what is read."""
    out, preview, compare = _out(options), options.preview_pose, options.compare
    sheet = out.with_name(f"{out.stem}-sheet.png") if options.sheet else None
    painted = {"--compare": compare, "--sheet": options.sheet}
    if preview and (told := [name for name, value in painted.items() if value]):
        raise UserError(f"{', '.join(told)}: of a painted clip; --preview-pose paints nothing: leave one out")
    for path in (out, preview, compare):
        if path is not None and path.suffix.lower() not in WRITTEN:
            raise UserError(f"{path}: a clip's name ends in {WRITTEN_IN_WORDS}")
    results = [preview] if preview else [p for p in (out, settings_beside(out), sheet, compare) if p]
    given = [options.reference_pose] if options.reference_pose else []
    require_apart(results, [*references, *given, *options.garment, *options.poses])
    driver = options.poses[0]
    frames = PICTURES if is_frame_folder(driver) else (".json",)
    for path in results:  # --like and the next run would take it for a frame, or for poses
        if path.parent.resolve() == driver.resolve() and path.suffix.lower() in frames:
            raise UserError(f"{path}: would count as a frame of {driver}: choose another folder")
    if len({path.resolve() for path in results}) < len(results):
        raise UserError(f"{compare}: is the name of the clip itself: choose another --compare")
    require_free(results, options.force)
    return _Files(out, sheet, preview, compare)


def _drive(
    options: Animate, source: Source, person: Person, poses: Sequence[Pose], progress: Progress
) -> Drive:
    """The driver's poses, found where they are not given, brought to the references'."""
    assert options.detector and options.face and options.proportions  # noqa: PT018
    seen = source.seen
    if seen is None:
        assert source.clip is not None
        with progress("finding poses", source.clip.num_frames) as advance:
            seen = find_poses(source.clip, options.detector, person, advance)
    return make_drive(
        seen, float(source.rate), poses, not options.no_smooth, options.proportions, options.face,
        str(source.path), source.start,
    )  # fmt: skip


def _other_poses(record: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether the same inputs and options gave other poses."""
    same = all(record[part] == expected.get(part) for part in ("inputs", "options"))
    return same and record["poses"] != expected.get("poses")


def _out(options: Animate) -> Path:
    if options.out is not None:
        if not options.out.name:  # "." and "/"
            raise UserError(f"{options.out}: name a clip, or a new folder for its frames")
        return options.out
    assert options.reference is not None
    return Path("out") / f"{options.reference.stem}_{options.poses[0].stem}.mp4"


def _keeping(frames: Iterable[Picture], num: int, kept: dict[int, Picture]) -> Iterator[Picture]:
    """The frames as they come; those for the sheet are put into `kept` by their number."""
    wanted = set(np.linspace(0, num - 1, min(SHEET_FRAMES, num)).astype(int).tolist())
    for number, frame in enumerate(frames):
        if number in wanted:
            kept[number] = frame
        yield frame


def _sheet(pipe: Any, subject: Subject, drive: Drive, kept: dict[int, Picture]) -> Picture:
    """Poses above results; the reference before both rows."""
    place, own = place_in_model(pipe, drive.retargeted.size), subject.places[drive.reference]
    reference = own.shown(subject.pictures[drive.reference])
    poses = placed(drive.retargeted, place)
    style = pipe.config.pose_drawing  # what the network saw
    drawn = [place.shown(draw_pose(poses[n], place.size, style=style)) for n in kept]
    rows = [[enlarged(cell) for cell in (reference, *row)] for row in (drawn, kept.values())]
    return media.contact_sheet(rows, ["reference", *(f"frame {n}" for n in kept)])


def _preview(image: Picture, pose: Pose, source: Source, drive: Drive) -> Iterator[Picture]:
    """Reference, driving skeleton and retargeted skeleton side by side."""
    frames: Iterable[Picture] | None = source.clip
    if frames is None:
        height, width = drive.driving.size
        frames = (np.zeros((height, width, 3), np.uint8) for _ in range(len(drive.driving)))
    return preview_frames(image, pose, frames, drive.seen, drive.driving, drive.retargeted, drive.filled)
