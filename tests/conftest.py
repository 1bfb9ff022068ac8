"""Small networks of the true shape, with random weights; every test makes its own values from a seed."""

from __future__ import annotations

import os
import platform

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for a hub must fail, not wait
if platform.machine().lower() in ("x86_64", "amd64"):
    # NumPy's products differ in the last bit between kernels, and a pixel of 80 drawn pictures by 11 levels:
    # on a Sapphire Rapids golden losses were 0.0016 away from an Ice Lake's, with one kernel 2e-6
    os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from scd.pipeline import SCDPipeline
from scd.pose_encoder import PoseEncoder
from scd.types import NUM_JOINTS, Pose


def make_unet(channels=(32, 64), layers=1, context=16, **kwargs) -> UNet2DConditionModel:
    torch.manual_seed(0)
    num = len(channels)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=channels,
        layers_per_block=layers,
        down_block_types=("CrossAttnDownBlock2D",) * num,
        up_block_types=("CrossAttnUpBlock2D",) * num,
        cross_attention_dim=context,
        attention_head_dim=tuple(c // 16 for c in channels),
        norm_num_groups=8,
        **kwargs,
    ).eval()


def make_pose_encoder(out_channels=32, zero=False) -> PoseEncoder:
    torch.manual_seed(1)
    encoder = PoseEncoder(out_channels, (4, 8, 8, 16)).eval()
    if not zero:
        torch.nn.init.normal_(encoder.conv_out.weight, std=0.5)
    return encoder


def make_scheduler(**kwargs) -> DDIMScheduler:
    defaults = {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "clip_sample": False,
    }
    return DDIMScheduler(**{**defaults, **kwargs})


def make_vae() -> AutoencoderKL:
    torch.manual_seed(2)
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        sample_size=64,
    ).eval()


def make_pipeline(image_encoder=None, **kwargs) -> SCDPipeline:
    pipe = SCDPipeline(
        make_vae(),
        make_unet(),
        make_pose_encoder(),
        make_scheduler(),
        image_encoder,
        default_size=64,
        default_steps=3,
        default_guidance=2.0,
        **kwargs,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_clip(projection_dim=16):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(3)
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
            projection_dim=projection_dim,
        )
    ).eval()


def make_pose(seed: int, size=(64, 64)) -> Pose:
    rng = np.random.default_rng(seed)
    return Pose(
        rng.uniform(0.1, 0.9, (NUM_JOINTS, 2)).astype(np.float32), np.ones(NUM_JOINTS, np.float32), size
    )


def make_picture(seed: int, size=(64, 64)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def unet():
    from scd.backbones.unet import adapt

    return adapt(make_unet())


@pytest.fixture
def pipe():
    return make_pipeline()


@pytest.fixture(scope="module")
def one_thread():
    """Networks this small gain nothing from a second thread, and lose much where it is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def scd(capsys):
    """Run a command in this process: (exit code, standard output, standard error)."""
    from scd.cli import main

    def run(*arguments):
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return run
