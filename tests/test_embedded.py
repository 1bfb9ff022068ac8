"""The shipped weights: what the card says, what they weigh, and that the reference is what they paint."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

import scd
from scd import evaluate, world
from scd.model import embedded_folder, resolve_dtype

FOLDER = embedded_folder()


@pytest.fixture(scope="module")
def pipe():
    pipe = scd.load("embedded", device="cpu")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_folder_and_card():
    index = json.loads((FOLDER / "model_index.json").read_text())
    assert index["world_version"] == world.VERSION, "pictures changed: train anew"
    assert index["vae"] == ["scd", "PatchCodec"]
    card = (FOLDER / "README.md").read_text()
    assert f"version {world.VERSION}" in card
    assert "| `" in card, "no stage is listed"
    files = list(FOLDER.rglob("*.safetensors"))
    assert sum(f.stat().st_size for f in files) < 64 * 2**20
    for file in files:
        with safe_open(file, "np") as tensors:
            assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"F16"}, file  # noqa: SIM118


def test_stock_diffusers_reads_the_parts():
    from diffusers import DDIMScheduler, UNet2DConditionModel

    UNet2DConditionModel.from_pretrained(FOLDER / "unet")
    assert DDIMScheduler.from_pretrained(FOLDER / "scheduler").config.rescale_betas_zero_snr


def test_it_paints_this_person_in_that_pose(pipe):
    """Eight held-out people: nearer to the truth than copying, and than with the next person's reference."""
    pairs = evaluate.held_out_pairs(8, pipe.config.default_size)
    own = evaluate.mean_psnr(evaluate.paint(pipe, pairs, pairs), pairs)
    other = evaluate.mean_psnr(evaluate.paint(pipe, pairs, [*pairs[1:], pairs[0]]), pairs)
    copy = evaluate.mean_psnr([p.reference for p in pairs], pairs)
    assert own > copy + 2.5
    assert own > other + 2.5


def test_no_reference_is_another_picture(pipe):
    pairs = evaluate.held_out_pairs(1, pipe.config.default_size)
    with_reference, without = (evaluate.paint(pipe, pairs, r)[0] for r in (pairs, None))
    assert np.abs(with_reference.astype(int) - without).mean() > 5


def test_half_precision_costs_less_than_what_it_reads(pipe):
    """Reference, its pose and the target's are still read: each alone changes the picture more."""
    first, second = evaluate.held_out_pairs(2, pipe.config.default_size)
    half = scd.load("embedded", device="cpu", dtype="bfloat16")
    half.set_progress_bar_config(disable=True)

    def painted(pipe, pair):
        return evaluate.paint(pipe, [pair], [pair])[0].astype(int)

    exact = painted(pipe, first)
    error = np.abs(painted(half, first) - exact).mean()
    for other in (
        replace(first, reference=second.reference),
        replace(first, reference_pose=second.reference_pose),
        replace(first, target_pose=second.target_pose),
    ):
        assert np.abs(painted(pipe, other) - exact).mean() > 3 * error


def test_a_device_has_its_precision():
    """Of the CPU's kernels few know float16; an accelerator's weights are halved unless it is said."""
    for name, device, dtype in (
        ("auto", "cuda", torch.float16), ("auto", "cpu", torch.float32), ("auto", "mps", torch.float32),
        ("bfloat16", "cpu", torch.bfloat16), ("float32", "cuda", torch.float32),
    ):  # fmt: skip
        assert resolve_dtype(name, torch.device(device)) == dtype
