"""`scd evaluate` and `scd bench`: numbers as a table for people and one last line of JSON for programs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from scd.cli.evaluations import Evaluate, EvaluateHeldOut, EvaluatePairs
from scd.cli.job import ENDINGS, require_free
from scd.cli.models import load_pipeline
from scd.cli.options import Bench, ModelOptions
from scd.cli.terminal import SHOWN, json_line, progress, table
from scd.types import UserError

log = logging.getLogger("scd")
SMALLEST_SIDE = 32  # pixels of a picture that is painted


def evaluate(options: Evaluate) -> None:
    """Run the verb. Raises UserError."""
    if options.lpips and options.data != "world-tryon":
        raise UserError(f"--lpips: of world-tryon, not of {options.data}; leave it out")
    if options.frames is not None and options.data != "world-video":
        raise UserError(f"--frames: of world-video, not of {options.data}; leave it out")
    if options.sheet:
        if options.sheet.suffix.lower() not in ENDINGS:
            raise UserError(f"{options.sheet}: a sheet's name ends in {', '.join(ENDINGS)}")
        require_free([options.sheet], options.force)
    if options.data == "world-video":
        _evaluate_video(options)
        return
    if options.data == "world-tryon":
        _evaluate_tryon(options)
        return
    from scd.evaluate import evaluate_world

    num = 64 if options.num is None else options.num
    if num < 2:
        raise UserError(f"--num {num}: 2 at least, since one measure paints with another person's reference")
    pipe = load_pipeline(options.model)
    detector = _detector()
    with progress("painting", 3 * num) as advance:
        result = evaluate_world(
            pipe,
            num,
            options.model.seed or 0,
            detector,
            options.sheet,
            options.model.name,
            advance,
        )
    table(f"{num} held-out people at {pipe.config.default_size} px", result)
    json_line(result)


def _evaluate_video(options: Evaluate) -> None:
    from scd.backbones.motion import has_motion
    from scd.evaluate_clips import evaluate_world_video

    num = 8 if options.num is None else options.num
    frames = 24 if options.frames is None else options.frames
    if num < 1 or frames < 2:
        raise UserError(f"--num {num} --frames {frames}: a clip, and two frames, at least")
    pipe = load_pipeline(options.model)
    if not has_motion(pipe.unet):
        raise UserError(
            f"{options.model.model or 'the embedded model'}: has no motion modules; train them: "
            "scd train world-motion --init MODEL"
        )
    with progress("painting", num) as advance:
        result = evaluate_world_video(
            pipe, num, frames, options.model.seed or 0, options.sheet,
            options.model.name, advance,
        )  # fmt: skip
    table(f"{num} held-out clips at {pipe.config.default_size} px", result)
    json_line(result)


def _evaluate_tryon(options: Evaluate) -> None:
    from scd.evaluate_tryon import evaluate_world_tryon

    num = 32 if options.num is None else options.num
    if num < 1:
        raise UserError(f"--num {num}: one person at least")
    pipe = load_pipeline(options.model)
    lpips = _lpips(options, pipe)
    with progress("painting", 9 * num) as advance:  # at most: not everybody wears two pieces
        result = evaluate_world_tryon(
            pipe, num, options.model.seed or 0, options.sheet, options.model.name, lpips,
            advance,
        )  # fmt: skip
    table(f"{num} people in other clothes, at {pipe.config.default_size} px", result)
    json_line(result)


def evaluate_pairs(options: EvaluatePairs) -> None:
    """Run the verb on a try-on dataset. Raises UserError."""
    from scd import evaluate_viton_hd as pairs_of
    from scd.data.tryon import find_pairs
    from scd.metrics import distribution, image, perceptual

    size = _size(options.size)
    _require_sense(options)
    layout = find_pairs(options.root, options.data)
    pairs = pairs_of.choose_pairs(layout, not options.unpaired, options.category, options.limit)
    names = pairs_of.names_of(pairs)
    if options.out:
        require_free([options.out / f"{name}.png" for name in names.values()], options.force)
    missing = pairs_of.missing_pictures(layout)
    for line in [*missing[:SHOWN], *(["..."] if len(missing) > SHOWN else [])]:
        log.warning("left out: %s", line)
    model: dict[str, Any] = dict.fromkeys(("num_steps", "guidance", "scheduler", "dtype", "seed", "model"))
    pipe = None
    if options.predictions:
        everybody = pairs_of.choose_pairs(layout, not options.unpaired)
        found = pairs_of.match_predictions(options.predictions, pairs, everybody)
        paintings = pairs_of.read_predictions(found, size)
    else:
        pipe = load_pipeline(options.model)
        _require_fit(pipe, size)
        seed = options.model.seed or 0
        model = _settings(pipe, options.model)
        paintings = pairs_of.paint_pairs(pipe, pairs, size, options.paste_back, seed, options.batch)
    lpips = _lpips(options, pipe)
    inception = _inception(options, pipe)
    with progress("painting" if pipe else "measuring", len(pairs)) as advance:
        numbers = pairs_of.evaluate_pairs(
            paintings, names, options.out, options.force, lpips, inception, advance
        )
    setting = "unpaired" if options.unpaired else "paired"
    result = {
        **numbers, "num_missing": len(missing),
        "data": options.data, "root": str(options.root), "setting": setting,
        "categories": list(options.category) or sorted({pair.category for pair in pairs}),
        "limit": options.limit, "height": size[0], "width": size[1],
        "paste_back": None if options.predictions else options.paste_back,
        "predictions": str(options.predictions) if options.predictions else None,
        "ssim_of": image.SSIM, "lpips_of": perceptual.NET if lpips else None,
        "fid_of": distribution.FLAVOUR if inception else None, **model,
    }  # fmt: skip
    shown = {name: ", ".join(value) if isinstance(value, list) else value for name, value in result.items()}
    table(f"{options.root}: {result['num_pairs']} {setting} pairs at {size[0]} x {size[1]}", shown)
    if layout.note:
        print(f"licence: {layout.note}")
    json_line(result)


def evaluate_held_out(options: EvaluateHeldOut) -> None:
    """Run the verb on a dataset of clips. Raises UserError."""
    from scd import evaluate_held_out as held_out
    from scd.animate import note_flicker
    from scd.data.buckets import Buckets
    from scd.data.layouts import find_clips
    from scd.metrics import distribution, image, perceptual

    for name, least in (("limit", 1), ("frames", 2), ("stride", 1)):
        if (value := getattr(options, name)) is not None and value < least:
            raise UserError(f"--{name} {value}: {least} at least")
    layout = find_clips(options.root, options.data)
    if layout.kind != options.data:
        raise UserError(f"{options.root}: lists {layout.kind}; scd evaluate {layout.kind} {options.root}")
    clips = held_out.held_out_clips(layout, options.limit)
    pipe = load_pipeline(options.model)
    shots = held_out.longest_shots(layout, clips, Buckets.of(pipe.config))
    if options.out:
        folders = [options.out / part for part in ("painted", "truth")]
        require_free([f / name for f in folders for name in held_out.names_of(shots)], options.force)
    note_flicker(pipe)
    lpips, inception, detector = _lpips(options, pipe), _inception(options, pipe), _detector()
    if options.i3d is None:
        log.info("fvd is left out: --i3d names no weights (%s)", distribution.I3D)
    video = distribution.load_i3d(options.i3d, pipe.device) if options.i3d else None
    with progress("painting", len(shots)) as advance:
        numbers = held_out.evaluate_held_out(
            pipe, shots, options.stride, options.frames, options.model.seed or 0, options.out, options.force,
            detector, lpips, inception, video, advance,
        )  # fmt: skip
    result = {
        **numbers, "num_broken": numbers["num_broken"] + len(clips) - len(shots),
        "data": options.data, "root": str(options.root), "limit": options.limit, "frames": options.frames,
        "stride": options.stride, "size": pipe.config.default_size, "ssim_of": image.SSIM,
        "lpips_of": perceptual.NET if lpips else None, "fid_of": distribution.FLAVOUR if inception else None,
        "fvd_of": distribution.FVD_FLAVOUR if video else None,
        **_settings(pipe, options.model),
    }  # fmt: skip
    table(f"{options.root}: {result['num_clips']} held-out clips, {result['num_frames']} frames", result)
    if layout.note:
        print(f"licence: {layout.note}")
    json_line(result)


def _settings(pipe: Any, options: ModelOptions) -> dict[str, Any]:
    """What numbers on a dataset were measured with."""
    return {
        "num_steps": pipe.config.default_steps, "guidance": pipe.config.default_guidance,
        "scheduler": type(pipe.scheduler).__name__, "dtype": str(pipe.dtype).removeprefix("torch."),
        "seed": options.seed or 0, "model": options.name,
    }  # fmt: skip


def _require_sense(options: EvaluatePairs) -> None:
    if options.paired and options.unpaired:
        raise UserError("--paired --unpaired: one at a time, they are numbers of two kinds")
    for name in ("limit", "batch"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UserError(f"--{name} {value}: one at least")
    if options.out and options.predictions:
        raise UserError("--out --predictions: those pictures are there already; leave --out away")


def _size(text: str) -> tuple[int, int]:
    """ "512x384", as the field says sizes -> (height, width)."""
    height, _, width = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(height), int(width)) >= SMALLEST_SIDE):
        raise UserError(f"--size {text}: write HEIGHTxWIDTH in pixels, {SMALLEST_SIDE} at least: 512x384")
    return int(height), int(width)


def _require_fit(pipe: Any, size: Sequence[int]) -> None:
    """UserError for sides that the model cannot paint; a line for a size far from what it was trained at."""
    factor, trained = pipe.vae_scale_factor, pipe.config.default_size
    if size[0] % factor or size[1] % factor:
        raise UserError(f"--size {size[0]}x{size[1]}: multiples of {factor}, which this model's sides are")
    if not 0.5 < size[0] * size[1] / trained**2 < 2:
        log.warning(
            "this model was trained at %d px: --size %dx%d is far from that", trained, size[0], size[1]
        )


def _detector() -> Any:
    """MediaPipe, or None and a line that says so."""
    from scd.pose.detect import get_detector

    try:
        return get_detector()
    except UserError as error:
        log.warning("pck is left out: %s", error)
        return None


def _inception(options: EvaluatePairs | EvaluateHeldOut, pipe: Any) -> Any:
    """FID and KID, or None and a line that says so."""
    from scd.metrics.distribution import WEIGHTS, load_inception

    if options.inception is None:
        log.info("fid and kid are left out: --inception names no weights (%s)", WEIGHTS)
        return None
    return load_inception(options.inception, pipe.device if pipe else "cpu")


def _lpips(options: Evaluate | EvaluatePairs | EvaluateHeldOut, pipe: Any) -> Any:
    """The measure, or None and a line that says so."""
    from scd.metrics.perceptual import NET, load_lpips

    if options.lpips is None:
        log.info("lpips is left out: --lpips names no weights (%s)", NET.partition(",")[0])
        return None
    return load_lpips(options.lpips, pipe.device if pipe else "cpu")


def bench(options: Bench) -> None:
    """Run the verb. Raises UserError."""
    from scd.bench import KINDS, WARM_UP, bench_pipeline

    if options.num < 1:
        raise UserError(f"--num {options.num}: one round at least")
    if options.frames < 1:
        raise UserError(f"--frames {options.frames}: one at least")
    pipe = load_pipeline(options.model, trained=False)
    with progress("timing", len(KINDS) * (options.num + WARM_UP)) as advance:
        result = bench_pipeline(pipe, options.num, options.model.seed or 0, advance, options.frames)
    result["model"] = options.model.name
    table("one guided denoising step, and a picture", result)
    json_line(result)
