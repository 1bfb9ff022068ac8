"""`scd convert`: public weights in their authors' files, written as a model folder of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from scd.cli.fields import File, Flag, Verbose, claim


@dataclass(frozen=True)
class Convert:
    """Write public weights as a model folder, for `--model`.

    animate-anyone: FOLDER holds denoising_unet, reference_unet, pose_guider and motion_module, .pth or
    .safetensors, and beside them sd-vae-ft-mse/ and image_encoder/. Files are read as tensors only; nothing
    in them is executed.
    """

    family: Annotated[Positional[Literal["animate-anyone"]], arg(metavar="animate-anyone")]
    """Whose weights they are."""
    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Where the files lie."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """The new model folder."""
    vae: File = None
    """The VAE's folder, where it is not in FOLDER."""
    image_encoder: File = None
    """The CLIP image encoder's folder, where it is not in FOLDER."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    """Of the written weights; float16 is half the size."""
    force: Flag = False
    """Replace OUT."""
    verbose: Verbose = False
    """Show the libraries' messages, and tracebacks."""

    def run(self) -> None:
        convert(self)


def convert(options: Convert) -> None:
    """Run the verb and print the folder's name. UserError: what is missing, damaged or another network's."""
    claim(options.out, options.folder, options.force)
    from scd import animate_anyone, checkpoint
    from scd.cli.terminal import no_bars_of_loading, progress
    from scd.model import resolve_dtype
    from scd.pipeline import SCDPipeline

    no_bars_of_loading()
    with progress("reading", None):
        pipe = SCDPipeline(**animate_anyone.components(options.folder, options.vae, options.image_encoder))
    with progress("writing", None):
        checkpoint.export(pipe, options.out, resolve_dtype(options.dtype, pipe.device))
    print(options.out)
