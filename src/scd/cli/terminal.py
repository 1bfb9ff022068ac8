"""The terminal: libraries kept quiet, notes of one line, progress with the time that is left."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from typing import Any

log = logging.getLogger("scd")

QUIET_SECONDS = 30  # between two lines of progress where there is no terminal
SHOWN = 20  # lines of a long list; the rest is counted

# Read by the libraries when they are imported, which is after this
_SILENCE = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GLOG_minloglevel": "3",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


class _Notes(logging.Handler):
    """Our own log as `scd: ...` on whatever standard error is at that moment (a progress bar replaces it)."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"scd: {record.getMessage()}", file=sys.stderr)


@contextmanager
def quiet(verbose: bool = False) -> Iterator[None]:
    """Inside, only our own notes are seen; afterwards all is as before. `verbose` lets the libraries talk."""
    notes, root = _Notes(), logging.getLogger()
    before = log.level, log.propagate, root.level
    log.addHandler(notes)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False
    with warnings.catch_warnings():
        if not verbose:
            for name, value in _SILENCE.items():
                os.environ.setdefault(name, value)
            root.setLevel(logging.CRITICAL)
            warnings.simplefilter("ignore")
            _silence_loaded()
        try:
            yield
        finally:
            log.removeHandler(notes)
            log.propagate = before[1]
            log.setLevel(before[0])  # not by attribute: loggers remember what is enabled
            root.setLevel(before[2])


def _silence_loaded() -> None:
    """Libraries that were imported before us have read the environment already."""
    for library in ("diffusers", "transformers"):
        if module := sys.modules.get(f"{library}.utils.logging"):
            module.set_verbosity_error()


def no_bars_of_loading() -> None:
    """The libraries' own bars of reading and writing weights are not shown; those of downloads are."""
    from diffusers.utils.logging import disable_progress_bar
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    disable_progress_bar()
    quiet = are_progress_bars_disabled()
    logging.disable_progress_bar()  # downloads' bars with its own
    if not quiet:
        enable_progress_bars()


@contextmanager
def progress(label: str, total: int | None, unit: str = "", done: int = 0) -> Iterator[Callable[..., None]]:
    """A bar on standard error while the block runs, gone afterwards; where that is no terminal, a line with
    the time that is left every half minute.

    The value is called with the number of steps just done, and `text=` to show beside the bar. Without a
    `total` the bar only moves, and no line comes. `done` were done before; `unit` names what is counted.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn()]
    if total is not None:
        columns += [
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(compact=True),
        ]
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(label, total=total, completed=done, text="")
        began = spoken = time.monotonic()
        now_done = done

        def advance(steps: int = 1, text: str = "") -> None:
            nonlocal spoken, now_done
            bars.update(task, advance=steps, text=text)
            now_done, now = now_done + steps, time.monotonic()
            if console.is_terminal or total is None or now - spoken <= QUIET_SECONDS:
                return
            spoken = now
            left = (total - now_done) * (now - began) / max(now_done - done, 1) / 60
            counted = " ".join(filter(None, [f"{now_done:,} of {total:,}", unit]))
            print(
                ", ".join(filter(None, [f"{label}: {counted}", text, f"{ceil(left)} min left"])),
                file=sys.stderr,
            )

        yield advance


def table(title: str, rows: Mapping[str, Any]) -> None:
    """Names and values on standard output."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, show_header=False, title_justify="left")
    shown.add_column(style="bold")
    shown.add_column(justify="right")
    for name, value in rows.items():
        shown.add_row(name, value if isinstance(value, str) else _short(value))
    Console().print(shown)


def json_line(values: Mapping[str, Any]) -> None:
    """One line of JSON on standard output, the last that a verb prints."""
    print(json.dumps(dict(values)), flush=True)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
