"""The benchmark: interleaved rounds, and an extract pass only where the reference is read again."""

import json
import sys

import pytest
import torch
from conftest import make_pipeline

from scd import SCDPipeline, bench
from scd.backbones import unet as backbone
from scd.backbones.motion import new_motion_adapter

TOLD = pytest.mark.skipif(
    sys.platform != "linux" or not bench._count_anew(), reason="nobody tells a kind's memory here"
)
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
    steps = []
    result = bench.bench_pipeline(pipe, 2, progress=steps.append)
    cached = "cached(-1, 0)"
    # Memory first, a kind at a time, and each twice; then what kinds hold is made, and rounds are timed
    assert calls[:10] == ["plain", "plain", "extract", cached, cached, *["extract", cached] * 2, cached]
    one_round = ["|", "plain", "|", cached, "|", "extract", cached, "|", cached]
    assert calls[10 : 12 + 2 * len(one_round)] == [cached, "extract", *one_round * 2]
    assert steps == [1] * len(bench.KINDS) * (2 + bench.WARM_UP)
    json.dumps(result)
    reference = pipe.encode_reference(*_first(pipe))
    assert result["cache_bytes"] == reference.cache.num_bytes
    assert result["read_again_over_cached"] > 1
    assert result["read_again_over_cached_cpu"] > 1
    assert result["flops_without"] < result["flops_cached"] < result["flops_anew"] < result["flops_again"]
    assert 2 * result["features_of_all_frames_bytes"] == result["cache_bytes"]  # K and V of one feature
    assert (result["size"], result["num_steps"], result["device"]) == (64, 3, "cpu")
    assert result["peak_memory_bytes"] >= max(result[f"peak_{name}_bytes"] or 0 for name in bench.KINDS)


def test_operations_are_those_of_the_formula():
    x, heads = torch.randn(2, 3, 8, 8), torch.randn(1, 2, 64, 16)
    convolution = torch.nn.Conv2d(3, 5, 3, padding=1)
    assert bench._flops_of(lambda: convolution(x)) == 2 * (2 * 64) * 5 * (3 * 9)
    attention = torch.nn.functional.scaled_dot_product_attention
    with torch.no_grad():
        assert bench._flops_of(lambda: attention(heads, heads, heads)) == 2 * 2 * 2 * 64 * 64 * 16


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
    made = {name: make() for name, make in bench._makers(pipe, first, first, 5).items()}
    projected = []
    layer = next(iter(backbone.spatial_layers(pipe.unet).values()))
    layer.to_k.register_forward_hook(lambda _, given, out: projected.append(len(given[0])))
    results = {name: made[name][0]() for name in ("cached", "anew")}
    assert projected == [10, 10, 5], "the targets' own rows, and then the reference for five frames"
    assert (results["cached"] - results["anew"]).abs().max() < 1e-5
    reference = pipe.encode_reference(first.image, first.pose)
    assert made["anew"][1] == 5 * reference.cache.num_bytes / 2


@TOLD
def test_the_memory_of_one_kind_is_its_own():
    """The process's peak of what ran before does not count, nor does what it gave back."""
    cpu, mib = torch.device("cpu"), 2**20
    few, many = (lambda n=n: torch.ones(n * mib, dtype=torch.uint8).amax() for n in (20, 200))
    peaks = [bench._peak_of(work, cpu) for work in (few, many, few)]
    assert peaks[1] - peaks[0] == pytest.approx(180 * mib, abs=20 * mib)
    assert peaks[2] - peaks[0] == pytest.approx(0, abs=20 * mib)


def test_where_nobody_tells_the_memory_it_is_none(pipe, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(bench.Path, "write_text", refuse)
    result = bench.bench_pipeline(pipe, 1)
    assert {result[f"peak_{name}_bytes"] for name in bench.KINDS} == {None}
    assert result["peak_memory_bytes"] > 0
