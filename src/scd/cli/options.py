"""What each verb of the command line takes: typed fields with their help; nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import DisallowNone, Positional, arg

from scd.cli.convert import Convert as Convert
from scd.cli.data_options import Data as Data
from scd.cli.export import Export as Export
from scd.cli.fields import (
    Canvas,
    Count,
    Detector,
    Device,
    File,
    Flag,
    Kind,
    ModelOptions,
    Number,
    OutFile,
    Person,
    Pictures,
    Seconds,
    Verbose,
)
from scd.cli.tryon_options import Mask as Mask
from scd.cli.tryon_options import Tryon as Tryon
from scd.config import TrainConfig


@dataclass(frozen=True)
class Animate:
    """Paint the person of REFERENCE in the pose of each POSE, or through a whole driving clip.

    A POSE is a picture of anybody, or a pose file (scd .npz, OpenPose or DWPose .json). Each picture
    carries its settings, and OUT.json beside it repeats it: `scd animate --like OUT.json`. A video, an
    animation or a folder of frames drives a clip with its rate, length and sound: `scd animate me.png
    dance.mp4 -o out.mp4`; cut off, the same command goes on where it was.
    """

    reference: Annotated[Positional[Path | None], arg(metavar="REFERENCE", help_behavior_hint="")] = None
    """A picture of the person."""
    poses: Annotated[Positional[Pictures], arg(metavar="POSE [POSE ...]")] = ()
    """Pictures of people, or pose files."""
    out: OutFile = None
    """The result: .png, .jpg, .webp, several numbered OUT-01.png ...; of a clip .mp4, .gif, .webp, or a
    folder. Default: out/REFERENCE_POSE.png, .mp4."""
    num: Count = None
    """Pictures of each pose; picture i is the same for any N. Default: 1."""
    sheet: Flag = False
    """Also write OUT-sheet.png: reference, pose and result side by side."""
    like: File = None
    """Repeat what this OUT.json (or picture, or clip) records. Other options that are given win."""
    person: Person = None
    """Whom, where a picture shows several: the largest, or number N from the left. Default: largest."""
    detector: Detector = None
    """Who finds poses in pictures. Default: mediapipe."""
    reference_pose: File = None
    """A pose file of the reference picture, in place of looking for it."""
    canvas: Canvas = None
    """Pixels of the pictures behind pose files that do not say it, as OpenPose's do not."""
    garment: Pictures = ()
    """Garments that the person wears in the result: pictures of each alone, laid flat."""
    more: Pictures = ()
    """Clips: further pictures of the same person, as the back."""
    preview_pose: File = None
    """Clips: write reference, driving skeleton and retargeted skeleton side by side to FILE.mp4, and stop."""
    compare: File = None
    """Clips: also write reference, driver, pose and result side by side to FILE (.mp4, .gif, .webp)."""
    start: Seconds = None
    """Clips: begin so many seconds into the driving clip."""
    end: Seconds = None
    """Clips: stop there."""
    fps: Annotated[float | None, DisallowNone, arg(metavar="RATE", help_behavior_hint="")] = None
    """Clips: frames a second. Default: the driving clip's."""
    max_frames: Number = None
    """Clips: so many frames at most."""
    face: Annotated[
        Literal["none", "eyes-mouth", "full"] | None,
        DisallowNone,
        arg(metavar="none|eyes-mouth|full", help_behavior_hint=""),
    ] = None
    """Clips: what the driver's face drives. Its shape is always the reference's. Default: full."""
    proportions: Annotated[
        Literal["reference", "driver"] | None,
        DisallowNone,
        arg(metavar="reference|driver", help_behavior_hint=""),
    ] = None
    """Clips: whose body the poses have. Default: reference."""
    no_smooth: Flag = False
    """Clips: leave the trembling of the detector in."""
    mute: Flag = False
    """Clips: leave the sound out."""
    force: Flag = False
    """Replace files that exist."""
    verbose: Verbose = False
    """Show the libraries' messages, and tracebacks."""
    model: Annotated[ModelOptions, arg(name="")] = field(default_factory=ModelOptions)

    def run(self) -> None:
        from scd.cli.animate import animate

        animate(self)


@dataclass(frozen=True)
class Pose:
    """Find the people in a picture, or one person through a whole clip, and write their poses.

    A clip is a video, an animation or a folder of frames. Its poses are as the detector gave them, frames
    without the person empty; `scd animate REFERENCE POSES.npz -o OUT.mp4` fills and smooths them.
    """

    input: Annotated[Positional[Path], arg(metavar="INPUT")]
    """A picture, a clip, or a pose file (OpenPose or DWPose .json, scd .npz) to convert."""
    out: OutFile = None
    """The pose file, .npz. Default: out/INPUT.npz."""
    draw: File = None
    """Also draw the poses over the picture, .png, or the clip, .mp4 (of a pose file: on black)."""
    detector: Annotated[str, arg(metavar="mediapipe|dwpose")] = "mediapipe"
    """Who finds them."""
    person: Person = None
    """Clips: whom to follow, the largest, or number N from the left. Default: largest."""
    start: Seconds = None
    """Clips: begin so many seconds into the clip."""
    end: Seconds = None
    """Clips: stop there."""
    fps: Annotated[float | None, DisallowNone, arg(metavar="RATE", help_behavior_hint="")] = None
    """Clips: frames a second. Default: the clip's."""
    max_frames: Number = None
    """Clips: so many frames at most."""
    canvas: Canvas = None
    """Pixels of the picture behind a pose file that does not say it, as OpenPose's do not."""
    force: Flag = False
    """Replace files that exist."""
    verbose: Verbose = False
    """Show the libraries' messages, and tracebacks."""

    def run(self) -> None:
        from scd.cli.pose import pose

        pose(self)


@dataclass(frozen=True)
class Train:
    """Train with these settings. The same command again continues where it stopped.

    RUN/model is the result, to be given as `--model`; RUN/samples shows what it paints.
    """

    config: Annotated[TrainConfig, arg(name="")]
    run_folder: Annotated[
        Path | None, DisallowNone, arg(name="run", metavar="FOLDER", help_behavior_hint="")
    ] = None
    """Where everything is written. Default: run/PRESET."""
    # Read from the words before they are parsed (scd.cli), because it changes the defaults of all others
    memory: Annotated[int | None, DisallowNone, arg(metavar="12|24|80", help_behavior_hint="")] = None
    """Gigabytes of the accelerator, for the recipes of Stable Diffusion 1.5: changes what learns, gradient
    checkpointing and the batch, as the defaults above then say. Options that are given win."""
    device: Device = "auto"
    """Where to train."""
    dry_run: Flag = False
    """Print the final settings, the parameters and an estimate of the memory, and stop."""
    verbose: Verbose = False
    """Show the libraries' messages, and tracebacks."""

    def run(self) -> None:
        from scd.cli.train import train

        train(self)


@dataclass(frozen=True)
class World:
    """Draw people of the procedural world: a sheet, a motion clip, a folder of pictures and poses; or a
    garment."""

    out: Annotated[Positional[Path], arg(metavar="OUT", help_behavior_hint="")] = Path("out/world.png")
    """A picture: a sheet, one row a person. .mp4, .gif: a motion clip of one person. Any other name: a data
    set's folder. Default: out/world.png."""
    num: Annotated[int, arg(aliases=["-n"], metavar="N")] = 4
    """People; a clip shows one."""
    views: Annotated[int, arg(metavar="N")] = 6
    """Pictures of each, in other postures and turns."""
    first_view: Annotated[int, arg(metavar="N")] = 0
    """Number of the first of them."""
    size: Annotated[int, arg(metavar="N")] = 128
    """Pixels of both sides of a picture."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Of the first person; the next ones follow."""
    layout: Annotated[
        Literal["tiktok", "ubc", "vitonhd", "dresscode"] | None,
        DisallowNone,
        arg(metavar="tiktok|ubc|vitonhd|dresscode", help_behavior_hint=""),
    ] = None
    """OUT becomes a dataset as one of these lies on a disk: --num clips of --frames, 30 a second, or --num
    people (of each category) who wear the garment, to train with."""
    tryon: Annotated[int, arg(metavar="N")] = 0
    """The same as --layout vitonhd --num N."""
    tryon_test: Annotated[
        int | None, DisallowNone, arg(aliases=["--test"], metavar="N", help_behavior_hint="")
    ] = None
    """Held-out clips of that dataset; or people, who try on each other's garments, and the exact results lie
    beside. Default: a quarter of --num, 2 at least. TikTok's layout holds out the last tenth."""
    garment: Kind = None
    """OUT becomes a picture of a garment of this kind, laid flat; --seed chooses it."""
    clip: Literal["dance", "walk", "wave", "turn"] = "dance"
    """What a clip shows."""
    frames: Annotated[int, arg(metavar="N")] = 48
    """Of a clip, and of the clips of a layout."""
    fps: Annotated[float, arg(metavar="RATE")] = 15.0
    """Of a clip."""
    force: Flag = False
    """Replace what exists."""
    verbose: Verbose = False
    """Show tracebacks."""

    def run(self) -> None:
        from scd.cli.world import world

        world(self)


@dataclass(frozen=True)
class Demo:
    """Open a page for the browser on this computer: a photo and a driving clip in, a clip out.

    Only programs on this computer reach it (127.0.0.1), and it reaches nobody: no share link, no telemetry.
    """

    port: Annotated[int, arg(metavar="N")] = 7860
    """Where: the page is http://127.0.0.1:N."""
    verbose: Verbose = False
    """Show the libraries' messages, and tracebacks."""
    model: Annotated[ModelOptions, arg(name="")] = field(default_factory=ModelOptions)

    def run(self) -> None:
        from scd.demo import demo

        demo(self)


@dataclass(frozen=True)
class Bench:
    """Time a model: a step without a reference, with it cached, with it read again each step, with its
    features projected anew for every frame; and a picture."""

    num: Annotated[int, arg(aliases=["-n"], metavar="N")] = 15
    """Rounds; in each, every kind of step is timed once."""
    frames: Annotated[int, arg(metavar="T")] = 1
    """Frames of the clip that a step paints; more than 1 for models with motion modules."""
    verbose: Verbose = False
    """Show the libraries' messages, and tracebacks."""
    model: Annotated[ModelOptions, arg(name="")] = field(default_factory=ModelOptions)

    def run(self) -> None:
        from scd.cli.measure import bench

        bench(self)


@dataclass(frozen=True)
class Doctor:
    """Say what is installed, what is missing, and the line that mends it."""

    verbose: Verbose = False
    """Show the libraries' messages, and tracebacks."""

    def run(self) -> int:
        from scd.doctor import doctor

        return doctor()
