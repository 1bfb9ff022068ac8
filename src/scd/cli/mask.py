"""`scd mask`: where a garment goes on the person of a picture, as a mask to look at, change and give back."""

from __future__ import annotations

from scd import media
from scd.cli.job import (
    identity_of,
    parse_canvas,
    parse_person,
    picture_name,
    require_apart,
    require_free,
    with_settings,
)
from scd.cli.options import Mask
from scd.cli.tryon_job import require_categories
from scd.cli.where import detector_if_there, pose_in_file, region_of
from scd.media.original import read_original
from scd.pose import detect
from scd.region import resized, tinted, white
from scd.types import UserError

KIND = "mask"  # of the settings that travel in the mask


def mask(options: Mask) -> None:
    """Run the verb: write mask and preview, and print their names. UserError, also when nobody is found."""
    require_categories(options.category, "scd mask PERSON --category upper")
    if not (kinds := list(dict.fromkeys(options.category))):
        raise UserError("say what the person is to wear: --category upper, lower or dress, or several")
    out = picture_name(options.out, f"{options.picture.stem}_{'_'.join(kinds)}.png")
    if out.suffix.lower() != ".png":
        raise UserError(f"{out}: a mask is written as .png, which loses nothing: choose a name that ends so")
    preview = options.preview
    if preview is not None:
        preview = picture_name(preview, f"{options.picture.stem}_region.png")
    if preview is not None and preview.resolve() == out.resolve():
        raise UserError(f"{preview} is the mask's name too: choose another --preview")
    parse_canvas(options.canvas)  # a slip is one, with a pose file or without
    results = [out, *([preview] if preview else [])]
    require_apart(with_settings(results), [options.picture, *([options.pose] if options.pose else [])])
    require_free(with_settings(results), options.force)
    original = read_original(options.picture)
    image = original.shown()
    person = parse_person(options.person or "largest")
    if options.pose is None:
        detector = detect.get_detector(options.detector)
        pose = detect.detect_one(image, person, str(options.picture), detector)
    else:
        detector_if_there(options.detector)  # not asked, but it is to be one
        pose = pose_in_file(options.pose, options.picture, image, person, options.canvas)
    region = region_of(options.picture, image, pose, kinds, options.pose_only)
    settings = {
        "kind": KIND, "categories": kinds, "pose_only": options.pose_only,
        "person": options.person or "largest", "detector": options.detector, "canvas": options.canvas,
        "inputs": {
            "picture": identity_of(options.picture),
            "pose": identity_of(options.pose) if options.pose else None,
        },
    }  # fmt: skip
    media.write_image(out, white(resized(region, original.size)), settings, options.force)
    if preview is not None:
        media.write_image(preview, tinted(image, region), settings, options.force)
    for path in results:
        print(path)
