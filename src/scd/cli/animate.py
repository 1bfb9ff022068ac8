"""`scd animate`: the person of one picture, read once, in the poses of others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from scd import media
from scd.animate import Subject, place_in_model, read_subject
from scd.cli.clip_job import drives_a_clip, repeated
from scd.cli.job import CLIP_KIND, KIND, Job, plan, read_record, require_same_shape, write_record
from scd.cli.models import identity, load_pipeline, require_same, settings_of
from scd.cli.options import Animate
from scd.cli.terminal import progress
from scd.cli.where import detector_if_there, note_garments
from scd.encoders import require_finite, to_bytes
from scd.inputs import split_generator
from scd.pose import detect
from scd.pose.draw import draw_pose
from scd.types import Picture, Pose, UserError

log = logging.getLogger("scd")
SHEET_SIDE = 256  # pixels, at least, of a picture's longer side on a sheet


def animate(options: Animate) -> None:
    """Run the verb: write pictures, record and sheet, and print their names. Raises UserError."""
    from scd.cli.clip import animate_clip

    record = {} if options.like is None else read_record(options.like)
    if record.get("kind") == CLIP_KIND:
        same_model = not options.model.other
        animate_clip(repeated(options, record), record if same_model else {**record, "model": None})
        return
    if drives_a_clip(options):
        if record:
            raise UserError(f"{options.like}: is the record of a picture, and cannot be repeated as a clip")
        animate_clip(options)
        return
    require_no_clip_options(options)
    job = plan(options)
    image = media.read_image(job.reference)
    garments = [media.read_image(path) for path in job.garments]
    reference_pose, poses = _find_poses(job, image)
    if garments:
        note_garments(job.garments, garments, detector_if_there(job.detector))
    pipe = load_pipeline(job.model)
    model = identity(pipe, job.model)
    if job.expected is not None:
        require_same(model, job.expected, job.model)
    note_drawn_people(pipe, job.reference)
    record = _record(job, pipe, model)
    subjects: dict[tuple[int, int], Subject] = {}  # read once for each shape of frame
    rows: list[list[Picture]] = []
    with progress("painting", len(job.names) * pipe.config.default_steps) as advance:
        for pose in poses:
            place = place_in_model(pipe, pose.size)
            if place.size not in subjects:
                subjects[place.size] = read_subject(
                    pipe, [image], [reference_pose], garments, canvas=pose.size
                )
            subject = subjects[place.size]
            given = [subject.places[0].shown(subject.pictures[0]), *garments]
            for generator in split_generator(torch.Generator().manual_seed(record["seed"]), job.num):
                picture, drawing = _paint(pipe, subject.reference, pose, place, generator, advance)
                media.write_image(
                    job.names[len(rows)], picture, {**record, "picture": len(rows) + 1}, job.force
                )
                rows.append([*given, drawing, picture])
    if job.sheet is not None:
        cells = [[enlarged(cell) for cell in row] for row in rows]
        sheet = media.contact_sheet(cells, ["reference", *["garment"] * len(garments), "pose", "result"])
        media.write_image(job.sheet, sheet, record, job.force)
    write_record(job.record, record, job.force)
    for path in [*job.names, *([job.sheet] if job.sheet else [])]:
        print(path)


def require_no_clip_options(options: Animate) -> None:
    """UserError for options of clips where the pose is a picture."""
    if options.more and not options.poses and options.like is None:
        raise UserError(
            f"--more takes all that follows it, {options.more[-1]} too; name the driver first: "
            "scd animate REFERENCE DRIVING --more PICTURE"
        )
    given = {
        "--preview-pose": options.preview_pose, "--compare": options.compare, "--start": options.start,
        "--end": options.end, "--fps": options.fps, "--max-frames": options.max_frames,
        "--more": options.more or None, "--face": options.face, "--proportions": options.proportions,
        "--no-smooth": options.no_smooth or None, "--mute": options.mute or None,
    }  # fmt: skip
    if told := [name for name, value in given.items() if value is not None]:
        raise UserError(
            f"{', '.join(told)}: for clips; give one driving video, animation or folder of frames "
            "(or a pose file with -o NAME.mp4)"
        )


def note_drawn_people(pipe: Any, reference: Path) -> None:
    """One line where a model of drawn people is shown a photograph."""
    if pipe.config.world_version is not None and not _is_drawn(reference):
        log.info("this model knows drawn people: for photographs, give --model one trained on them")


def _find_poses(job: Job, image: Picture) -> tuple[Pose, list[Pose]]:
    """The reference's pose and all the frames', looked for in the pictures before they are fitted."""
    pictures = [path for path, frames in job.poses if frames is None]
    needed = len(pictures) + (job.reference_pose is None)
    found: dict[Path, Pose] = {}
    reference_pose = job.reference_pose[0] if job.reference_pose else None
    if reference_pose is not None:
        require_same_shape(reference_pose, image, job.reference)
    if needed:
        with progress("finding poses", needed) as advance:
            detector = detect.get_detector(job.detector)
            if reference_pose is None:
                reference_pose = detect.detect_one(
                    image, job.person, str(job.reference), detector, alone=True
                )
                advance()
            for path in pictures:
                if path not in found:
                    picture = media.read_image(path)
                    found[path] = detect.detect_one(picture, job.person, str(path), detector, alone=True)
                advance()
    assert reference_pose is not None
    return reference_pose, [
        pose for path, frames in job.poses for pose in ([found[path]] if frames is None else frames)
    ]


def _paint(
    pipe: Any,
    reference: Any,
    pose: Pose,
    placement: media.Placement,
    generator: torch.Generator | None,
    advance: Callable[..., None],
) -> tuple[Picture, Picture]:
    """One picture and the drawing of its pose, both in the aspect ratio of the pose's picture.

    One at a time: a picture is the same to the bit however many are asked for, and memory does not grow.
    """
    moved = placement.apply_to_pose(pose)

    def step(*_: Any) -> dict:
        advance()
        return {}

    values = pipe(
        reference,
        [moved],
        *moved.size,
        generator=[generator] if generator else None,
        output_type="np",
        callback_on_step_end=step,
    ).images[0]
    require_finite(values, "the picture", pipe.unet.dtype)
    picture = to_bytes(values)
    drawing = draw_pose(moved, moved.size, style=pipe.config.pose_drawing)  # what the network saw
    return placement.shown(picture), placement.shown(drawing)


def enlarged(picture: Picture) -> Picture:
    """Small pictures in whole steps, so that a sheet shows their pixels as they are."""
    factor = -(-SHEET_SIDE // max(picture.shape[:2]))
    return picture.repeat(factor, 0).repeat(factor, 1)


def _is_drawn(path: Path) -> bool:
    try:
        return media.read_settings(path).get("kind") == "world"
    except UserError:
        return False


def _record(job: Job, pipe: Any, model: dict[str, Any]) -> dict[str, Any]:
    """All that `--like` needs to paint the same again. Paths stay as they were given."""
    return {
        "kind": KIND,
        "inputs": job.inputs,
        "canvas": job.canvas,
        "num": job.num,
        "person": job.person,
        "detector": job.detector,
        **settings_of(pipe, job.model, model),
    }
