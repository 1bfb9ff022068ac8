"""`scd convert`: public weights in their authors' files, written as a model folder of ours."""

from __future__ import annotations

from scd.cli.options import Convert
from scd.cli.terminal import progress
from scd.types import UserError


def convert(options: Convert) -> None:
    """Run the verb and print the folder's name. UserError: what is missing, damaged or another network's."""
    if options.out.exists() and not options.force:
        raise UserError(f"{options.out} exists already: choose another name, or --force to replace it")
    if options.out.resolve() == options.folder.resolve():
        raise UserError(f"{options.out} is what is converted: choose another name")
    from scd import animate_anyone, checkpoint
    from scd.model import resolve_dtype
    from scd.pipeline import SCDPipeline

    with progress("reading", None):
        pipe = SCDPipeline(**animate_anyone.components(options.folder, options.vae, options.image_encoder))
    with progress("writing", None):
        checkpoint.export(pipe, options.out, resolve_dtype(options.dtype, pipe.device))
    print(options.out)
