"""The benchmark: interleaved rounds, and an extract pass only where the reference is read again."""

import json

import pytest
from conftest import make_pipeline

from scd import SCDPipeline, bench
from scd.backbones import unet as backbone
from scd.backbones.motion import new_motion_adapter

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_cache_spares_the_extract_pass(pipe, monkeypatch):
    calls = []
    extract, denoise, timed = backbone.extract, backbone.denoise, bench._timed
    monkeypatch.setattr(backbone, "extract", lambda *a: (calls.append("extract"), extract(*a))[1])
    monkeypatch.setattr(
        backbone,
        "denoise",
        lambda *a: (calls.append("plain" if a[5] is None else f"cached{a[6]}"), denoise(*a))[1],
    )
    monkeypatch.setattr(bench, "_timed", lambda *a: (calls.append("|"), timed(*a))[1])
    monkeypatch.setattr(bench, "WARM_UP", 1)
    rounds = []
    result = bench.bench_pipeline(pipe, 1, progress=rounds.append)
    cached = "cached(-1, 0)"
    one_round = ["|", "plain", "|", cached, "|", "extract", cached, "|", cached]
    assert calls[: 1 + 2 * len(one_round)] == ["extract", *one_round * 2]
    assert rounds == [1] * 2
    json.dumps(result)
    reference = pipe.encode_reference(*_first(pipe))
    assert result["cache_bytes"] == reference.cache.num_bytes
    assert result["read_again_over_cached"] > 1
    assert 2 * result["features_of_all_frames_bytes"] == result["cache_bytes"]  # K and V of one feature
    assert (result["size"], result["num_steps"], result["device"]) == (64, 3, "cpu")


def _first(pipe):
    view = bench.world.Scene.from_seed(0).view(0, size=pipe.config.default_size)
    return view.image, view.pose


def test_ratios_are_medians_over_rounds():
    """A round spoilt for one kind only does not move the result, nor does a slow round for all kinds."""
    below = [1.0, 1.0, 10.0, 1.0, 1.0]
    above = [2.0, 2.0, 20.0, 90.0, 2.0]
    assert bench._ratio(above, below) == pytest.approx(2)


def test_a_clip_of_the_familys_way_projects_once_a_frame(monkeypatch):
    """One reference, five frames: the cache is read as it is; features are projected for each frame."""
    pipe = make_pipeline()
    pipe = SCDPipeline.from_pipe(pipe, motion_adapter=new_motion_adapter(pipe.unet, 2))
    pipe.set_progress_bar_config(disable=True)
    first = bench.world.Scene.from_seed(0).view(0, size=64)
    kinds, held = bench._steps(pipe, first, first, 5)
    projected = []
    layer = next(iter(backbone.spatial_layers(pipe.unet).values()))
    layer.to_k.register_forward_hook(lambda _, given, out: projected.append(len(given[0])))
    results = {name: step() for name, step in kinds.items() if name in ("cached", "anew")}
    assert projected == [10, 10, 5], "the targets' own rows, and then the reference for five frames"
    assert (results["cached"] - results["anew"]).abs().max() < 1e-5
    reference = pipe.encode_reference(first.image, first.pose)
    assert held == 5 * reference.cache.num_bytes / 2
