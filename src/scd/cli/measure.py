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
    if options.sheet:
        require_free([options.sheet], options.force)
    if options.data == "world-video":
        _evaluate_video(options)
        return
    from scd.evaluate import evaluate_world
    from scd.pose.detect import get_detector

    num = 64 if options.num is None else options.num
    if num < 2:
        raise UserError(f"--num {num}: 2 at least, since one measure paints with another person's reference")
    pipe = load_pipeline(options.model)
    try:
        detector = get_detector()
    except UserError as error:
        detector = None
        log.warning("pck is left out: %s", error)
    with progress("painting", 3 * num) as advance:
        result = evaluate_world(
            pipe,
            num,
            options.model.seed or 0,
            detector,
            options.sheet,
            options.model.model or "embedded",
            advance,
        )
    table(f"{num} held-out people at {pipe.config.default_size} px", result)
    json_line(result)


def _evaluate_video(options: Evaluate) -> None:
    from scd.backbones.motion import has_motion
    from scd.evaluate_clips import evaluate_world_video

    num = 8 if options.num is None else options.num
    if num < 1 or options.frames < 2:
        raise UserError(f"--num {num} --frames {options.frames}: a clip, and two frames, at least")
    pipe = load_pipeline(options.model)
    if not has_motion(pipe.unet):
        raise UserError(
            f"{options.model.model or 'the embedded model'}: has no motion modules; train them: "
            "scd train world-motion --init MODEL"
        )
    with progress("painting", num) as advance:
        result = evaluate_world_video(
            pipe, num, options.frames, options.model.seed or 0, options.sheet,
            options.model.model or "embedded", advance,
        )  # fmt: skip
    table(f"{num} held-out clips at {pipe.config.default_size} px", result)
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
