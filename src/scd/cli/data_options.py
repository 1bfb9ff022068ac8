"""What `scd data` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import DisallowNone, Positional, arg

from scd.cli.fields import Count, Device, Flag, Verbose


@dataclass(frozen=True)
class Data:
    """Say whether a dataset can train, prepare it, show how training will see it, encode it, time it.

    A dataset is a folder of videos or of folders of frames, TikTok's or UBCFashion's as they lie on a disk;
    or, for try-on, VITON-HD's or DressCode's; or a manifest that `prepare` wrote. What is found out of clips
    is kept in the manifest, ROOT/scd.jsonl unless -o names another, and in scd/ beside it; in the user's
    cache folder where ROOT cannot be written to.
    """

    what: Annotated[
        Positional[Literal["check", "prepare", "preview", "encode", "bench"]],
        arg(metavar="{check,prepare,preview,encode,bench}"),
    ]
    """check: a report; exit code 2 when it cannot train. prepare: find poses and regions, write the manifest,
    then the report; cut off, it goes on where it was. preview: a sheet of what training sees. encode: latents
    and embeddings, so that no step decodes a picture. bench: samples a second."""
    where: Annotated[Positional[tuple[str, ...]], arg(metavar="[LAYOUT] ROOT|MANIFEST")]
    """The dataset's folder, or a manifest (.jsonl). LAYOUT: tiktok, ubc, folder, vitonhd or dresscode;
    without it the first that fits."""
    size: Annotated[int, arg(metavar="N")] = 512
    """Square root of the pixels of a training picture."""
    out: Annotated[Path | None, DisallowNone, arg(aliases=["-o"], metavar="PATH", help_behavior_hint="")] = (
        None
    )
    """prepare: the manifest, .jsonl. preview: a picture; default: out/NAME.png. encode: the folder, as for
    --data.latents."""
    num: Count = None
    """preview: clips, or pairs; default: 8. bench: samples; default: 64."""
    workers: Annotated[int, arg(metavar="N")] = 1
    """Processes that read, and look for poses."""
    detector: Annotated[str, arg(metavar="mediapipe|dwpose")] = "mediapipe"
    """Who finds the poses."""
    strict: Flag = False
    """check: exit code 2 after any problem, also when it can train."""
    init: Annotated[str, arg(metavar="FOLDER|ID|embedded")] = "embedded"
    """encode: whose VAE; as for `scd train`."""
    image_encoder: Annotated[str, arg(metavar="FOLDER|ID", help_behavior_hint="")] = ""
    """encode: with Stable Diffusion, CLIP ViT-L/14; as for `scd train`."""
    device: Device = "auto"
    """encode: where."""
    force: Flag = False
    """Replace the preview if it exists."""
    verbose: Verbose = False
    """Show the libraries' messages, and tracebacks."""

    def run(self) -> None:
        from scd.cli.data import data

        data(self)
