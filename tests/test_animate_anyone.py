"""Public weights of the Animate Anyone family: their files become our pipeline, and it says what their own
code says."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_clip, make_picture, make_pose, make_vae
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from family_folder import networks, write_networks
from safetensors.torch import load_file

from scd import SCDPipeline, animate_anyone
from scd.attention import Cached
from scd.backbones import unet as backbone
from scd.backbones.motion import join, temporal_layers
from scd.denoiser import Denoiser
from scd.media import write_image
from scd.pose.draw import draw_pose
from scd.pose.files import write_poses
from scd.reference import Reference, StaleReference
from scd.types import PoseClip

# 14 MB that are not part of the repository: SCD_GOLDEN says where they lie
GOLDEN = Path(os.environ.get("SCD_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"), "animate_anyone")
UNET = {
    "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": [32, 32],
    "layers_per_block": 1, "cross_attention_dim": 32, "attention_head_dim": 4, "norm_num_groups": 16,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}  # fmt: skip
GUIDER = (16, 32, 96, 256)


def write_twin(folder, ending=".safetensors"):
    """The family's four files with this project's own random weights, and small ones of the two others."""
    folder.mkdir()
    made = dict(networks(UNET, GUIDER))
    write_networks(folder, made.items(), ending, torch.float32)
    (folder / "config.json").write_text(
        json.dumps({"unet": UNET, "pose_guider": {"block_out_channels": GUIDER}})
    )
    write_others(folder)
    return [made[name] for name in ("denoising_unet", "reference_unet", "motion_module", "pose_guider")]


def write_others(folder):
    make_vae().save_pretrained(folder / "sd-vae-ft-mse")
    make_clip(32).save_pretrained(folder / "image_encoder")


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family") / "twin"
    return folder, write_twin(folder)


@pytest.fixture(scope="module")
def converted(twin):
    return SCDPipeline(**animate_anyone.components(twin[0]))


class TheirAttention(AttnProcessor2_0):
    """The family's own way: the reader's normalised features beside the target's, projected together anew."""

    def __init__(self, features):
        super().__init__()
        self.features = features

    def __call__(self, attn, hidden_states, *args, **kwargs):
        joined = torch.cat([hidden_states, self.features.expand(len(hidden_states), -1, -1)], 1)
        return super().__call__(attn, hidden_states, joined)


def their_step(networks, latents, timestep, features, context, reference, read):
    """One prediction (T, C, h, w) with stock networks, hooks and processors: the slow truth."""
    unet, reader, adapter, _ = networks
    seen = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, n=name: seen.setdefault(n, given[0]))
        for name, layer in backbone.spatial_layers(reader).items()
    ]
    reader(reference, torch.zeros(1), context)
    for hook in hooks:
        hook.remove()
    whole = join(unet, adapter)
    for layer in temporal_layers(whole):
        layer.__class__ = backbone.MotionTransformer  # statistics per frame: settled by the golden numbers
    if read:
        for name, layer in backbone.spatial_layers(whole).items():
            layer.set_processor(TheirAttention(seen[name]))
    after = whole.conv_in.register_forward_hook(lambda _, given, out: out + features)
    frames = latents.transpose(0, 1)[None]
    context = context if read else torch.zeros_like(context)
    out = whole(frames, timestep, context.expand(len(latents), -1, -1)).sample
    after.remove()
    return out[0].transpose(0, 1)


def our_step(pipe, latents, timestep, features, context, reference_latents, guidance):
    """The same through the pipeline's parts: K and V once, one cache for all frames."""
    cache = backbone.extract(pipe.unet, reference_latents, 0, None, context, pipe.reference_unet)
    assert all(len(kv) == 2 and len(kv[0]) == 1 for kv in cache.entries.values())
    reference = Reference(cache, context, pipe.stamp)
    clip = PoseClip.from_poses([make_pose(0)] * len(latents), 8.0)
    denoiser = Denoiser(pipe, reference, [clip], (64, 64), guidance, 24, 6)
    denoiser.features = features
    return denoiser(latents[None], timestep, 0)[0]


def our_half(pipe, *given, read):
    """One half of a guided step: free + 2 (read - free) is 2 read - free."""
    conditional = our_step(pipe, *given, 1.0)
    return conditional if read else 2 * conditional.float() - our_step(pipe, *given, 2.0)


@torch.no_grad()
def test_the_twin_steps_as_the_family_steps(twin, converted):
    generator = torch.Generator().manual_seed(0)
    latents, reference, context = (
        torch.randn(shape, generator=generator) for shape in ((5, 4, 8, 6), (1, 4, 8, 6), (1, 1, 32))
    )
    drawings = torch.rand(5, 3, 64, 48, generator=generator)
    features = twin[1][3](drawings)
    assert torch.equal(converted.pose_encoder(drawings), features)
    t = torch.tensor(501)
    for read in (False, True):
        theirs = their_step(twin[1], latents, t, features, context, reference, read)
        ours = our_half(converted, latents, t, features, context, reference, read=read)
        assert (ours - theirs).abs().max() < 1e-4 * max(1, theirs.std())
        assert theirs.std() > 0.05
    without = our_step(converted, latents, t, features, context, reference + 1, 1.0)
    assert (without - ours).abs().max() > 1e-3, "the reference matters"


@pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="the golden numbers are not at hand; the twin stands for them"
)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
@torch.no_grad()
def test_the_golden_step(tmp_path, dtype, bound):
    """What the family's own code printed, from weights of its own layout."""
    folder = tmp_path / "golden"
    folder.mkdir()
    for path in GOLDEN.iterdir():
        (folder / path.name).symlink_to(path)
    write_others(folder)
    pipe = SCDPipeline(**animate_anyone.components(folder)).to(dtype)
    step = load_file(GOLDEN / "step.safetensors")
    latents, drawings, features, free, read = (
        step[name][0].transpose(0, 1)
        for name in (
            "latents", "pose_images", "pose_features", "prediction_unconditional", "prediction_conditional"
        )
    )  # fmt: skip
    ours = pipe.pose_encoder(drawings.to(dtype))
    assert (ours.float() - features).abs().max() < bound * max(1, features.abs().max())
    context, reference = step["clip_image_embed"].to(dtype), step["reference_latents"].to(dtype)
    for is_read, theirs in ((False, free), (True, read)):
        given = latents.to(dtype), step["timestep"], ours, context, reference
        said = our_half(pipe, *given, read=is_read)
        assert (said.float() - theirs).abs().max() < bound
    if dtype == torch.float32:  # METHOD 5's question: with statistics over the clip it is another network
        for layer in temporal_layers(pipe.unet):
            layer.norm_per_frame = False
        said = our_step(pipe, latents, step["timestep"], ours, context, reference, 1.0)
        assert (said - read).abs().max() > 100 * bound


@torch.no_grad()
def test_projecting_once_equals_projecting_in_every_layer_that_reads(converted):
    reference, rows = torch.randn(2, 4, 8, 6), torch.randn(3, 4, 8, 6)
    context, t = torch.randn(3, 1, 32), torch.full((3,), 300)
    arguments = (reference, 0, None, context[:2])
    once = backbone.extract(converted.unet, *arguments, converted.reference_unet).grouped(2)
    anew = backbone.collect(converted.reference_unet, *arguments).grouped(2)
    assert all(len(entry) == 1 for entry in anew.entries.values())
    a, b = (
        backbone.predict(converted.unet, rows, t, None, context, Cached(cache, (0, 0, 0)), 3)
        for cache in (once, anew)
    )
    assert (a - b).abs().max() < 1e-5


def test_converted_saved_and_read_again(twin, converted, tmp_path, scd):
    out = tmp_path / "model"
    assert scd("convert", "animate-anyone", str(twin[0]), str(out), "--dtype", "float32")[0] == 0
    pipe = SCDPipeline.from_pretrained(out)
    assert pipe.config.pose_drawing == "dwpose"
    assert not pipe.config.reference_pose
    assert (pipe.config.default_guidance, pipe.config.default_window) == (3.5, 24)
    config = pipe.scheduler.config
    assert (config.beta_schedule, config.prediction_type, config.timestep_spacing) == (
        "linear", "v_prediction", "trailing",
    )  # fmt: skip
    assert pipe.scheduler.alphas_cumprod[-1] == 0
    clip = PoseClip.from_poses([make_pose(i) for i in range(3)], 8.0)

    def paint(p):
        p.set_progress_bar_config(disable=True)
        reference = p.encode_reference(make_picture(0), make_pose(5))
        return p(
            reference, clip, 64, 64, num_inference_steps=2, output_type="latent",
            generator=torch.Generator().manual_seed(0),
        ).frames  # fmt: skip

    assert torch.equal(paint(pipe), paint(converted))
    code, _, error = scd("convert", "animate-anyone", str(twin[0]), str(out))
    assert code == 2
    assert "exists already" in error


def test_a_reference_is_a_value_here_too(converted, tmp_path):
    one, two = (converted.encode_reference(make_picture(seed)) for seed in (0, 1))
    one.save(tmp_path / "one.safetensors")
    again = Reference.load(tmp_path / "one.safetensors")
    converted.set_progress_bar_config(disable=True)

    def paint(reference):
        return converted(
            reference, make_pose(1), 64, 64, num_inference_steps=2, output_type="latent",
            generator=torch.Generator().manual_seed(0),
        ).images  # fmt: skip

    assert torch.equal(paint(one), paint(again))
    assert not torch.equal(paint(one + two), paint(one))
    posed = converted.encode_reference(make_picture(0), make_pose(3))
    assert torch.equal(paint(posed), paint(one)), "this family's references have no pose"
    weight = next(converted.reference_unet.parameters())
    weight.data += 1
    try:
        with pytest.raises(StaleReference, match="another reference network"):
            paint(one)
    finally:
        weight.data -= 1


def test_pth_files_and_motion_modules_within_the_network(twin, converted, tmp_path):
    write_twin(tmp_path / "pth", ".pth")
    folder = tmp_path / "pth"
    encoder = folder / "image_encoder" / "model.safetensors"
    torch.save(load_file(encoder), encoder.with_name("pytorch_model.bin"))  # as image-variations has it
    encoder.unlink()
    pipe = SCDPipeline(**animate_anyone.components(folder))
    for one, other in zip(*(p.image_encoder.parameters() for p in (pipe, converted)), strict=True):
        assert torch.equal(one, other)
    state = load_file(twin[0] / "denoising_unet.safetensors")
    own = pipe.unet.state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items())
    motion = torch.load(folder / "motion_module.pth")
    torch.save({**state, **motion}, folder / "denoising_unet.pth")  # stage 2 saved whole
    torch.save({"state_dict": {f"module.{n}": v for n, v in motion.items()}}, folder / "motion_module.pth")
    again = SCDPipeline(**animate_anyone.components(folder))
    assert all(torch.equal(value, again.unet.state_dict()[name]) for name, value in own.items())


class Spell:
    """What a file must not be able to do."""

    def __reduce__(self):
        return (Path("cast").touch, ())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "pose_guider.pth").unlink(), r"twin: pose_guider\.pth missing; download all four"),
        (
            lambda f: (f / "motion_module.pth").write_bytes((f / "motion_module.pth").read_bytes()[:4000]),
            r"motion_module\.pth: damaged, or half a download .*: download it again",
        ),
        (
            lambda f: torch.save(
                UNet2DConditionModel(**{**UNET, "block_out_channels": [64, 64]}).state_dict(),
                f / "reference_unet.pth",
            ),
            r"unet\.pth: not the weights of this UNet2DConditionModel: \d+ of another size",
        ),
        (
            lambda f: torch.save(
                {n: v for n, v in torch.load(f / "motion_module.pth").items() if "down_blocks.1" not in n},
                f / "motion_module.pth",
            ),
            r"motion_module\.pth: not the weights of this MotionAdapter: \d+ missing",
        ),
        (
            lambda f: torch.save({"a": Spell()}, f / "pose_guider.pth"),
            r"pose_guider\.pth: holds more than tensors, and nothing of it was executed",
        ),
        (
            lambda f: (f / "pose_guider.pth").write_bytes(pickle.dumps(Spell())),
            r"pose_guider\.pth: holds more than tensors, and nothing of it was executed",
        ),
        (
            lambda f: (f / "pose_guider.pth").write_text("<html>not found</html>"),
            r"pose_guider\.pth: no file of weights \(a web page\?\): download it again",
        ),
        (
            lambda f: (
                (f / "image_encoder" / "model.safetensors").unlink(),
                torch.save({"a": Spell()}, f / "image_encoder" / "pytorch_model.bin"),
            ),
            r"image_encoder: holds more than tensors, and nothing of it was executed",
        ),
        (lambda f: torch.save({"step": 3}, f / "pose_guider.pth"), r"guider\.pth: holds more than tensors"),
        (lambda f: (f / "image_encoder" / "config.json").unlink(), r"encoder: there is no config\.json"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json: no readable sizes"),
    ],
    ids=["missing", "half", "size", "version", "spell", "bare", "page", "encoder", "other", "clip", "sizes"],
)  # fmt: skip
def test_what_cannot_be_converted_is_said_in_one_line(tmp_path, monkeypatch, scd, spoil, said):
    folder = tmp_path / "twin"
    write_twin(folder, ".pth")
    monkeypatch.chdir(tmp_path)
    spoil(folder)
    code, _, error = scd("convert", "animate-anyone", str(folder), str(tmp_path / "out"))
    assert code == 2
    assert len(error.strip().splitlines()) == 1
    import re

    assert re.search(said, error), error
    assert not (tmp_path / "cast").exists()
    assert not (tmp_path / "out").exists()


def test_the_familys_drawings():
    """Limbs of width 8 at a shorter side of 512, hard edges, blue dots at the joints of hands."""
    pose = make_pose(0, (512, 384))
    pose = replace(pose, scores=np.ones_like(pose.scores))
    theirs, ours = (draw_pose(pose, (683, 512), style=style) for style in ("dwpose", "openpose"))
    blue = (theirs == (0, 0, 255)).all(-1)
    assert blue.sum() > 100
    assert not (ours == (0, 0, 255)).all(-1).sum() > blue.sum() / 2
    white = (theirs == 255).all(-1)
    assert white.sum() > 100
    colours = np.unique(theirs.reshape(-1, 3), axis=0)
    assert len(colours) < 80, "hard edges: no mixed colours"


def test_from_files_to_a_clip_on_the_command_line(twin, tmp_path, scd, monkeypatch):
    """The whole way, and nothing but our own lines; the sheet shows the drawings that the network saw."""
    out, clip = tmp_path / "model", tmp_path / "clip.mp4"
    assert scd("convert", "animate-anyone", twin[0], out) == (0, f"{out}\n", "")
    write_image(tmp_path / "me.png", make_picture(0, (64, 48)), {})
    write_poses(tmp_path / "me.npz", [[make_pose(9, (64, 48))]])
    write_poses(tmp_path / "dance.npz", [[make_pose(i, (64, 48))] for i in range(6)], 8.0)
    styles = []
    monkeypatch.setattr(
        "scd.cli.clip.draw_pose", lambda *a, style="openpose": (styles.append(style), draw_pose(*a))[1]
    )
    code, said, error = scd(
        "animate", tmp_path / "me.png", tmp_path / "dance.npz", "--reference-pose", tmp_path / "me.npz",
        "--model", out, "--max-frames", 4, "--size", 64, "--steps", 2, "--sheet", "-o", clip,
    )  # fmt: skip
    assert (code, said) == (0, f"{clip}: 4 frames, 0.50 s\n{tmp_path / 'clip-sheet.png'}\n"), error
    assert all(line.startswith("scd: ") for line in error.splitlines())
    assert styles == ["dwpose"] * 4
