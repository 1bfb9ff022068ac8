"""Fields that several verbs take: their types and names on the command line, and how a model is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import DisallowNone, FlagCreatePairsOff, arg

from scd.media.files import exists_already
from scd.types import UserError

# None stands for "not said": the default is then the model's own, or what `--like` recorded.
Flag = Annotated[bool, FlagCreatePairsOff, arg(help_behavior_hint="")]
Verbose = Annotated[bool, FlagCreatePairsOff, arg(aliases=["-v"], help_behavior_hint="")]
OutFile = Annotated[Path | None, DisallowNone, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")]
File = Annotated[Path | None, DisallowNone, arg(metavar="FILE", help_behavior_hint="")]
Number = Annotated[int | None, DisallowNone, arg(metavar="N", help_behavior_hint="")]
Count = Annotated[int | None, DisallowNone, arg(aliases=["-n"], metavar="N", help_behavior_hint="")]
Pictures = Annotated[tuple[Path, ...], arg(metavar="PICTURE ...", help_behavior_hint="")]
Detector = Annotated[str | None, DisallowNone, arg(metavar="mediapipe|dwpose", help_behavior_hint="")]
Person = Annotated[str | None, DisallowNone, arg(metavar="largest|N", help_behavior_hint="")]
Seconds = Annotated[float | None, DisallowNone, arg(metavar="SECONDS", help_behavior_hint="")]
Canvas = Annotated[str | None, DisallowNone, arg(metavar="WIDTHxHEIGHT", help_behavior_hint="")]
Kind = Annotated[
    Literal["upper", "lower", "dress"] | None,
    DisallowNone,
    arg(metavar="upper|lower|dress", help_behavior_hint=""),
]
Device = Literal["auto", "cuda", "mps", "cpu"]


@dataclass(frozen=True)
class ModelOptions:
    """Which model, where, and how it paints."""

    model: Annotated[str | None, DisallowNone, arg(metavar="FOLDER|ID", help_behavior_hint="")] = None
    """A model folder, or the id of one on the Hugging Face hub. Default: embedded, the package's own."""
    lora: Annotated[tuple[str, ...], arg(metavar="FILE[:WEIGHT] ...", help_behavior_hint="")] = ()
    """LoRA files, .safetensors (diffusers', kohya's layout), in their full strength or WEIGHT of it."""
    device: Device = "auto"
    """auto: the first accelerator there is."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: float16 on CUDA, float32 elsewhere."""
    steps: Number = None
    """Denoising steps. Default: the model's own."""
    guidance: Annotated[float | None, DisallowNone, arg(metavar="SCALE", help_behavior_hint="")] = None
    """Strength of the reference; 1 is unguided and takes half the time. Default: the model's own."""
    scheduler: Annotated[str | None, DisallowNone, arg(metavar="NAME", help_behavior_hint="")] = None
    """Sampler, by diffusers' name: DDIM, UniPCMultistep, ... Default: the model's own."""
    seed: Number = None
    """Of the initial noise. Default: 0."""
    size: Number = None
    """Square root of the pixels that the model paints: photographs in about their own aspect, drawn people in
    squares. Default: what it was trained at."""

    @property
    def name(self) -> str:
        """What a report calls the model."""
        return " + ".join([self.model or "embedded", *self.lora])

    @property
    def other(self) -> bool:
        """Whether `--like` is asked for with another model than it recorded."""
        return self.model is not None or bool(self.lora)


def claim(out: Path, source: Path, force: bool) -> None:
    """Make sure that a folder may be written to `out`, which replaces what is there. Raises UserError where
    it holds the source, or anything but a model."""
    if source.resolve().is_relative_to(out.resolve()) or out.resolve() == (source / "model").resolve():
        raise UserError(f"{out} is what is read, or holds it: choose another name")
    if not out.exists():
        return
    if not force:
        raise exists_already(out)
    if not any((out / name).exists() for name in ("model_index.json", "lora.safetensors")):
        raise UserError(f"{out} is no model that could be replaced: choose another name")
