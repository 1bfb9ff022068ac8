"""`scd tryon`: garments on the person of a picture; outside the region no byte of the picture changes."""

from __future__ import annotations

import hashlib
import logging

import numpy as np
import torch

from scd import media
from scd.cli.animate import note_drawn_people
from scd.cli.job import write_record
from scd.cli.models import identity, load_pipeline, require_same, settings_of
from scd.cli.options import Tryon
from scd.cli.terminal import progress
from scd.cli.tryon_job import KIND, TryOnJob, plan
from scd.cli.where import note_garments, pose_in_file, region_of
from scd.data.buckets import Buckets
from scd.inputs import split_generator
from scd.media.original import read_original
from scd.pose import detect
from scd.pose.preview import scaled
from scd.region import read_region, resized, tinted
from scd.tryon import Stage, paint_stage, put_back, read_garments, set_stage
from scd.types import Picture, Pose, Region, UserError

log = logging.getLogger("scd")
LARGEST_WEBP = 16383  # pixels a side
SHEET_HEIGHT = 384  # pixels of the pictures on a sheet


def tryon(options: Tryon) -> None:
    """Run the verb: write pictures, record and sheet, or the preview, and print their names. Raises
    UserError."""
    job = plan(options)
    original = read_original(job.picture)
    image = original.shown()
    if job.preview is None:
        _require_fit(job, original.alpha is not None, max(original.size))
    garments = [media.read_image(path) for path in job.garments]
    with progress("finding the person", None):
        pose, region = _find(job, image, garments, original.size)
    if job.preview is not None:
        media.write_image(job.preview, _tinted(image, region), force=job.force)
        print(job.preview)
        return
    if job.names[0].suffix.lower() != ".png":
        log.warning(
            "%s: %s touches every pixel, outside the region too; a name that ends in .png keeps them",
            job.names[0], "WebP" if job.names[0].suffix.lower() == ".webp" else "JPEG",
        )  # fmt: skip
    pipe = load_pipeline(job.model)
    model = identity(pipe, job.model)
    if job.old and not options.model.other:
        require_same(model, job.old["model"], job.model)
    note_drawn_people(pipe, job.picture)
    stage = set_stage(original, region, pose, Buckets.of(pipe.config))
    record = {
        "kind": KIND, "inputs": job.inputs, "categories": job.categories, "canvas": job.canvas,
        "num": len(job.names), "person": job.person, "detector": job.detector, "stage": _hash(stage),
        **settings_of(pipe, job.model, model),
    }  # fmt: skip
    _note_if_other(record, job)
    reference = read_garments(pipe, garments, stage.placement.size)
    results = []
    with progress("painting", len(job.names) * pipe.config.default_steps) as advance:
        generators = split_generator(torch.Generator().manual_seed(record["seed"]), len(job.names))
        for name, generator in zip(job.names, generators, strict=True):
            frame = paint_stage(pipe, reference, stage, generator, advance)
            result = put_back(original, region, stage.placement, frame)
            settings = {**record, "picture": len(results) + 1}
            media.write_image(name, result.whole, settings, job.force, result.profile, result.dpi)
            results.append(scaled(result.shown(), SHEET_HEIGHT) if job.sheet else None)
    if job.sheet is not None:
        given = [scaled(picture, SHEET_HEIGHT) for picture in (_tinted(image, region), *garments)]
        labels = ["region", *["garment"] * len(garments), "result"]
        sheet = media.contact_sheet([[*given, result] for result in results], labels)
        media.write_image(job.sheet, sheet, record, job.force)
    write_record(job.record, record, job.force)
    for path in [*job.names, *([job.sheet] if job.sheet else [])]:
        print(path)


def _require_fit(job: TryOnJob, transparent: bool, side: int) -> None:
    """UserError where the kind of OUT cannot hold what PERSON has."""
    kind, why = job.names[0].suffix.lower(), ""
    if transparent and kind in (".jpg", ".jpeg"):
        why = f"JPEG cannot hold the transparency of {job.picture}"
    if side > LARGEST_WEBP and kind == ".webp":
        why = f"WebP ends at {LARGEST_WEBP} pixels a side, {job.picture} has {side}"
    if why:
        raise UserError(f"{job.names[0]}: {why}: use a name that ends in .png")


def _find(
    job: TryOnJob, image: Picture, garments: list[Picture], size: tuple[int, int]
) -> tuple[Pose | None, Region]:
    """The person's pose, None where nobody is found and a mask says where; and the region (H, W) of `size`,
    the picture's own. Notes garments that show people."""
    region = None if job.region is None else read_region(job.region, size)
    detector = _detector(job)
    pose = None
    if job.pose is not None:
        pose = pose_in_file(job.pose, job.picture, image, job.person, job.canvas)
    elif detector is not None:
        try:
            pose = detect.detect_one(image, job.person, str(job.picture), detector, region)
        except detect.NobodyFound as error:
            if region is None:
                raise UserError(f"{error}, or --region mask.png (white = generate)") from None
            log.warning("no person found in %s: it is painted without a pose", job.picture)
    note_garments(job.garments, garments, detector)
    if region is None:
        assert pose is not None
        region = resized(region_of(job.picture, image, pose, job.categories), size)
    return pose, region


def _detector(job: TryOnJob) -> detect.Detector | None:
    """None, in one line, where it is not installed and not needed."""
    try:
        return detect.get_detector(job.detector)
    except UserError as error:
        if job.pose is None or job.detector not in detect.DETECTORS:
            if job.region is None or job.detector != "mediapipe":
                raise
            log.warning("painted without a pose: %s", error)
        return None


def _tinted(image: Picture, region: Region) -> Picture:
    return tinted(image, resized(region, (image.shape[0], image.shape[1])))


def _hash(stage: Stage) -> str:
    """SHA-256, in hex, of pose and region as they are painted: another detector finds others."""
    digest = hashlib.sha256(np.packbits(stage.region).tobytes())
    if stage.pose is not None:
        digest.update(stage.pose.joints.tobytes() + stage.pose.scores.tobytes())
    return digest.hexdigest()


def _note_if_other(record: dict, job: TryOnJob) -> None:
    same = all(
        record[key] == job.old.get(key)
        for key in ("inputs", "categories", "person", "detector", "canvas", "size")
    )
    if same and record["stage"] != job.old.get("stage"):
        log.warning("pose or region differ from when this was recorded: the picture will differ")
