"""`scd VERB ...`: one verb in, one exit code out; what the user can mend is one line on standard error."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from scd.types import UserError

VERBS = {
    "animate": "paint the person of a picture in other poses",
    "tryon": "put a garment on the person of a picture",
    "pose": "find the people in a picture, or convert a pose file",
    "mask": "say where a garment goes on the person of a picture",
    "data": "check, prepare or preview a dataset of clips, or for try-on",
    "train": "train a model",
    "export": "write what a run learnt as a folder to publish",
    "convert": "write public weights as a model folder",
    "evaluate": "measure a model on held-out people with exact truth, or on a dataset",
    "world": "draw people of the procedural world",
    "demo": "open a page: a photo and a driving clip in, a clip out",
    "bench": "time a model",
    "doctor": "say what is installed and what is missing",
}
_TRAIN = (
    "Train a model with a preset's settings, any of which can be changed: "
    "`scd train PRESET --help` lists them. `--data MANIFEST`, or the folder of a dataset, trains on real "
    "pictures (`scd data`). The same command again continues where it stopped."
)
INTERRUPTED, MENDABLE = 130, 2  # exit codes: the shell's for Ctrl-C; what the user can mend


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 after an error the user can mend, 130 after Ctrl-C or a
    polite kill."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verbose = "-v" in arguments or "--verbose" in arguments
    try:
        command = _parse(arguments)
        if command is None:
            return 0
        from scd.cli.signals import polite_kills
        from scd.cli.terminal import quiet

        # Processes that share the work of `data` end when it is killed; politely it would wait for them
        polite = contextlib.nullcontext() if arguments[0] == "data" else polite_kills()
        with polite, quiet(verbose):
            code = command.run() or 0
        sys.stdout.flush()  # where a closed pipe is noticed
        return code
    except KeyboardInterrupt as error:
        print(f"scd: {str(error) or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `scd ... | head`: nobody reads on
        with contextlib.suppress(OSError, ValueError):  # no descriptor, as in a test
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        line = one_line(error)
        if line is None:
            raise
        if verbose:
            traceback.print_exc()
        print(f"scd: {line}", file=sys.stderr)
        return MENDABLE


def _parse(arguments: list[str]) -> Any:
    """The verb's options, ready to `run()`; None when help or the version was asked for and printed."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return None
    if arguments[0] == "--version":
        from scd import __version__

        print(f"scd {__version__}")
        return None
    verb, *rest = arguments
    if verb not in VERBS:
        raise UserError(f"there is no verb {verb!r}{similar(verb, VERBS)}: `scd --help` lists them")
    import tyro

    options, program = _options(verb, rest), f"scd {verb}"
    if verb == "train":
        rest = [re.sub(r"^--data(?==|$)", "--data.root", word) for word in rest]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(options, prog=program, args=rest, description=_TRAIN if verb == "train" else None)
    except SystemExit as stopped:
        if stopped.code:
            raise UserError(_flat(said.getvalue(), program)) from None
        return None


def _options(verb: str, rest: list[str]) -> Any:
    """The type that tyro fills for this verb."""
    from scd.cli import evaluations, options
    from scd.config import CLIP_KINDS, PRESETS, TRYON_KINDS, for_memory

    if verb == "evaluate":
        data = rest[0] if rest else ""
        if data in CLIP_KINDS:
            return evaluations.EvaluateHeldOut
        return evaluations.EvaluatePairs if data in TRYON_KINDS else evaluations.Evaluate
    if verb != "train":
        return getattr(options, verb.capitalize())
    import tyro

    if rest and not rest[0].startswith("-") and rest[0] not in PRESETS:
        raise UserError(
            f"there is no preset {rest[0]!r}{similar(rest[0], PRESETS)}: use {', '.join(PRESETS)}"
        )
    known = dict(PRESETS)
    memory = re.search(r"(?:^| )--memory[= ](\d+)(?: |$)", " ".join(rest))
    if memory and rest[0] in PRESETS:
        known[rest[0]] = for_memory(PRESETS[rest[0]], int(memory[1]))
    presets = {name: options.Train(config) for name, config in known.items()}
    described = {name: f"{c.steps:,} steps at {c.data.size} px" for name, c in PRESETS.items()}
    return tyro.extras.subcommand_type_from_defaults(presets, descriptions=described)


def _help() -> str:
    rows = "\n".join(f"    {verb:10} {text}" for verb, text in VERBS.items())
    return (
        "usage: scd VERB ...\n\n"
        "Consistent pictures of people from one reference picture.\n\n"
        f"{rows}\n\n"
        "`scd VERB --help` explains a verb; `scd --version` says which version this is.\n"
        "A first picture: scd animate REFERENCE POSE, both pictures of people."
    )


def similar(word: str, known: Any) -> str:
    """What somebody who misspelt one of `known` is asked; else nothing."""
    close = difflib.get_close_matches(word, known, 1)
    return f", did you mean {close[0]!r}?" if close else ""


def _flat(box: str, program: str) -> str:
    """tyro's framed error text as one line: its first paragraph, and the options that it suggests."""
    lines = [line.strip("│| \n") for line in box.splitlines()]
    rule = re.compile(r"^[─╭╰├]|^\+?-{3}")
    paragraphs, current = [], []
    for line in lines:
        if rule.match(line):
            paragraphs.append(" ".join(current))
            current = []
        elif line:
            current.append(line)
    if not box.startswith("╭"):  # drawn in ASCII, with the title in a paragraph of its own
        paragraphs = paragraphs[1:] if paragraphs[0] else paragraphs[2:]
    first, *others = [p for p in [*paragraphs, " ".join(current)] if p] or ["these options cannot be read"]
    suggested = [
        word for p in others if p.startswith("Perhaps") for word in re.findall(r"(?<!\S)--?[a-z][\w.-]*", p)
    ]
    suggested = [word for word in dict.fromkeys(suggested) if word != "--help"]
    hint = f"; did you mean {' or '.join(suggested[:3])}?" if suggested else ""
    return f"{first[:1].lower()}{first[1:]}{hint} (`{program} --help` explains)"


def one_line(error: Exception) -> str | None:
    """What to tell the user; None for what only a programmer can mend."""
    # Of an error in a process that reads data, torch tells the traceback too
    text = re.sub(r"(?s)^Caught \w+ in DataLoader worker.*\n[\w.]*UserError: ", "", str(error))
    text = " ".join(text.split())
    if (
        type(error).__name__ == "OutOfMemoryError"
        or isinstance(error, MemoryError)
        or _is_allocation(error, text)
    ):
        return "not enough memory: use a smaller --size, a smaller -n, --dtype bfloat16, or --device cpu"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, UserError | OSError | ValueError):  # StaleReference is a ValueError
        return text or type(error).__name__
    return None


def _is_allocation(error: Exception, text: str) -> bool:
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
