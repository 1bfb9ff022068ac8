"""`scd evaluate` and `scd bench`: numbers as a table for people and one last line of JSON for programs."""

from __future__ import annotations

import logging

from scd.cli.job import require_free
from scd.cli.models import load_pipeline
from scd.cli.options import Bench, Evaluate
from scd.cli.terminal import json_line, progress, table
from scd.types import UserError

log = logging.getLogger("scd")


def evaluate(options: Evaluate) -> None:
    """Run the verb. Raises UserError."""
    from scd.evaluate import evaluate_world
    from scd.pose.detect import get_detector

    if options.num < 2:
        raise UserError(
            f"--num {options.num}: 2 at least, since one measure paints with another person's reference"
        )
    if options.sheet:
        require_free([options.sheet], options.force)
    pipe = load_pipeline(options.model)
    try:
        detector = get_detector()
    except UserError as error:
        detector = None
        log.warning("pck is left out: %s", error)
    with progress("painting", 3 * options.num) as advance:
        result = evaluate_world(
            pipe,
            options.num,
            options.model.seed or 0,
            detector,
            options.sheet,
            options.model.model or "embedded",
            advance,
        )
    table(f"{options.num} held-out people at {pipe.config.default_size} px", result)
    json_line(result)


def bench(options: Bench) -> None:
    """Run the verb. Raises UserError."""
    from scd.bench import bench_pipeline

    if options.num < 1:
        raise UserError(f"--num {options.num}: one round at least")
    pipe = load_pipeline(options.model, trained=False)
    with progress("timing", options.num + 2) as advance:
        result = bench_pipeline(pipe, options.num, options.model.seed or 0, advance)
    result["model"] = options.model.model or "embedded"
    table("one guided denoising step, and a picture", result)
    json_line(result)
