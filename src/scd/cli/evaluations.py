"""What `scd evaluate` takes: on drawn people, whose truth is known; on datasets of clips, and for try-on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import DisallowNone, Positional, Suppress, arg

from scd.cli.fields import Count, File, Flag, ModelOptions, Number, Verbose

Folder = Annotated[Path | None, DisallowNone, arg(metavar="FOLDER", help_behavior_hint="")]


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on held-out people with exact truth: a table, then one line of JSON.

    `scd evaluate tiktok ROOT` measures it on a dataset's held-out clips, `scd evaluate vitonhd ROOT` try-on
    on its test pairs: `scd evaluate tiktok --help`, `scd evaluate vitonhd --help`.
    """

    data: Annotated[
        Positional[Literal["world", "world-video", "world-tryon"]],
        arg(metavar="{world,world-video,world-tryon,tiktok,ubc,folder,vitonhd,dresscode}"),
    ]
    """What to measure on: pictures, motion clips, or try-on, of drawn people that training never sees; or a
    dataset of clips, or for try-on."""
    num: Count = None
    """People. Default: 64 for pictures (three times as many are painted), 8 for clips, 32 for try-on (eight
    times as many)."""
    frames: Number = None
    """Of each clip, 15 a second. Default: 24."""
    sheet: File = None
    """Also write a sheet: references, poses, results and truths."""
    lpips: File = None
    """Try-on: weights of LPIPS's network, SqueezeNet 1.1 as .safetensors; without them it is left out."""
    force: Flag = False
    """Replace the sheet if it exists."""
    verbose: Verbose = False
    """Show the libraries' messages, and tracebacks."""
    model: Annotated[ModelOptions, arg(name="")] = field(default_factory=ModelOptions)

    def run(self) -> None:
        from scd.cli.measure import evaluate

        evaluate(self)


@dataclass(frozen=True)
class PairsModel(ModelOptions):
    """The same without its size: the protocol's is that of the pictures."""

    size: Annotated[int | None, Suppress] = None


@dataclass(frozen=True)
class EvaluatePairs:
    """Measure try-on on a dataset's test pairs, as the field does it: a table, then one line of JSON.

    Paired, the person puts on the garment that is worn already, and the picture itself is the truth;
    unpaired, another one, and there is a truth only where `scd world OUT --tryon N` drew it.
    """

    data: Annotated[Positional[Literal["vitonhd", "dresscode"]], arg(metavar="{vitonhd,dresscode}")]
    """How the dataset lies on the disk."""
    root: Annotated[Positional[Path], arg(metavar="ROOT")]
    """Its folder."""
    paired: Flag = False
    """The garment that is worn; so it is without --unpaired, too."""
    unpaired: Flag = False
    """The other garment that the test list names."""
    size: Annotated[str, arg(metavar="HEIGHTxWIDTH")] = "512x384"
    """Pixels of a picture, painted and measured."""
    paste_back: Annotated[bool, arg(help_behavior_hint="")] = True
    """Outside the region the pixels are the person's own; else all are as decoded."""
    category: Annotated[
        tuple[Literal["upper", "lower", "dress"], ...],
        arg(metavar="upper|lower|dress ...", help_behavior_hint=""),
    ] = ()
    """Only garments of these kinds. Default: all there are."""
    limit: Number = None
    """Only the first N pairs."""
    batch: Annotated[int, arg(metavar="N")] = 4
    """Pictures in one call: memory, not results, depends on it."""
    out: Folder = None
    """Keep the pictures there, PERSON.png."""
    predictions: Folder = None
    """Measure these pictures of another program in place of painting: PERSON.png or PERSON_GARMENT.png."""
    lpips: File = None
    """Weights of LPIPS's network, SqueezeNet 1.1 as .safetensors; without them it is left out."""
    inception: File = None
    """Weights of FID's and KID's network, torch-fidelity's pt_inception-2015-12-05 as .safetensors; without
    them both are left out."""
    force: Flag = False
    """Replace pictures in the folder that is named with --out."""
    verbose: Verbose = False
    """Show the libraries' messages, and tracebacks."""
    model: Annotated[PairsModel, arg(name="")] = field(default_factory=PairsModel)

    def run(self) -> None:
        from scd.cli.measure import evaluate_pairs

        evaluate_pairs(self)


@dataclass(frozen=True)
class EvaluateHeldOut:
    """Measure a model on the clips that a dataset holds out, each driven by its own poses: a table, then one
    line of JSON.

    The first frame that shows the person is the reference, those after it are the truth. `scd data prepare
    ROOT` comes first: it finds the poses.
    """

    data: Annotated[Positional[Literal["tiktok", "ubc", "folder"]], arg(metavar="{tiktok,ubc,folder}")]
    """How the dataset lies on the disk."""
    root: Annotated[Positional[Path], arg(metavar="ROOT")]
    """Its folder, or a manifest (.jsonl)."""
    limit: Number = None
    """Only the first N clips."""
    frames: Number = None
    """Only the first N frames after the reference. Default: all."""
    stride: Annotated[int, arg(metavar="N")] = 1
    """Every N-th frame of a clip."""
    out: Folder = None
    """Keep painted and true frames there, two folders of PNG for each clip: for measures of other
    programs."""
    lpips: File = None
    """Weights of LPIPS's network, SqueezeNet 1.1 as .safetensors; without them it is left out."""
    inception: File = None
    """Weights of FID's and KID's network, torch-fidelity's pt_inception-2015-12-05 as .safetensors; without
    them both are left out."""
    i3d: File = None
    """Weights of FVD's network, StyleGAN-V's i3d_torchscript.pt; without them it is left out."""
    force: Flag = False
    """Replace frames in the folder that is named with --out."""
    verbose: Verbose = False
    """Show the libraries' messages, and tracebacks."""
    model: Annotated[ModelOptions, arg(name="")] = field(default_factory=ModelOptions)

    def run(self) -> None:
        from scd.cli.measure import evaluate_held_out

        evaluate_held_out(self)
