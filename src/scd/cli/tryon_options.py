"""What `scd mask` and `scd tryon` take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from scd.cli.fields import (
    Canvas,
    Count,
    Detector,
    File,
    Flag,
    ModelOptions,
    OutFile,
    Person,
    Pictures,
    Verbose,
)


@dataclass(frozen=True)
class Mask:
    """Say where a garment is to be painted on a person: a mask, white = generate.

    It comes from the pose and is generous, so that it tells nothing of the garment that is worn; for skirts
    and dresses the person's silhouette widens it. Face, hands and feet are kept out.
    """

    picture: Annotated[Positional[Path], arg(metavar="PERSON")]
    """A picture of the person."""
    category: Annotated[tuple[str, ...], arg(metavar="upper|lower|dress ...")]
    """What the person is to wear; of several the region of all."""
    out: OutFile = None
    """The mask, .png. Default: out/PERSON_CATEGORY.png."""
    preview: File = None
    """Also write the picture with the region tinted."""
    pose: File = None
    """A pose file of the picture, in place of looking for it."""
    canvas: Canvas = None
    """Pixels of the picture behind a pose file that does not say it, as OpenPose's do not."""
    person: Person = None
    """Whom, where the picture shows several: the largest, or number N from the left. Default: largest."""
    detector: Annotated[str, arg(metavar="mediapipe|dwpose")] = "mediapipe"
    """Who finds the pose."""
    pose_only: Flag = False
    """Leave the silhouette out."""
    force: Flag = False
    """Replace files that exist."""
    verbose: Verbose = False
    """Show the libraries' messages, and tracebacks."""

    def run(self) -> None:
        from scd.cli.mask import mask

        mask(self)


@dataclass(frozen=True)
class Tryon:
    """Put garments on the person of a picture; outside the region that is painted no pixel changes.

    GARMENT is a picture of the garment alone, laid flat. The result has PERSON's own size, transparency and
    colours. It carries its settings, and OUT.json beside it repeats it: `scd tryon --like OUT.json`.
    """

    picture: Annotated[Positional[Path | None], arg(metavar="PERSON", help_behavior_hint="")] = None
    """A picture of the person."""
    garments: Annotated[Positional[Pictures], arg(metavar="GARMENT [GARMENT ...]")] = ()
    """Pictures of garments, worn together."""
    category: Annotated[tuple[str, ...], arg(metavar="upper|lower|dress ...", help_behavior_hint="")] = ()
    """What they are, in any order: says where they go, all together, from the person's pose."""
    region: File = None
    """A mask of PERSON that says where, in place of --category: white = generate (see `scd mask`)."""
    preview_region: File = None
    """Write PERSON with the region tinted to FILE.png, and stop."""
    out: OutFile = None
    """The result: .png loses nothing; .jpg and .webp touch every pixel. Default: out/PERSON_GARMENT.png."""
    num: Count = None
    """Pictures, OUT-01.png ...; picture i is the same for any N. Default: 1."""
    sheet: Flag = False
    """Also write OUT-sheet.png: region, garments and result side by side."""
    like: File = None
    """Repeat what this OUT.json (or picture) records. Other options that are given win."""
    person: Person = None
    """Whom, where PERSON shows several: the largest, or number N from the left. Default: largest."""
    detector: Detector = None
    """Who finds the pose. Default: mediapipe."""
    pose: File = None
    """A pose file of PERSON, in place of looking for it."""
    canvas: Canvas = None
    """Pixels of the picture behind a pose file that does not say it, as OpenPose's do not."""
    force: Flag = False
    """Replace files that exist."""
    verbose: Verbose = False
    """Show the libraries' messages, and tracebacks."""
    model: Annotated[ModelOptions, arg(name="")] = field(default_factory=ModelOptions)

    def run(self) -> None:
        from scd.cli.tryon import tryon

        tryon(self)
