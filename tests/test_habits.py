"""diffusers' own habits hold, and no switch paints without the reference: each leaves the picture as it was,
or is an error that names the layer."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import make_clip, make_picture, make_pipeline, make_pose
from diffusers.models.attention_processor import AttnProcessor2_0
from safetensors.torch import load_file, save_file
from test_clips import make_motion_pipeline

from scd import SCDPipeline
from scd.codec import PatchCodec
from scd.reference import StaleReference
from scd.types import UserError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def paint(pipe, **kwargs):
    reference = pipe.encode_reference(make_picture(0), make_pose(0))
    settings = {"generator": seeded(), "output_type": "pt", **kwargs}
    return pipe(reference, make_pose(1), **settings).images


def relative(a, b):
    return ((a - b).abs().max() / b.std()).item()


# ---- switches ----


@pytest.mark.parametrize(
    ("switch", "word"),
    [
        (lambda pipe: pipe.enable_attention_slicing(), "attention slicing: SDPA already"),
        (lambda pipe: pipe.enable_attention_slicing("max"), "attention slicing: SDPA already"),
        (lambda pipe: pipe.enable_xformers_memory_efficient_attention(), "xformers: SDPA already does this"),
    ],
)
def test_switches_that_change_nothing_and_say_so(pipe, caplog, switch, word):
    before = paint(pipe)
    with caplog.at_level(logging.WARNING):
        switch(pipe)
    assert word in caplog.text
    assert torch.equal(paint(pipe), before)
    caplog.clear()
    pipe.disable_attention_slicing()
    pipe.disable_xformers_memory_efficient_attention()
    assert not caplog.text
    assert torch.equal(paint(pipe), before)


@pytest.mark.parametrize(
    "switch",
    [
        lambda pipe: pipe.unet.set_attn_processor(AttnProcessor2_0()),
        lambda pipe: pipe.unet.fuse_qkv_projections(),
        lambda pipe: pipe.unet.set_attention_slice("max"),
        lambda pipe: pipe.unet._load_ip_adapter_weights([ip_adapter(pipe.unet)]),
    ],
    ids=["stock processors", "fused QKV", "sliced network", "IP-Adapter"],
)
def test_switches_that_would_lose_the_reference_are_errors_that_name_the_layer(pipe, switch):
    reference = pipe.encode_reference(make_picture(0), make_pose(0))
    switch(pipe)
    with pytest.raises(ValueError, match=r"^layer down_blocks\.0\.attentions\.0\.\S+attn[12] has processor"):
        pipe(reference, make_pose(1))
    with pytest.raises(ValueError, match="cannot read a reference"):
        pipe.encode_reference(make_picture(0))


@pytest.mark.parametrize("network", [make_pipeline, make_motion_pipeline], ids=["picture", "motion"])
def test_refused_switches_leave_the_picture_as_it_was(network):
    pipe = network()
    before = paint(pipe)
    layer = r"layer down_blocks\.0\.\S+attn1"
    with pytest.raises(ValueError, match=rf"{layer}, which reads the reference"):
        pipe.unet.set_default_attn_processor()
    with pytest.raises(ValueError, match=rf"fused QKV: {layer} would lose the processor"):
        pipe.fuse_qkv_projections()
    assert torch.equal(paint(pipe), before)
    pipe.fuse_qkv_projections(unet=False)
    assert relative(paint(pipe), before) < 1e-4
    pipe.unfuse_qkv_projections(unet=False)
    assert torch.equal(paint(pipe), before)
    # set on the network itself: refused at the next call, and undone by diffusers' own opposite
    pipe.unet.fuse_qkv_projections()
    with pytest.raises(ValueError, match=rf"{layer} has processor Fused"):
        paint(pipe)
    pipe.unet.unfuse_qkv_projections()
    assert torch.equal(paint(pipe), before)


@pytest.mark.parametrize("network", [make_pipeline, make_motion_pipeline], ids=["picture", "motion"])
def test_freeu_acts_and_makes_references_stale(network):
    """It scales what the last blocks see, so a reference read without it has other keys."""
    pipe = network()
    reference = pipe.encode_reference(make_picture(0), make_pose(0))
    before = paint(pipe)
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    with pytest.raises(StaleReference, match="extracted with other settings of FreeU: call encode_reference"):
        pipe(reference, make_pose(1))
    assert relative(paint(pipe), before) > 1e-2
    other = pipe.encode_reference(make_picture(0), make_pose(0))
    pipe.disable_freeu()
    with pytest.raises(StaleReference, match="FreeU"):
        pipe(other, make_pose(1))
    assert torch.equal(paint(pipe), before)
    pipe(reference, make_pose(1))


def ip_adapter(unet):
    """The smallest file that diffusers takes for an IP-Adapter of this network."""
    width = unet.config.cross_attention_dim
    state, key = {}, 1
    for name, layer in unet.named_modules():
        if name.endswith("attn2"):
            for part in ("k", "v"):
                state[f"{key}.to_{part}_ip.weight"] = torch.zeros(layer.to_k.out_features, width)
            key += 2
    projection = {
        "proj.weight": torch.zeros(4 * width, 8), "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width), "norm.bias": torch.zeros(width),
    }  # fmt: skip
    return {"image_proj": projection, "ip_adapter": state}


# ---- the VAE ----


def test_vae_slicing_is_exact_and_tiling_paints_the_same_person(pipe):
    poses = [make_pose(1), make_pose(2)]
    reference = pipe.encode_reference(make_picture(0), make_pose(0))
    before = pipe(reference, poses, generator=seeded(), output_type="pt").images
    pipe.vae.enable_slicing()
    assert relative(pipe(reference, poses, generator=seeded(), output_type="pt").images, before) < 1e-4
    pipe.vae.enable_tiling()  # 64 px here are one tile
    assert relative(pipe(reference, poses, generator=seeded(), output_type="pt").images, before) < 1e-4


def test_vae_tiling_in_several_tiles_and_the_embedded_codec():
    pipe = make_pipeline()
    whole = paint(pipe, height=128, width=96)
    latents = paint(pipe, height=128, width=96, output_type="latent")
    pipe.vae.enable_tiling()
    pipe.vae.tile_latent_min_size, pipe.vae.tile_sample_min_size = 8, 64
    tiled = paint(pipe, height=128, width=96)
    assert not torch.equal(tiled, whole), "four tiles"
    with torch.no_grad():  # diffusers' own tiles of the very same latents
        truth = pipe.vae.tiled_decode(latents / pipe.vae.config.scaling_factor).sample / 2 + 0.5
    assert torch.equal(tiled, truth.clamp(0, 1))
    codec = PatchCodec(4)
    before = codec.decode(torch.ones(1, 4, 2, 2)).sample
    codec.enable_slicing()
    codec.enable_tiling()
    assert torch.equal(codec.decode(torch.ones(1, 4, 2, 2)).sample, before)


# ---- sharing, saving, moving ----


def test_ip_adapters_are_refused(pipe):
    with pytest.raises(ValueError, match=r"IP-Adapter: .* pipe\.encode_reference does this"):
        pipe.load_ip_adapter("h94/IP-Adapter", subfolder="models", weight_name="ip-adapter_sd15.safetensors")


def test_components_and_from_pipe_share_weights_and_settings():
    pipe = make_pipeline(make_clip())
    before = paint(pipe)
    optional = {"image_encoder", "motion_adapter", "reference_unet"}
    assert set(pipe.components) == {"vae", "unet", "pose_encoder", "scheduler", *optional}
    rebuilt = SCDPipeline(**pipe.components, default_size=64, default_steps=3, default_guidance=2.0)
    assert rebuilt.unet is pipe.unet
    assert torch.equal(paint(rebuilt), before)
    other = SCDPipeline.from_pipe(pipe)
    assert other.unet is pipe.unet
    assert other.image_encoder is pipe.image_encoder
    assert other.config.default_steps == 3
    assert other.config.reference_timestep == 0
    assert torch.equal(paint(other), before)


def test_variants_and_dtypes_round_trip(tmp_path):
    pipe = make_pipeline(make_clip())
    pipe.to(torch.float16)
    pipe.save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    for word in ("torch_dtype", "dtype"):
        half = SCDPipeline.from_pretrained(tmp_path, variant="fp16", **{word: torch.float16})
        assert {m.dtype for m in half.components.values() if hasattr(m, "dtype")} == {torch.float16}
    single = SCDPipeline.from_pretrained(tmp_path, variant="fp16")
    single.to(torch.float32)
    assert relative(paint(single), paint(pipe.to(torch.float32))) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_paints_the_same_picture(dtype):
    before = paint(make_pipeline(make_clip()))
    half = make_pipeline(make_clip()).to(dtype)
    out = paint(half)
    assert out.isfinite().all()
    assert (out - before).abs().mean() < 0.05 * before.std()


def test_dtypes_by_component_and_the_wrong_variant(tmp_path):
    pipe = make_pipeline(make_clip())
    pipe.save_pretrained(tmp_path)
    mixed = SCDPipeline.from_pretrained(
        tmp_path, torch_dtype={"vae": torch.bfloat16, "default": torch.float16}
    )
    dtypes = {name: part.dtype for name, part in mixed.components.items() if hasattr(part, "dtype")}
    assert dtypes == {"vae": torch.bfloat16, "unet": torch.float16, "pose_encoder": torch.float16,
                      "image_encoder": torch.float16}  # fmt: skip
    with pytest.raises(ValueError, match="You are trying to load the model files of the `variant=fp16`"):
        SCDPipeline.from_pretrained(tmp_path, variant="fp16")


def test_every_network_is_float32_unless_asked_and_off_the_files(tmp_path):
    """transformers would give half precision for a half-precision file; a mapped file's odd addresses would
    change the last bit (full-size CLIP: 8e-7 of 0.94)."""
    pipe = make_pipeline(make_clip()).to(torch.float16)
    pipe.save_pretrained(tmp_path)
    again = SCDPipeline.from_pretrained(tmp_path)
    networks = [part for part in again.components.values() if isinstance(part, torch.nn.Module)]
    assert len(networks) == 4
    assert {network.dtype for network in networks} == {torch.float32}
    again.save_pretrained(tmp_path / "single")
    for network in SCDPipeline.from_pretrained(tmp_path / "single").components.values():
        if isinstance(network, torch.nn.Module):
            assert {p.data_ptr() % 64 for p in network.parameters()} == {0}


def test_every_key_of_the_image_encoder_is_accounted_for(tmp_path):
    make_pipeline(make_clip()).save_pretrained(tmp_path)
    file = tmp_path / "image_encoder" / "model.safetensors"
    state = load_file(file)
    state["odd"] = state.pop("visual_projection.weight")
    save_file(state, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"image_encoder: .*: visual_projection.weight; left over: odd$"):
        SCDPipeline.from_pretrained(tmp_path)


def test_every_key_of_a_model_from_the_hub_is_accounted_for(tmp_path):
    """A hub id in the cache, as the hub's client lays it out."""
    revision, home = "a" * 40, tmp_path / "models--me--small"
    make_pipeline().save_pretrained(home / "snapshots" / revision)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(revision)
    options = {"cache_dir": tmp_path, "local_files_only": True}
    assert torch.equal(paint(SCDPipeline.from_pretrained("me/small", **options)), paint(make_pipeline()))
    file = home / "snapshots" / revision / "pose_encoder" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["odd"] = state.pop("conv_in.bias")
    save_file(state, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"pose_encoder: .*: missing: conv_in.bias; left over: odd$"):
        SCDPipeline.from_pretrained("me/small", **options)


@pytest.mark.parametrize("option", [{"device_map": "cuda"}, {"quantization_config": {"load_in_4bit": True}}])
def test_options_that_would_be_passed_over_are_refused(tmp_path, option):
    make_pipeline().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"{next(iter(option))}: networks are loaded on the CPU"):
        SCDPipeline.from_pretrained(tmp_path, **option)


def test_folders_hold_safetensors_whatever_is_asked_for(tmp_path, caplog):
    pipe = make_pipeline()
    with caplog.at_level(logging.WARNING):
        pipe.save_pretrained(tmp_path, safe_serialization=False)
    assert "written as safetensors all the same" in caplog.text
    assert not list(tmp_path.rglob("*.bin"))
    assert torch.equal(paint(SCDPipeline.from_pretrained(tmp_path)), paint(pipe))


def test_optional_components_may_be_absent_or_given(tmp_path):
    pipe = make_pipeline()
    pipe.save_pretrained(tmp_path)
    again = SCDPipeline.from_pretrained(tmp_path)
    assert again.image_encoder is None
    with_clip = SCDPipeline.from_pretrained(tmp_path, image_encoder=make_clip())
    assert with_clip.encode_context(torch.rand(1, 3, 64, 64) * 2 - 1).abs().max() > 0


def test_layerwise_casting_keeps_weights_small_and_the_picture():
    before = paint(make_pipeline())
    pipe = make_pipeline()
    pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    stored = {p.dtype for n, p in pipe.unet.named_parameters() if "attn1.to_q" in n}
    assert stored == {torch.float8_e4m3fn}
    out = paint(pipe)
    assert out.isfinite().all()
    assert (out - before).abs().mean() < 0.2 * before.std()  # 3 bits of mantissa
    assert pipe.stamp["weights"] != make_pipeline().stamp["weights"]


# ---- a call ----


def test_several_pictures_of_each_pose(pipe):
    references = [pipe.encode_reference(make_picture(i), make_pose(i)) for i in range(2)]
    poses, generators = [make_pose(5), make_pose(6)], [seeded(i) for i in range(4)]
    out = pipe(references, poses, generator=generators, output_type="pt", num_images_per_prompt=2).images
    assert len(out) == 4
    for i in range(4):
        alone = pipe(references[i // 2], poses[i // 2], generator=seeded(i), output_type="pt").images
        assert relative(out[i : i + 1], alone) < 1e-4
    assert len(pipe(references[0], poses, num_images_per_prompt=3, output_type="latent").images) == 6


def test_a_callback_steers_guidance(pipe):
    def unguided_after_the_first(pipe, index, t, tensors):
        pipe._guidance_scale = 1.0
        return {}

    rows = []
    pipe.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    out = paint(pipe, callback_on_step_end=unguided_after_the_first, guidance_scale=3.0)
    assert rows == [1, 2, 1, 1], "the reference, a guided step, two unguided"
    assert pipe.guidance_scale == 1
    assert not torch.equal(out, paint(pipe, guidance_scale=3.0))


def test_callback_objects_name_their_own_tensors(pipe):
    from diffusers.callbacks import PipelineCallback

    class Zero(PipelineCallback):
        tensor_inputs = ("latents",)

        def callback_fn(self, pipeline, step_index, timesteps, callback_kwargs):
            return {"latents": 0 * callback_kwargs["latents"]}

    out = paint(
        pipe, callback_on_step_end=Zero(), callback_on_step_end_tensor_inputs=(), output_type="latent"
    )
    assert (out == 0).all()


def test_callback_tensors_interrupt_and_progress(pipe, capsys):
    seen = []

    def stop(pipe, index, t, tensors):
        seen.append((index, int(t), sorted(tensors)))
        pipe._interrupt = index == 0
        return {}

    paint(pipe, callback_on_step_end=stop, num_inference_steps=5)
    assert seen == [(0, 999, ["latents"])]
    assert pipe.num_timesteps == 5
    pipe.set_progress_bar_config(disable=True)
    capsys.readouterr()
    paint(pipe)
    assert capsys.readouterr().err == ""
    pipe.set_progress_bar_config(disable=False, desc="painting")
    paint(pipe)
    assert "painting" in capsys.readouterr().err
    with pytest.raises(ValueError, match="not offered"):
        paint(pipe, callback_on_step_end=stop, callback_on_step_end_tensor_inputs=["noise"])


def test_output_types_are_one_picture(pipe):
    latent = paint(pipe, output_type="latent")
    assert tuple(latent.shape) == (1, 4, 8, 8)
    pt = paint(pipe)
    assert torch.equal(pipe.decode_latents(latent), pt)
    array = paint(pipe, output_type="np")
    assert np.array_equal(array, pt.permute(0, 2, 3, 1).numpy())
    (image,) = paint(pipe, output_type="pil")
    assert np.array_equal(np.asarray(image), np.rint(array[0] * 255).astype(np.uint8))
    with pytest.raises(ValueError, match="output_type 'jpeg' is not one of"):
        paint(pipe, output_type="jpeg")


def test_latents_and_seeds_decide_the_noise(pipe):
    noise = torch.randn(1, 4, 8, 8, generator=seeded())
    assert torch.equal(paint(pipe, latents=noise, generator=None), paint(pipe))
    assert not torch.equal(paint(pipe, generator=seeded(1)), paint(pipe))
    assert torch.equal(paint(pipe, generator=[seeded()]), paint(pipe))


def test_a_fresh_process_loads_what_another_saved(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    code = f"import scd; p = scd.SCDPipeline.from_pretrained({str(tmp_path)!r}); print(p.stamp['weights'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == pipe.stamp["weights"]
