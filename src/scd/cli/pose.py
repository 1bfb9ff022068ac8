"""`scd pose`: the people in a picture, or in a pose file of another format, as our npz."""

from __future__ import annotations

from pathlib import Path

from scd import media
from scd.cli.job import ENDINGS, is_pose_file, parse_canvas, require_free
from scd.cli.options import Pose
from scd.pose import detect
from scd.pose.draw import draw_pose, overlay_pose
from scd.pose.files import read_poses, write_poses
from scd.types import UserError


def pose(options: Pose) -> None:
    """Run the verb: write poses and drawing, and print their names. UserError, also when nobody is found."""
    out = options.out or Path("out") / f"{options.input.stem}.npz"
    if out.suffix.lower() != ".npz":
        raise UserError(f"{out}: poses are written as .npz, choose a name that ends so")
    if options.draw and options.draw.suffix.lower() not in ENDINGS:
        raise UserError(f"{options.draw}: a picture's name ends in {', '.join(ENDINGS)}")
    require_free([out, *([options.draw] if options.draw else [])], options.force)
    if is_pose_file(options.input):
        file = read_poses(options.input, parse_canvas(options.canvas))
        frames, size, fps = file.frames, file.size, file.fps
        drawing = draw_pose(frames[0], size) if frames else None
    else:
        image = media.read_image(options.input)
        frames, fps, size = (
            [detect.get_detector(options.detector).detect(image)],
            0.0,
            (image.shape[0], image.shape[1]),
        )
        if not frames[0]:
            raise UserError(
                f"no person found in {options.input}: use a picture that shows one from head to hips or more"
            )
        drawing = overlay_pose(image, frames[0])
    if options.draw and drawing is not None:
        media.write_image(options.draw, drawing, {"kind": "pose", "input": str(options.input)}, options.force)
    write_poses(out, frames, fps, size, options.force)
    people = max((len(frame) for frame in frames), default=0)
    print(f"{out}: {_counted(len(frames), 'frame', 'frames')}, {_counted(people, 'person', 'people')}")
    if options.draw and drawing is not None:
        print(options.draw)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
