"""Clips: a one-frame clip is the picture, the reference stands outside temporal layers, windows keep the
device flat, and a loop that was cut off goes on to the same frames."""

import copy

import numpy as np
import pytest
import torch
from conftest import make_picture, make_pipeline, make_pose, make_scheduler, make_unet
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    LCMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

from scd.attention import CausalSelfAttention
from scd.backbones import motion
from scd.backbones.unet import adapt, check_adapted, predict, spatial_layers
from scd.pipeline import SCDPipeline
from scd.types import PoseClip

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_adapter(unet, max_frames=32, random=True):
    """A motion adapter whose layers do something, as after training."""
    torch.manual_seed(4)
    adapter = motion.new_motion_adapter(unet, num_heads=2, max_frames=max_frames).eval()
    if random:
        for layer in motion.temporal_layers(adapter):
            torch.nn.init.normal_(layer.proj_out.weight, std=0.2)
    return adapter


def make_motion_pipeline(random=True, **kwargs):
    pipe = make_pipeline()
    joined = SCDPipeline(
        pipe.vae, pipe.unet, pipe.pose_encoder, pipe.scheduler,
        motion_adapter=make_adapter(pipe.unet, random=random), default_size=32, default_steps=3,
        default_guidance=2.0, **kwargs,
    )  # fmt: skip
    joined.set_progress_bar_config(disable=True)
    return joined


def make_reader_pipeline():
    """With a network of its own for references."""
    reader = make_pipeline().unet
    for parameter in reader.parameters():
        parameter.data += 0.02
    joined = SCDPipeline.from_pipe(make_motion_pipeline(), reference_unet=reader)
    joined.set_progress_bar_config(disable=True)
    return joined


def make_clip(frames, first=100):
    return PoseClip.from_poses([make_pose(first + i) for i in range(frames)], fps=30.0)


@pytest.fixture
def pipe():
    return make_motion_pipeline()


@pytest.fixture
def reference(pipe):
    return pipe.encode_reference(make_picture(0, (32, 32)), make_pose(0))


def paint(pipe, reference, poses, **kwargs):
    kwargs = {"generator": seeded(), "output_type": "np", **kwargs}
    return pipe(reference, poses, **kwargs)


def test_a_one_frame_clip_is_the_picture(pipe, reference):
    picture_pipe = make_pipeline()
    picture_pipe.register_to_config(default_size=32)
    picture = paint(picture_pipe, picture_pipe.encode_reference(make_picture(0, (32, 32)), make_pose(0)),
                    make_pose(1)).images  # fmt: skip
    assert np.array_equal(paint(pipe, reference, make_pose(1)).images, picture)
    clip = PoseClip.from_poses([make_pose(1)], fps=30.0)
    output = paint(pipe, reference, clip)
    assert output.images is None
    assert output.frames.shape == (1, 1, 32, 32, 3)
    assert np.array_equal(output.frames[:, 0], picture)


def test_picture_and_clip_networks_leave_one_cache(pipe, reference):
    """The same keys to the bit and the same stamp: a reference of one is read by the other."""
    picture_pipe = make_pipeline()
    other = picture_pipe.encode_reference(make_picture(0, (32, 32)), make_pose(0))
    assert other.stamp == reference.stamp
    assert other.cache.entries.keys() == reference.cache.entries.keys()
    assert not any("motion" in name for name in reference.cache.entries)
    for name, kv in reference.cache.entries.items():
        assert all(torch.equal(a, b) for a, b in zip(kv, other.cache.entries[name], strict=True))
    clip = make_clip(3)
    assert np.array_equal(paint(pipe, reference, clip).frames, paint(pipe, other, clip).frames)


def test_frames_see_each_other_through_temporal_layers_only(pipe, reference):
    clip, changed = make_clip(4), make_clip(4)
    joints = changed.joints.copy()
    joints[3] = make_pose(7).joints
    changed = PoseClip(joints, changed.scores, changed.size, changed.fps)
    one, two = (paint(pipe, reference, c).frames for c in (clip, changed))
    assert np.abs(one[0, 0] - two[0, 0]).max() > 1e-4
    untrained = make_motion_pipeline(random=False)  # zero output projections: frames are pictures
    one, two = (paint(untrained, reference, c).frames for c in (clip, changed))
    assert np.array_equal(one[0, 0], two[0, 0])
    assert np.abs(one[0, 3] - two[0, 3]).max() > 1e-4


@pytest.mark.parametrize("scheduler", [DDIMScheduler, LCMScheduler, EulerAncestralDiscreteScheduler], ids=str)
def test_one_noise_for_all_frames(reference, scheduler):
    """With `shared_noise` a still pose is a still clip, whatever a sampler draws, and untrained temporal
    layers leave each frame the picture of its pose and of the clip's seed."""
    pipe = make_motion_pipeline(random=False, shared_noise=True)
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    still = PoseClip.from_poses([make_pose(1)] * 3, fps=30.0)
    frames = paint(pipe, reference, [still, make_clip(3)], generator=[seeded(5), seeded(6)]).frames
    assert np.abs(frames[0, 1:] - frames[0, :1]).max() < 1e-5
    for frame, pose in enumerate(make_clip(3)):
        picture = paint(pipe, reference, pose, generator=seeded(6)).images[0]
        assert np.abs(frames[1, frame] - picture).max() < 1e-4
    unseeded = paint(pipe, reference, still, generator=None).frames
    assert np.abs(unseeded[0, 1:] - unseeded[0, :1]).max() < 1e-5
    own = make_motion_pipeline(random=False)
    own.scheduler = pipe.scheduler
    frames = paint(own, reference, still).frames
    assert np.abs(frames[0, 1:] - frames[0, :1]).max() > 1e-2


def test_all_frames_read_one_cache(pipe, reference, monkeypatch):
    """The cache is handed to each layer as one group, whatever T is."""
    seen = []
    call = CausalSelfAttention.__call__

    def spy(self, *args, reference=None, **kwargs):
        seen.append(next(iter(reference.cache.entries.values()))[0].shape[0])
        return call(self, *args, reference=reference, **kwargs)

    monkeypatch.setattr(CausalSelfAttention, "__call__", spy)
    paint(pipe, reference, make_clip(6))
    assert set(seen) == {1}


def test_a_clip_shorter_than_a_window_is_one_window(pipe, reference):
    clip = make_clip(6)
    whole = paint(pipe, reference, clip, window=6, overlap=0).frames
    assert np.array_equal(paint(pipe, reference, clip, window=24, overlap=4).frames, whole)
    windowed = paint(pipe, reference, clip, window=4, overlap=2).frames
    assert windowed.shape == whole.shape
    assert np.abs(windowed - whole).max() > 1e-4


def test_a_frame_alone_in_its_window_is_the_picture_again(reference):
    """With layers that pass nothing, windows and blending change nothing: only rounding is left."""
    pipe = make_motion_pipeline(random=False)
    clip = make_clip(9)
    whole = paint(pipe, reference, clip, window=9, overlap=0).frames
    assert np.abs(paint(pipe, reference, clip, window=4, overlap=2).frames - whole).max() < 1e-5


def test_several_clips_and_generators(pipe, reference):
    clips = [make_clip(3, 100), make_clip(3, 200)]
    together = paint(pipe, reference, clips, generator=[seeded(5), seeded(6)]).frames
    for i in range(2):
        alone = paint(pipe, reference, clips[i], generator=seeded(5 + i)).frames[0]
        assert np.abs(alone - together[i]).max() < 1e-5
    with pytest.raises(ValueError, match="one length"):
        paint(pipe, reference, [make_clip(3), make_clip(4)])
    with pytest.raises(ValueError, match="one length"):
        paint(pipe, reference, [make_clip(1), make_pose(0)])


def test_the_first_frames_noise_does_not_depend_on_the_length(pipe, reference):
    noise = []

    def first(_, index, __, tensors):
        if index == 0:
            noise.append(tensors["latents"])
        return {}

    for frames in (2, 5):
        untrained = make_motion_pipeline(random=False)
        paint(untrained, reference, make_clip(frames), callback_on_step_end=first)
    assert noise[0].shape == (1, 4, 2, 4, 4)  # as diffusers has clips: (N, C, T, h, w)
    assert torch.allclose(noise[0], noise[1][:, :, :2], atol=1e-6)


def test_latents_in_and_out_have_diffusers_layout(pipe, reference):
    clip = make_clip(3)
    latents = torch.randn(1, 4, 3, 4, 4, generator=seeded(3))
    out = pipe(reference, clip, latents=latents, output_type="latent").frames
    assert out.shape == latents.shape
    decoded = np.stack(list(pipe.decode_frames(out[0])))
    pictures = pipe(reference, clip, latents=latents).frames[0]
    assert np.array_equal(decoded, np.stack([np.asarray(p) for p in pictures]))
    assert pipe(reference, clip, latents=latents, output_type="pt").frames.shape == (1, 3, 3, 32, 32)
    with pytest.raises(ValueError, match=r"\(1, 4, 4, 4\), not \(1, 4, 3, 4, 4\)"):
        pipe(reference, clip, latents=latents[:, :, 0])


@pytest.mark.parametrize("frames", [48, 2000])
def test_the_device_holds_one_window_whatever_the_length(pipe, reference, frames):
    """Shapes that reach network, pose encoder and VAE are the same for 48 and for 2,000 frames."""
    shapes = {"unet": set(), "pose_encoder": set(), "vae": set()}

    def record(name):
        return lambda _, args: shapes[name].add(tuple(args[0].shape))

    pipe.unet.register_forward_pre_hook(record("unet"))
    pipe.pose_encoder.register_forward_pre_hook(record("pose_encoder"))
    pipe.vae.decoder.register_forward_pre_hook(record("vae"))
    out = paint(pipe, reference, make_clip(frames), num_inference_steps=1, output_type="latent", window=24,
                overlap=4, height=16, width=16)  # fmt: skip
    assert out.frames.device.type == "cpu"
    assert out.frames.dtype == torch.float32
    decoded = sum(1 for _ in pipe.decode_frames(out.frames[0]))
    assert decoded == frames
    assert shapes["unet"] == {(2, 4 + 32, 24, 2, 2)}
    assert shapes["pose_encoder"] == {(24, 3, 16, 16)}
    assert shapes["vae"] == {(8, 4, 2, 2)}


@pytest.mark.parametrize(
    "scheduler", [None, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler], ids=str
)
def test_a_loop_that_was_cut_off_goes_on_to_the_same_frames(pipe, reference, tmp_path, scheduler):
    if scheduler is not None:
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    clip, kwargs = make_clip(7), {"window": 4, "overlap": 1, "num_inference_steps": 7}
    whole = paint(pipe, reference, clip, **kwargs).frames

    class CutOff(Exception):
        pass

    steps = []

    def stop(_, index, __, ___):
        steps.append(index)
        if index == 5:
            raise CutOff
        return {}

    def note(_, index, __, ___):
        steps.append(index)
        return {}

    kwargs |= {"work_folder": tmp_path}
    with pytest.raises(CutOff):
        paint(pipe, reference, clip, callback_on_step_end=stop, **kwargs)
    assert steps == [0, 1, 2, 3, 4, 5]
    again = paint(pipe, reference, clip, callback_on_step_end=note, **kwargs).frames
    assert steps[6:] == [4, 5, 6], "goes on after the last savepoint, of four steps"
    assert np.array_equal(again, whole)
    if scheduler is EulerAncestralDiscreteScheduler:  # it draws at every step: with one noise as well
        pipe.register_to_config(shared_noise=True)
        steps.clear()
        with pytest.raises(CutOff):
            paint(pipe, reference, clip, callback_on_step_end=stop, **kwargs)
        assert steps[0] == 0, "another loop than the one of frames with noise of their own"
        again = paint(pipe, reference, clip, **kwargs).frames
        assert np.array_equal(again, paint(pipe, reference, clip, **{**kwargs, "work_folder": None}).frames)
    # Another seed is another loop
    steps.clear()
    paint(pipe, reference, clip, generator=seeded(1), callback_on_step_end=note, **kwargs)
    assert steps[0] == 0


def _with_other_weights(pipe, reference, part):
    with torch.no_grad():
        next(iter(part(pipe).parameters())).mul_(1.5)
    return pipe.encode_reference(make_picture(0, (32, 32)), make_pose(0))


@pytest.mark.parametrize(
    "change",
    [
        {"reference": lambda pipe, _: pipe.encode_reference(make_picture(1, (32, 32)), make_pose(0))},
        {"reference": lambda pipe, old: old + pipe.encode_reference(make_picture(1, (32, 32)))},
        {"reference": lambda pipe, old: _with_other_weights(pipe, old, lambda pipe: pipe.unet.conv_out)},
        {"reference": lambda pipe, old: _with_other_weights(pipe, old, lambda pipe: pipe.pose_encoder)},
        {"reference": lambda pipe, old: _with_other_weights(
            pipe, old, lambda pipe: next(iter(motion.temporal_layers(pipe.unet)))
        )},
        {"clip": make_clip(7, 300)},
        {"clip": make_clip(8)},
        {"guidance_scale": 3.0},
        {"window": 5},
        {"overlap": 2},
        {"num_inference_steps": 8},
        {"height": 16, "width": 32},
        {"latents": torch.ones(1, 4, 7, 4, 4)},
        {"scheduler": DPMSolverMultistepScheduler},
        {"drawing": "dwpose"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_loop_goes_on_with_nothing_but_what_it_began_with(pipe, reference, tmp_path, change):
    """Else you.png, with the name of a video of me that was cut off, would finish me."""
    kwargs = {"window": 4, "overlap": 1, "num_inference_steps": 7, "work_folder": tmp_path}
    steps = []

    class CutOff(Exception):
        pass

    def note(_, index, __, ___):
        steps.append(index)
        if len(steps) == 6:
            raise CutOff
        return {}

    with pytest.raises(CutOff):
        paint(pipe, reference, make_clip(7), callback_on_step_end=note, **kwargs)
    given = {"reference": lambda _, old: old, "clip": make_clip(7), **kwargs, **change}
    if scheduler := given.pop("scheduler", None):
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    if drawing := given.pop("drawing", None):
        pipe.register_to_config(pose_drawing=drawing)
    other, clip = given.pop("reference")(pipe, reference), given.pop("clip")
    steps.append(None)
    paint(pipe, other, clip, callback_on_step_end=note, **given)
    assert steps[7] == 0, "another loop"


def test_a_guidance_that_a_callback_changed_goes_on(pipe, reference, tmp_path):
    class CutOff(Exception):
        pass

    def weaken(cut):
        def after_step(pipe, index, _, __):
            if index == 1:
                pipe._guidance_scale = torch.tensor(1.5)
            if index == cut:
                raise CutOff
            return {}

        return after_step

    clip, kwargs = make_clip(2), {"num_inference_steps": 7, "guidance_scale": 3.0}
    whole = paint(pipe, reference, clip, callback_on_step_end=weaken(None), **kwargs).frames
    assert not np.array_equal(whole, paint(pipe, reference, clip, **kwargs).frames)
    with pytest.raises(CutOff):
        paint(pipe, reference, clip, callback_on_step_end=weaken(5), work_folder=tmp_path, **kwargs)
    again = paint(
        pipe, reference, clip, callback_on_step_end=weaken(None), work_folder=tmp_path, **kwargs
    ).frames
    assert np.array_equal(again, whole)


@pytest.mark.parametrize("shared", [False, True])
def test_a_loop_without_a_seed_goes_on_too(pipe, reference, tmp_path, shared):
    steps = []
    pipe.register_to_config(shared_noise=shared)
    one, two = (
        paint(
            pipe, reference, make_clip(2), generator=None, work_folder=tmp_path, num_inference_steps=4,
            callback_on_step_end=lambda _, index, *__: steps.append(index) or {},
        ).frames
        for _ in range(2)
    )  # fmt: skip
    assert steps == [0, 1, 2, 3], "the second call had nothing left to do"
    assert np.array_equal(one, two)


def test_pipelines_that_share_a_network_norm_as_each_says(pipe, reference):
    over = SCDPipeline.from_pipe(pipe, motion_norm_per_frame=False)
    clip = make_clip(3)
    per_frame, over_clip = (paint(one, reference, clip).frames for one in (pipe, over))
    assert not np.array_equal(per_frame, over_clip)
    adapt(over.unet)  # what an error advises
    assert np.array_equal(paint(over, reference, clip).frames, over_clip)
    assert np.array_equal(paint(pipe, reference, clip).frames, per_frame)


def test_a_network_that_is_given_keeps_its_own_temporal_layers(pipe, reference, tmp_path):
    """In place of the adapter of the pipeline, or folder, around it: a LoRA on clips was exported without."""
    learnt = copy.deepcopy(pipe.unet)
    for layer in motion.temporal_layers(learnt):
        torch.nn.init.normal_(layer.proj_out.weight, generator=seeded(5))
    pipe.save_pretrained(tmp_path)
    clip, before = make_clip(2), paint(pipe, reference, make_clip(2)).frames
    one = SCDPipeline.from_pipe(pipe, unet=learnt)
    two = SCDPipeline.from_pretrained(tmp_path, unet=learnt)
    for other in (one, two):
        other.set_progress_bar_config(disable=True)
        again = other.encode_reference(make_picture(0), make_pose(0))
        frames = paint(other, again, clip).frames
        assert not np.allclose(frames, before)
        assert all(torch.equal(other.unet.state_dict()[n], v) for n, v in learnt.state_dict().items())


def test_a_damaged_savepoint_costs_time_only(pipe, reference, tmp_path):
    clip = make_clip(2)
    whole = paint(pipe, reference, clip).frames
    paint(pipe, reference, clip, work_folder=tmp_path)
    (tmp_path / "loop.safetensors").write_bytes(b"half")
    assert np.array_equal(paint(pipe, reference, clip, work_folder=tmp_path).frames, whole)


def test_what_a_network_cannot_do_is_said(pipe, reference):
    with pytest.raises(ValueError, match="no motion modules and paints pictures only"):
        paint(make_pipeline(), None, make_clip(2))
    with pytest.raises(ValueError, match="a window of 40 frames: these motion modules can tell 32 apart"):
        paint(pipe, reference, make_clip(50), window=40)
    with pytest.raises(ValueError, match="no motion modules"):
        predict(adapt(make_unet()), torch.zeros(2, 4, 8, 8), torch.tensor([1, 1]), None,
                torch.zeros(2, 1, 16), num_frames=2)  # fmt: skip
    layer = next(motion.temporal_layers(pipe.unet))
    layer.__class__ = AnimateDiffTransformer3D
    with pytest.raises(ValueError, match="temporal layers are not SCD's"):
        check_adapted(pipe.unet)


# ---- the network ----


def test_parts_share_their_parameters_and_are_stock():
    unet = make_unet((32, 64, 64))
    adapter = make_adapter(unet)
    joined = motion.join(unet, adapter)
    assert type(joined) is UNetMotionModel
    ids = {id(p) for p in [*unet.parameters(), *adapter.parameters()]}
    assert {id(p) for p in joined.parameters()} == ids
    joined.conv_in.requires_grad_(False)  # what is frozen stays so: training saves in its midst
    learns = {name: p.requires_grad for name, p in joined.named_parameters()}
    apart, temporal = motion.split(joined)
    assert {name: p.requires_grad for name, p in joined.named_parameters()} == learns
    motion.join(apart, temporal)
    assert {name: p.requires_grad for name, p in joined.named_parameters()} == learns
    assert type(apart) is UNet2DConditionModel
    assert type(temporal) is MotionAdapter
    for before, after in ((unet, apart), (adapter, temporal)):
        names = [{n: id(p) for n, p in part.named_parameters()} for part in (before, after)]
        assert names[0] == names[1]
        same = {k: v for k, v in before.config.items() if not k.startswith("_")}
        assert same == {k: v for k, v in after.config.items() if not k.startswith("_")}
    assert not any(t.is_meta for m in (joined, apart, temporal) for t in (*m.parameters(), *m.buffers()))
    with pytest.raises(ValueError, match="made for another network"):
        motion.join(make_unet((32, 64)), adapter)
    with pytest.raises(ValueError, match="made for another network"):
        motion.join(make_unet((32, 64, 96)), adapter)


def test_spatial_layers_are_ours_and_temporal_ones_stock(pipe):
    names = {name for name, _ in pipe.unet.named_modules() if name.endswith(".attn1")}
    spatial = spatial_layers(pipe.unet)
    assert names - spatial.keys(), "there are temporal layers, and they are not among the spatial ones"
    for name, module in pipe.unet.named_modules():
        if "motion_modules" in name and name.endswith((".attn1", ".attn2")):
            assert not isinstance(module.processor, CausalSelfAttention)


def test_per_clip_statistics_are_diffusers_own():
    torch.manual_seed(0)
    stock = AnimateDiffTransformer3D(2, 8, in_channels=16, norm_num_groups=4, num_positional_embeddings=8,
                                     positional_embeddings="sinusoidal", activation_fn="geglu")  # fmt: skip
    torch.nn.init.normal_(stock.proj_out.weight)
    x = torch.randn(6, 16, 3, 5)
    with torch.no_grad():
        truth = stock(x, num_frames=3)
        motion.adapt_motion(stock)
        motion.set_norm(stock, per_frame=False)
        assert torch.equal(stock(x, None, None, None, 3, None), truth)
        assert torch.equal(stock(x, num_frames=1), x)
        motion.set_norm(stock, per_frame=True)
        per_frame = stock(x, num_frames=3)
    assert (per_frame - truth).abs().max() > 1e-3
    # Frame statistics: a scaled frame gives the same normalised frame, so its residual is the same
    scaled = x.clone()
    scaled[1] *= 3
    with torch.no_grad():
        change = (stock(scaled, num_frames=3) - scaled) - (per_frame - x)
    assert change.abs().max() < 1e-3


def test_checkpointing_changes_no_gradient(pipe):
    layer = next(motion.temporal_layers(pipe.unet))
    gradients = []
    for on in (False, True):
        layer.gradient_checkpointing = on
        x = torch.randn(4, layer.norm.num_channels, 2, 2, generator=seeded(1)).requires_grad_()
        layer(x, num_frames=4).square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


def test_folder_round_trip(pipe, reference, tmp_path):
    clip = make_clip(5)
    before = paint(pipe, reference, clip).frames
    pipe.save_pretrained(tmp_path / "model")
    assert type(pipe.unet) is UNetMotionModel, "saving leaves the pipeline as it was"
    UNet2DConditionModel.from_pretrained(tmp_path / "model" / "unet")
    MotionAdapter.from_pretrained(tmp_path / "model" / "motion_adapter")
    again = SCDPipeline.from_pretrained(tmp_path / "model")
    again.set_progress_bar_config(disable=True)
    assert type(again.unet) is UNetMotionModel
    state, loaded = pipe.unet.state_dict(), again.unet.state_dict()
    assert all(torch.equal(state[name], loaded[name]) for name in state)
    after = paint(again, again.encode_reference(make_picture(0, (32, 32)), make_pose(0)), clip).frames
    assert np.abs(before - after).max() < 1e-5
    shared = {id(p) for p in again.motion_adapter.parameters()} <= {id(p) for p in again.unet.parameters()}
    assert shared, "one set of weights in memory"


def test_a_motion_network_given_whole_keeps_its_motion_when_saved(pipe, tmp_path):
    given = SCDPipeline(pipe.vae, pipe.unet, pipe.pose_encoder, pipe.scheduler)
    assert given.motion_adapter is not None
    given.save_pretrained(tmp_path)
    again = SCDPipeline.from_pretrained(tmp_path).unet.state_dict()
    assert all(torch.equal(again[name], value) for name, value in pipe.unet.state_dict().items())


def test_half_precision_and_from_pipe(pipe):
    half = make_motion_pipeline().to(torch.bfloat16)
    assert {p.dtype for p in half.unet.parameters()} == {torch.bfloat16}
    reference = half.encode_reference(make_picture(0, (32, 32)), make_pose(0))
    frames = paint(half, reference, make_clip(3)).frames
    exact = paint(pipe, pipe.encode_reference(make_picture(0, (32, 32)), make_pose(0)), make_clip(3)).frames
    assert np.abs(frames - exact).mean() < 0.01  # a reference does less, with random weights: test_embedded
    again = SCDPipeline.from_pipe(pipe)
    assert again.unet is pipe.unet
    assert again.motion_adapter is pipe.motion_adapter


def test_another_motion_adapter_takes_the_place_of_the_first(pipe, reference):
    """On the same picture weights, which read the same references; the first pipeline stays as it is."""
    first = paint(pipe, reference, make_clip(3)).frames
    adapter = make_adapter(pipe.unet, random=False)  # zero output projections: frames are pictures
    other = SCDPipeline.from_pipe(pipe, motion_adapter=adapter)
    assert other.motion_adapter is adapter
    assert other.unet.conv_in.weight is pipe.unet.conv_in.weight
    untrained = paint(make_motion_pipeline(random=False), reference, make_clip(3)).frames
    assert np.array_equal(paint(other, reference, make_clip(3)).frames, untrained)
    assert not np.array_equal(untrained, first)
    assert np.array_equal(paint(pipe, reference, make_clip(3)).frames, first)
    back = SCDPipeline.from_pipe(other, motion_adapter=pipe.motion_adapter)
    assert np.array_equal(paint(back, reference, make_clip(3)).frames, first)


def test_the_schedule_stays_refused_or_taken(pipe):
    pipe.scheduler = make_scheduler()
    with pytest.raises(ValueError, match="prediction"):
        pipe.scheduler = make_scheduler(prediction_type="epsilon", rescale_betas_zero_snr=False)
