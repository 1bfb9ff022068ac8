"""`scd pose`: people in a picture, one person through a clip, or a pose file of another format, as npz."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scd import media
from scd.cli.clip_job import MOVES, POSE_FPS, WRITTEN, WRITTEN_IN_WORDS, is_clip
from scd.cli.job import ENDINGS, is_pose_file, parse_canvas, parse_person, require_apart, require_free
from scd.cli.options import Pose
from scd.cli.terminal import progress
from scd.pose import detect
from scd.pose.draw import draw_pose, overlay_pose
from scd.pose.files import PoseFile, read_poses, write_poses
from scd.pose.find import find_poses
from scd.pose.preview import driver_frames
from scd.pose.smooth import in_words
from scd.pose.track import to_frames
from scd.types import Picture, PoseClip, UserError


def pose(options: Pose) -> None:
    """Run the verb: write poses and drawing, and print their names. UserError, also when nobody is found."""
    out = options.out or Path("out") / f"{options.input.stem}.npz"
    if out.suffix.lower() != ".npz":
        raise UserError(f"{out}: poses are written as .npz, choose a name that ends so")
    results = [out, *([options.draw] if options.draw else [])]
    require_apart(results, [options.input])
    if is_clip(options.input):
        _clip(options, out, results)
        return
    _require_no_clip_options(options)
    if is_pose_file(options.input):
        _file(options, out, results)
        return
    if options.canvas:
        raise UserError(f"--canvas: for pose files; {options.input} is a picture, which says its own size")
    _require_ending(options.draw, ENDINGS, f"a picture's name ends in {', '.join(ENDINGS)}")
    require_free(results, options.force)
    image = media.read_image(options.input)
    people = detect.get_detector(options.detector).detect(image)
    if not people:
        raise UserError(
            f"no person found in {options.input}: use a picture that shows one from head to hips or more"
        )
    if options.draw:
        _draw(options, overlay_pose(image, people))
    write_poses(out, [people], 0.0, (image.shape[0], image.shape[1]), options.force)
    _told(options, out, 1, len(people))


def _clip(options: Pose, out: Path, results: list[Path]) -> None:
    """One person through a video, an animation or a folder of frames."""
    _require_ending(options.draw, WRITTEN, f"the drawing of a clip ends in {WRITTEN_IN_WORDS}")
    if options.canvas:
        raise UserError(f"--canvas: for pose files; {options.input} is a clip, which says its own size")
    require_free(results, options.force)
    person = parse_person(options.person or "largest")
    clip = media.open_clip(options.input, options.start, options.end, options.fps, options.max_frames)
    with progress("finding poses", clip.num_frames) as advance:
        seen = find_poses(clip, options.detector, person, advance)
    # The chosen person alone, so that place 1 of the file is this person in every frame
    frames = [frame[:1] for frame in to_frames(seen)]
    if options.draw:
        driving = PoseClip.from_poses([one.pose for one in seen], clip.fps, clip.size)
        with progress("drawing", None):
            shown = driver_frames(clip, seen, driving)
            media.write_clip(options.draw, shown, clip.rate, force=options.force)
    write_poses(out, frames, clip.fps, clip.size, options.force)
    missing = tuple(t for t, one in enumerate(seen) if one.pose is None)
    _told(options, out, len(frames), 1, f"; nobody found in {in_words(missing)}" if missing else "")


def _file(options: Pose, out: Path, results: list[Path]) -> None:
    """A pose file of any format; its drawing is of the first frame, or a clip of all."""
    _require_ending(options.draw, (*ENDINGS, *MOVES), "a drawing is a picture, .png, or a clip, .mp4")
    require_free(results, options.force)
    file = read_poses(options.input, parse_canvas(options.canvas))
    if options.draw:
        if not file.frames:
            raise UserError(f"{options.input}: has no frames to draw")
        if options.draw.suffix.lower() in ENDINGS:
            _draw(options, draw_pose(file.frames[0], file.size))
        else:
            media.write_clip(options.draw, _drawn(file), file.fps or POSE_FPS, force=options.force)
    write_poses(out, file.frames, file.fps, file.size, options.force)
    _told(options, out, len(file.frames), max((len(frame) for frame in file.frames), default=0))


def _drawn(file: PoseFile) -> Iterator[Picture]:
    for frame in file.frames:
        yield draw_pose(frame, file.size)


def _draw(options: Pose, drawing: Picture) -> None:
    assert options.draw is not None
    media.write_image(options.draw, drawing, {"kind": "pose", "input": str(options.input)}, options.force)


def _require_ending(path: Path | None, endings: tuple[str, ...], text: str) -> None:
    if path is not None and path.suffix.lower() not in endings:
        raise UserError(f"{path}: {text}")


def _require_no_clip_options(options: Pose) -> None:
    given = {
        "--person": options.person, "--start": options.start, "--end": options.end, "--fps": options.fps,
        "--max-frames": options.max_frames,
    }  # fmt: skip
    if told := [name for name, value in given.items() if value is not None]:
        raise UserError(f"{', '.join(told)}: for clips; {options.input} is a picture or a pose file")


def _told(options: Pose, out: Path, frames: int, people: int, more: str = "") -> None:
    print(f"{out}: {_counted(frames, 'frame', 'frames')}, {_counted(people, 'person', 'people')}{more}")
    if options.draw:
        print(options.draw)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
