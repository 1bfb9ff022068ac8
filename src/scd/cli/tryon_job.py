"""What one `scd tryon` will do, settled before the work begins: inputs, names, what `--like` recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scd.cli.fields import ModelOptions
from scd.cli.job import (
    ENDINGS,
    Person,
    first_said,
    identity_of,
    merged_model,
    numbered,
    parse_canvas,
    parse_person,
    picture_name,
    read_record,
    reading_record,
    require_apart,
    require_free,
    unchanged,
    unchanged_garments,
    with_settings,
)
from scd.cli.options import Tryon
from scd.pose.region import CATEGORIES
from scd.types import UserError

KIND = "tryon"  # of a record


@dataclass(frozen=True)
class TryOnJob:
    """Everything a `tryon` needs. Exactly one of `categories` and `region` says where the garments go."""

    picture: Path
    garments: list[Path]
    categories: list[str]  # of all garments together
    region: Path | None
    pose: Path | None
    person: Person
    canvas: str | None
    detector: str
    names: list[Path]  # of all pictures
    record: Path
    sheet: Path | None
    preview: Path | None  # then nothing else is written
    force: bool
    model: ModelOptions
    inputs: dict[str, Any]  # paths and hashes, for the record
    old: dict[str, Any]  # what `--like` recorded, else empty


def plan(options: Tryon) -> TryOnJob:
    """Settle the job. Raises UserError for missing or changed inputs, and for results that exist."""
    like = options.like
    old = {} if like is None else read_record(like, (KIND,), "tryon")
    with reading_record(like, "tryon"):
        return _plan(options, old)


def _plan(options: Tryon, old: dict[str, Any]) -> TryOnJob:
    require_categories(options.category, "scd tryon PERSON GARMENT --category upper")
    if options.category and options.region:
        raise UserError("--category and --region: both say where the garment goes; give one of them")
    inputs, like = old.get("inputs") or {}, options.like
    garments = list(options.garments) or unchanged_garments(inputs, like)
    picture, pose, region = options.picture, options.pose, options.region
    categories = [] if region else list(options.category) or list(old.get("categories", ()))
    if picture is None and old:
        picture = unchanged(inputs["picture"], like)
        if pose is None and inputs["pose"]:
            pose = unchanged(inputs["pose"], like)
        if region is None and not categories:
            region = unchanged(inputs["region"], like)
    if picture is None or not garments:
        raise UserError(
            "give a PERSON and a GARMENT, a picture each: scd tryon PERSON GARMENT --category upper"
        )
    if region is None and not categories:
        raise UserError(
            f"say what {garments[0]} is: --category upper, lower or dress; "
            "or where it goes: --region mask.png (white = generate)"
        )
    num = first_said(options.num, old.get("num"), 1)
    if num < 1:
        raise UserError(f"-n {num}: paint one picture at least")
    canvas = options.canvas or old.get("canvas")
    parse_canvas(canvas)  # a slip is one, with a pose file or without
    given = [picture, *garments, *(path for path in (region, pose) if path)]
    preview = options.preview_region
    if preview is not None:
        preview = picture_name(preview, f"{picture.stem}_region.png")
    out = picture_name(options.out, f"{'_'.join(path.stem for path in (picture, *garments))}.png")
    names = [out] if num == 1 else [numbered(out, i + 1, num) for i in range(num)]
    record, sheet = out.with_suffix(".json"), None
    if options.sheet:
        sheet = out.with_name(f"{out.stem}-sheet.png")
    results = [preview] if preview else [*with_settings(names), record, *([sheet] if sheet else [])]
    require_apart(results, given)
    require_free(results, options.force)
    return TryOnJob(
        picture=picture,
        garments=garments,
        categories=categories,
        region=region,
        pose=pose,
        person=parse_person(first_said(options.person, old.get("person"), "largest")),
        canvas=canvas,
        detector=first_said(options.detector, old.get("detector"), "mediapipe"),
        names=names,
        record=record,
        sheet=sheet,
        preview=preview,
        force=options.force,
        model=merged_model(options.model, old, options.like),
        inputs={
            "picture": identity_of(picture),
            "garments": [identity_of(path) for path in garments],
            "region": identity_of(region) if region else None,
            "pose": identity_of(pose) if pose else None,
        },
        old=old,
    )


def require_categories(words: Sequence[str], usage: str) -> None:
    """UserError for a word that is none; pictures after --category were taken for some."""
    for word in words:
        if word not in CATEGORIES:
            if Path(word).suffix.lower() in ENDINGS or Path(word).exists():
                raise UserError(f"--category {word}: is a file; name the pictures first: {usage}")
            raise UserError(f"--category {word}: there is no such category; use {', '.join(CATEGORIES)}")
