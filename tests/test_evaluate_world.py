"""What `scd evaluate world` and `world-video` say is measured on what they say it is: models that are played,
of which every number is known."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from scd import evaluate, evaluate_clips
from scd.metrics.image import detail, psnr, ssim
from scd.metrics.video import jitter, motion
from scd.types import PoseClip

PIPE = SimpleNamespace(
    config=SimpleNamespace(
        default_size=32, default_steps=2, default_guidance=1.5, default_window=4, default_overlap=1
    ),
    scheduler=SimpleNamespace(),
)


def off_by(pictures, levels):
    """Pictures that are wrong by so many levels (a power of two) everywhere."""
    return [picture ^ np.uint8(levels) for picture in pictures]


def wrong_beside(pairs, levels):
    """Right by `levels` where the person is, and twice as wrong beside."""
    spoilt = zip(off_by([p.target for p in pairs], levels), off_by([p.target for p in pairs], 2 * levels))  # noqa: B905
    return [np.where(p.mask[..., None], a, b) for p, (a, b) in zip(pairs, spoilt, strict=True)]


def decibels(levels):
    return 20 * np.log10(255 / levels)


def test_each_number_of_pictures_is_of_its_own_pictures(monkeypatch):
    def paint(pipe, pairs, references, seed, progress):
        assert (pipe, seed) == (PIPE, 5)
        if references is None:
            return off_by([p.target for p in pairs], 8)
        if references[0] is pairs[0]:
            return wrong_beside(pairs, 4)
        assert not any(a is b for a, b in zip(pairs, references, strict=True)), "nobody has their own"
        return off_by([p.target for p in pairs], 16)

    monkeypatch.setattr(evaluate, "paint", paint)
    monkeypatch.setattr(evaluate, "reconstruct", lambda _, pictures: off_by(pictures, 2))
    # Of a person who is found as far from the truth as the picture is wrong
    monkeypatch.setattr(evaluate, "pck", lambda picture, *_: 1 - float(picture[0, 0, 0] % 2) / 10)
    result = evaluate.evaluate_world(PIPE, 3, 5, detector=object())
    pairs = evaluate.held_out_pairs(3, 32)
    painted = wrong_beside(pairs, 4)

    def mean(values):
        return pytest.approx(np.mean(list(values)))

    together = list(zip(painted, pairs, strict=True))
    assert result == {
        "masked_psnr": pytest.approx(decibels(4)),
        "masked_psnr_copy": mean(psnr(p.reference, p.target, p.mask) for p in pairs),
        "masked_psnr_vae": pytest.approx(decibels(2)),
        "masked_psnr_no_reference": pytest.approx(decibels(8)),
        "masked_psnr_other_reference": pytest.approx(decibels(16)),
        "psnr": mean(psnr(y, p.target) for y, p in together),
        "ssim": mean(ssim(y, p.target) for y, p in together),
        "detail": mean(detail(y, p.target, p.mask) for y, p in together),
        "pck": mean(1 - float(y[0, 0, 0] % 2) / 10 for y in painted),
        "pck_truth": mean(1 - float(p.target[0, 0, 0] % 2) / 10 for p in pairs),
        "num_pictures": 3,
        "num_steps": 2,
        "guidance": 1.5,
        "scheduler": "SimpleNamespace",
        "world_version": result["world_version"],
        "model": "embedded",
        "seconds": result["seconds"],
    }


def test_each_number_of_clips_is_of_its_own_frames(monkeypatch):
    """Frames painted one by one are wronger in every second one; with one noise, in every third."""
    seeds = []

    def paint_clip(pipe, case, poses, seed=0, generator=None, **options):
        assert (pipe, options) == (PIPE, {})
        if isinstance(poses, PoseClip):
            seeds.append(seed)
            return case.frames ^ np.uint8(4)
        assert len(poses) == len(case.frames)
        shared = isinstance(generator, list)
        if shared:
            states = [one.get_state() for one in generator]
            assert all((a == b).all() for a, b in pairwise(states))
        return wrong(case.frames, 3 if shared else 2)

    def wrong(frames, every):
        out = frames ^ np.uint8(2)
        out[::every] ^= np.uint8(32)
        return out

    monkeypatch.setattr(evaluate_clips, "paint_clip", paint_clip)
    monkeypatch.setattr(evaluate_clips, "reconstruct", lambda _, pictures: off_by(pictures, 2))
    seams, asked = iter([0.5, 0.9]), []
    monkeypatch.setattr(evaluate_clips, "seam", lambda _, borders: asked.append(borders) or next(seams))
    monkeypatch.setattr(evaluate_clips, "seam_cases", lambda case, num, seed, size: [case, case])
    result = evaluate_clips.evaluate_world_video(PIPE, 2, 4, 7)
    cases = evaluate_clips.held_out_clips(2, 4, 32)

    def mean(judge, change):
        return pytest.approx(np.mean([judge(change(c.frames), c.frames, c.masks) for c in cases]))

    def error(frames, truth, masks):
        return np.mean([psnr(y, x, m) for y, x, m in zip(frames, truth, masks, strict=True) if m.any()])

    assert result["masked_psnr"] == pytest.approx(decibels(4))
    assert result["masked_psnr_picture_model"] == mean(error, lambda x: wrong(x, 2))
    assert result["jitter"] == mean(jitter, lambda x: x ^ np.uint8(4))
    assert result["jitter_truth"] == mean(jitter, lambda x: x ^ np.uint8(2))
    assert result["jitter_framewise"] == mean(jitter, lambda x: wrong(x, 2))
    assert result["jitter_framewise_shared"] == mean(jitter, lambda x: wrong(x, 3))
    assert result["motion"] == mean(motion, lambda x: x ^ np.uint8(4))
    assert result["seam"] == 0.9, "the worse of the moving clip and the still one"
    # Three windows of four frames, each over the last frame of the one before: at steps 0 and 2 alike
    assert asked == [evaluate_clips.window_borders(10, 4, 1, 2)] * 2
    assert len(asked[0]) >= 2
    assert seeds == [7, 8, 7, 7], "of each clip its own noise"
    assert (result["num_clips"], result["num_frames"]) == (2, 4)
