"""Stable Diffusion 1.5 folders, new and as old as they lie on people's disks: a starting point, every key
accounted for."""

import json
import shutil

import pytest
import torch
from conftest import make_picture, make_pose
from diffusers import MotionAdapter, UNet2DConditionModel
from family_folder import authors_state
from safetensors.torch import load_file, save_file
from sd15_folder import TINY_MOTION, TINY_UNET, V1_5_2, age, make, make_adapter
from test_animatediff import make_adapter as make_authors_adapter

from scd import SCDPipeline
from scd.backbones import motion
from scd.stable_diffusion import UNET
from scd.types import PoseClip, UserError


@pytest.fixture(scope="module")
def new_folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("new")
    make(base / "sd", base / "clip", tiny=True)
    return base / "sd", base / "clip"


@pytest.fixture
def folders(new_folders, tmp_path):
    for name, source in zip(("sd", "clip"), new_folders, strict=True):
        shutil.copytree(source, tmp_path / name)
    return tmp_path / "sd", tmp_path / "clip"


def test_a_folder_of_today(folders):
    pipe = SCDPipeline.from_stable_diffusion(*folders)
    state = load_file(folders[0] / "unet" / "diffusion_pytorch_model.safetensors")
    assert pipe.unet.state_dict().keys() == state.keys()
    assert all(torch.equal(state[k], v) for k, v in pipe.unet.state_dict().items())
    config = pipe.scheduler.config
    assert (config.prediction_type, config.rescale_betas_zero_snr, config.timestep_spacing) == (
        "v_prediction", True, "trailing",
    )  # fmt: skip
    assert (config.beta_start, config.beta_end, config.beta_schedule) == (0.00085, 0.012, "scaled_linear")
    assert pipe.scheduler.alphas_cumprod[-1] == 0
    assert not pipe.pose_encoder.is_trained
    assert pipe.config.default_size == 64


def test_epsilon_keeps_the_schedule_it_was_trained_with(folders):
    """Noise has no last step of pure noise; what it samples with is what it learnt with."""
    config = SCDPipeline.from_stable_diffusion(*folders, prediction_type="epsilon").scheduler.config
    assert (config.prediction_type, config.rescale_betas_zero_snr) == ("epsilon", False)
    pipe = SCDPipeline.from_stable_diffusion(*folders, prediction_type="epsilon")
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    assert torch.allclose(pipe.scheduler.alphas_cumprod, (1 - betas).cumprod(0), rtol=1e-4)


def test_an_old_folder_gives_the_same_networks(folders):
    new = SCDPipeline.from_stable_diffusion(*folders)
    age(*folders)
    assert not list(folders[0].rglob("*model.safetensors"))
    old = SCDPipeline.from_stable_diffusion(*folders)
    for name in ("unet", "vae", "image_encoder"):
        a, b = getattr(new, name).state_dict(), getattr(old, name).state_dict()
        assert a.keys() == b.keys()
        for key in a:  # the variant is half precision: 11 bits
            assert b[key].dtype == a[key].dtype
            assert torch.allclose(a[key], b[key], rtol=1e-3, atol=1e-6), f"{name}: {key}"
    assert old.vae.config.scaling_factor == 0.18215
    assert torch.equal(new.scheduler.alphas_cumprod, old.scheduler.alphas_cumprod)
    picture = torch.rand(3, 64, 64)
    a, b = (p.encode_pictures(picture[None] * 2 - 1) for p in (new, old))
    assert (a - b).abs().max() < 1e-2 * a.std()


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (72, 40)])
def test_portrait_landscape_and_odd_sizes(folders, size):
    pipe = SCDPipeline.from_stable_diffusion(*folders)
    reference = pipe.encode_reference(make_picture(0, size), make_pose(0))
    out = pipe(
        reference, make_pose(1), *size, num_inference_steps=1, output_type="pt",
        generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip
    assert tuple(out.shape) == (1, 3, *size)
    assert out.isfinite().all()
    assert reference.context.abs().max() > 0, "the CLIP embedding is the context"


def edit(path, change):
    state = load_file(path)
    change(state)
    save_file(state, path, {"format": "pt"})


def test_missing_and_left_over_keys_are_listed(folders):
    sd, clip = folders
    edit(sd / "unet" / "diffusion_pytorch_model.safetensors", lambda s: s.pop("conv_out.bias"))
    with pytest.raises(UserError, match=r"sd/unet: .*UNet2DConditionModel: missing: conv_out\.bias$"):
        SCDPipeline.from_stable_diffusion(sd, clip)


def test_left_over_keys_of_vae_and_image_encoder(folders):
    sd, clip = folders
    edit(clip / "model.safetensors", lambda s: s.update(odd=torch.zeros(1)))
    with pytest.raises(UserError, match=r"clip: .*left over: odd$"):
        SCDPipeline.from_stable_diffusion(sd, clip)
    edit(sd / "vae" / "diffusion_pytorch_model.safetensors", lambda s: s.update(extra=torch.zeros(1)))
    with pytest.raises(UserError, match=r"sd/vae: .*left over: extra$"):
        SCDPipeline.from_stable_diffusion(sd, clip)


def test_folders_that_are_something_else(folders, tmp_path):
    sd, clip = folders
    with pytest.raises(UserError, match=r"there is no config\.json; give a Stable Diffusion 1\.5 folder"):
        SCDPipeline.from_stable_diffusion(clip, clip)
    with pytest.raises(UserError, match="give the folder of a CLIP vision encoder"):
        SCDPipeline.from_stable_diffusion(sd, sd)
    path = sd / "unet" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "in_channels": 9}))
    edit(
        sd / "unet" / "diffusion_pytorch_model.safetensors",
        lambda s: s.update({"conv_in.weight": torch.zeros(32, 9, 3, 3)}),
    )
    with pytest.raises(UserError, match="takes 9 channels where the VAE has 4: an inpainting"):
        SCDPipeline.from_stable_diffusion(sd, clip)


def test_an_encoder_of_another_width_is_refused(folders):
    sd, clip = folders
    path = clip / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "projection_dim": 16}))
    edit(
        clip / "model.safetensors",
        lambda s: s.update({"visual_projection.weight": s["visual_projection.weight"][:16].clone()}),
    )
    with pytest.raises(UserError, match=r"in 16 dimensions where .* takes 32"):
        SCDPipeline.from_stable_diffusion(sd, clip)


def test_a_starting_point_is_float32_whatever_lies_on_the_disk(folders):
    from transformers import CLIPVisionModelWithProjection

    sd, clip = folders
    CLIPVisionModelWithProjection.from_pretrained(clip).half().save_pretrained(clip)
    age(sd, shutil.copytree(clip, clip.parent / "unused"))
    pipe = SCDPipeline.from_stable_diffusion(sd, clip)
    dtypes = {part.dtype for part in pipe.components.values() if isinstance(part, torch.nn.Module)}
    assert dtypes == {torch.float32}


def test_a_plain_folder_and_a_starting_point_are_refused_by_animate(folders, tmp_path, capsys):
    from scd.cli import main

    sd, clip = folders
    arguments = ["animate", "examples/reference.png", "examples/pose.png", "-o", str(tmp_path / "a.png")]
    assert main([*arguments, "--model", str(sd)]) == 2
    message = capsys.readouterr().err
    assert "StableDiffusionPipeline, which was never trained for SCD" in message
    assert "scd train sd15-pictures --init" in message
    SCDPipeline.from_stable_diffusion(sd, clip).save_pretrained(tmp_path / "start")
    assert main([*arguments, "--model", str(tmp_path / "start")]) == 2
    message = capsys.readouterr().err
    assert "a starting point that was never trained for SCD" in message
    assert f"scd train sd15-pictures --init {tmp_path / 'start'}" in message
    assert not list(tmp_path.glob("a*"))


def test_a_starting_point_round_trips_with_its_image_encoder(folders, tmp_path):
    pipe = SCDPipeline.from_stable_diffusion(*folders)
    pipe.save_pretrained(tmp_path / "start")
    again = SCDPipeline.from_pretrained(tmp_path / "start")
    for name in ("unet", "vae", "pose_encoder", "image_encoder"):
        a, b = getattr(pipe, name).state_dict(), getattr(again, name).state_dict()
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)


# ---- with a motion adapter ----


def write_adapter(folder, seed=0, **changes):
    """AnimateDiff's layout, few channels."""
    return make_adapter(folder, seed, **{**TINY_MOTION, **changes})


def paint_clip(pipe, frames):
    reference = pipe.encode_reference(make_picture(0, (64, 64)), make_pose(0))
    poses = [make_pose(1 + i) for i in range(max(frames, 1))]
    poses = PoseClip.from_poses(poses, 30.0) if frames else poses[0]
    output = pipe(reference, poses, num_inference_steps=2, output_type="pt",
                  generator=torch.Generator().manual_seed(0))  # fmt: skip
    return output.frames if frames else output.images


# What AnimateDiff's later and earlier adapters changed: no middle block, fewer frames
GENERATIONS = {
    "v1-5": {"use_motion_mid_block": False, "motion_max_seq_length": 24},
    "v1-5-2": {},
    "v1-5-3": {"use_motion_mid_block": False},
}


@pytest.mark.parametrize("changes", GENERATIONS.values(), ids=GENERATIONS.keys())
def test_a_motion_adapter_joins_the_network(folders, tmp_path, changes):
    adapter = write_adapter(tmp_path / "motion", **changes)
    pipe = SCDPipeline.from_stable_diffusion(*folders, motion_adapter=tmp_path / "motion")
    assert type(pipe.unet).__name__ == "UNetMotionModel"
    state, wanted = pipe.unet.state_dict(), adapter.state_dict()
    temporal = {k for k in state if ".motion_modules." in k}
    assert temporal == wanted.keys()
    assert all(torch.equal(state[k], wanted[k]) and state[k].dtype == torch.float32 for k in temporal)
    assert {k: v for k, v in state.items() if k not in temporal}.keys() == load_file(
        folders[0] / "unet" / "diffusion_pytorch_model.safetensors"
    ).keys()
    frames = paint_clip(pipe, 3)
    assert tuple(frames.shape) == (1, 3, 3, 64, 64)
    assert (paint_clip(pipe, 1)[:, 0] - frames[:, 0]).abs().max() > 1e-3, "frames see each other"
    pictures = SCDPipeline.from_stable_diffusion(*folders)
    assert torch.equal(paint_clip(pipe, 0), paint_clip(pictures, 0)), "a picture never enters temporal layers"
    # An adapter that is at hand is taken as it is
    given = SCDPipeline.from_stable_diffusion(*folders, motion_adapter=adapter)
    assert given.motion_adapter is adapter
    assert torch.equal(paint_clip(given, 3), frames)
    pipe.save_pretrained(tmp_path / "start")
    assert torch.equal(paint_clip(SCDPipeline.from_pretrained(tmp_path / "start"), 3), frames)


@pytest.mark.parametrize(
    "changes",
    [
        {"motion_layers_per_block": 2},
        {"block_out_channels": (32, 64, 64)},
        {"block_out_channels": (64, 64, 64, 64)},
    ],
    ids=["layers", "levels", "channels"],
)
def test_an_adapter_of_another_shape_is_one_line(folders, tmp_path, changes):
    write_adapter(tmp_path / "motion", **changes)
    with pytest.raises(UserError, match=r"/motion: this motion adapter was made for another network: ") as e:
        SCDPipeline.from_stable_diffusion(*folders, motion_adapter=tmp_path / "motion")
    assert "\n" not in str(e.value)


def test_every_key_of_an_adapter_is_accounted_for(folders, tmp_path):
    write_adapter(tmp_path / "motion")
    file, name = next((tmp_path / "motion").glob("*.safetensors")), "mid_block.motion_modules.0.proj_out.bias"
    edit(file, lambda s: s.update({"odd": s.pop(name)}))
    with pytest.raises(UserError, match=rf"motion: .*MotionAdapter: missing: {name}; left over: odd$"):
        SCDPipeline.from_stable_diffusion(*folders, motion_adapter=tmp_path / "motion")
    with pytest.raises(UserError, match=r"give the folder of a MotionAdapter in diffusers layout"):
        SCDPipeline.from_stable_diffusion(*folders, motion_adapter=tmp_path)
    original = tmp_path / "mm_sd_v15_v2.ckpt"  # tests/test_animatediff.py has the whole ones
    original.write_bytes(b"\x80\x02pickle")
    with pytest.raises(UserError, match=rf"{original}: holds more than tensors, and nothing of it was exec"):
        SCDPipeline.from_stable_diffusion(*folders, motion_adapter=original)
    authors = make_authors_adapter(UNet2DConditionModel(**TINY_UNET))
    torch.save(authors_state(authors.state_dict()), original)
    pipe = SCDPipeline.from_stable_diffusion(*folders, motion_adapter=original)
    state = pipe.unet.state_dict()
    assert all(torch.equal(state[name], value) for name, value in authors.state_dict().items())
    with pytest.raises(UserError, match=r"^nobody/nothing: cannot be loaded"):
        SCDPipeline.from_stable_diffusion(*folders, motion_adapter="nobody/nothing")
    # ... and when a saved pipeline is read again
    write_adapter(tmp_path / "whole")
    pipe = SCDPipeline.from_stable_diffusion(*folders, motion_adapter=tmp_path / "whole")
    pipe.save_pretrained(tmp_path / "start")
    edit(next((tmp_path / "start" / "motion_adapter").glob("*.safetensors")), lambda s: s.pop(name))
    with pytest.raises(UserError, match=rf"start/motion_adapter: .*missing: {name}$"):
        SCDPipeline.from_pretrained(tmp_path / "start")


def test_the_published_adapter_fits_the_published_network():
    """Shapes only, on torch's meta device: 859.5 M + 453.2 M parameters."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNET)
        adapter = MotionAdapter.from_config({k: v for k, v in V1_5_2.items() if not k.startswith("_")})
        joined = motion.join(unet, adapter)
    counts = [sum(p.numel() for p in network.parameters()) for network in (unet, adapter, joined)]
    assert counts == [859_520_964, 453_209_280, 859_520_964 + 453_209_280]
