"""The pipeline: references are values, guidance costs what it should, one seed gives one picture, and folders
round-trip."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_clip, make_picture, make_pipeline, make_pose
from PIL import Image
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from scd import inputs
from scd.encoders import as_pixels
from scd.inputs import on_device
from scd.media import read_image
from scd.reference import Reference, StaleReference
from scd.savepoint import Savepoint, _restored
from scd.types import UserError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def close(a, b):
    """At most 1/255 off in at most 0.1 % of values."""
    off = np.abs(a.astype(int) - b.astype(int))
    return off.max() <= 1 and (off > 0).mean() <= 0.001


def images(output):
    return np.stack([np.asarray(i) for i in output.images])


@pytest.fixture
def reference(pipe):
    return pipe.encode_reference(make_picture(0), make_pose(0))


def test_one_seed_one_picture_in_any_batch_size(pipe, reference):
    poses = [make_pose(i) for i in range(3)]
    together = images(pipe(reference, poses, generator=seeded()))
    first_two = images(pipe(reference, poses[:2], generator=seeded()))
    assert close(together[:2], first_two)
    again = images(pipe(reference, poses, generator=seeded()))
    assert np.array_equal(together, again)
    each = [images(pipe(reference, p, generator=seeded(7 + i)))[0] for i, p in enumerate(poses)]
    assert close(images(pipe(reference, poses, generator=[seeded(7 + i) for i in range(3)])), np.stack(each))
    assert not close(together, images(pipe(reference, poses, generator=seeded(1))))


def test_one_reference_or_a_stack_serve_several_pictures_of_each_pose(pipe, reference):
    poses, seeds = [make_pose(1), make_pose(2)], [seeded(i) for i in range(4)]
    other = pipe.encode_reference(make_picture(1), make_pose(1))

    def both(given):
        for seed, generator in enumerate(seeds):
            generator.manual_seed(seed)
        return images(pipe(given, poses, generator=seeds, num_images_per_prompt=2))

    assert np.array_equal(both([reference]), both(reference))
    stacked = both(Reference.stack([reference, other]))
    assert np.array_equal(both([reference, other]), stacked)
    assert close(stacked[3], images(pipe(other, poses[1], generator=seeded(3)))[0])
    assert not close(stacked[3], images(pipe(reference, poses[1], generator=seeded(3)))[0])


def test_generators_of_another_device_draw_where_a_long_clip_lies(monkeypatch):
    """A stand-in for a CUDA generator, of which no CPU has one."""
    cuda = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(inputs, "_seed_of", lambda generator: 7 if generator is cuda else None)
    mine = seeded()
    moved, kept, none = on_device([cuda, mine, None], torch.device("cpu"))
    assert torch.equal(torch.randn(3, generator=moved), torch.randn(3, generator=seeded(7)))
    assert kept is mine
    assert none is None
    assert on_device([cuda, mine], torch.device("cuda")) == [cuda, mine]


def test_a_generator_moves_on(pipe, reference):
    g = seeded()
    assert not np.array_equal(
        images(pipe(reference, make_pose(1), generator=g)), images(pipe(reference, make_pose(1), generator=g))
    )


def test_n_references_go_with_n_poses(pipe):
    references = [pipe.encode_reference(make_picture(i), make_pose(i)) for i in range(2)]
    poses = [make_pose(5), make_pose(6)]
    together = images(pipe(references, poses, generator=[seeded(0), seeded(1)]))
    for i in range(2):
        assert close(together[i], images(pipe(references[i], poses[i], generator=seeded(i)))[0])
    with pytest.raises(ValueError, match="2 references for 1 poses"):
        pipe(references, poses[0])


@pytest.mark.parametrize("num", [0, -1])
def test_no_steps_are_not_the_default_s(pipe, reference, num):
    with pytest.raises(ValueError, match=f"num_inference_steps {num}: one step at least"):
        pipe(reference, make_pose(1), num_inference_steps=num)


def test_references_that_do_not_fit_are_said(pipe, reference, tmp_path):
    """In words, and before any step; a torch error, or a reference passed over, was what there was."""
    other = pipe.encode_reference(make_picture(1))
    with pytest.raises(ValueError, match="need one size and number"):
        pipe([reference, reference + other], [make_pose(1), make_pose(2)])
    pair = Reference.stack([reference, other])
    with pytest.raises(ValueError, match="references of 2 and 1 pictures: stack the sums"):
        pair + other
    for poses in (make_pose(1), [make_pose(i) for i in range(3)]):
        with pytest.raises(ValueError, match=r"2 references for [13] poses: give one for all, or one each"):
            pipe(pair, poses)
    assert len(pipe(pair, [make_pose(1), make_pose(2)], generator=seeded()).images) == 2
    two = [make_picture(0, (64, 32)), make_picture(1, (64, 32))]
    with pytest.raises(ValueError, match="need one size and number"):  # as many tokens, of two pictures
        pipe([pipe.encode_reference(two), reference], [make_pose(1), make_pose(2)])
    with pytest.raises(ValueError, match="2 reference pictures, but one pose: give a list, one each"):
        pipe.encode_reference(two, make_pose(0))
    with pytest.raises(ValueError, match="has one Pose, or None, not a list"):
        pipe.encode_reference(make_picture(0), [make_pose(0)])
    with pytest.raises(ValueError, match=r"a picture tensor is float .*, not torch.uint8 \(3, 64, 64\)"):
        pipe.encode_reference(torch.zeros(3, 64, 64, dtype=torch.uint8))
    for picture in ("photo.png", None):
        with pytest.raises(ValueError, match=f"a picture is uint8 .*, not {picture!r}"):
            pipe.encode_reference(picture)
    for picture, text in ((torch.full((3, 64, 64), -1.0), "from -1 to -1"), (torch.eye(64) * 255, "to 255")):
        with pytest.raises(ValueError, match=rf"a picture tensor is float in \[0, 1\], not .*{text}"):
            pipe.encode_reference(picture.expand(3, 64, 64))
    for given in (make_picture(0), [make_picture(0)], [reference, "photo.png"]):
        with pytest.raises(ValueError, match=r"a reference is what pipe.encode_reference returns, not"):
            pipe(given, [make_pose(1), make_pose(2)])
    with pytest.raises(ValueError, match="an empty list: give one reference for all poses"):
        pipe([], make_pose(1))
    with pytest.raises(TypeError, match="unsupported operand"):
        reference + make_picture(0)
    with pytest.raises(ValueError, match=r"generator is torch.Generator.*, or a list, not 7"):
        pipe(reference, make_pose(1), generator=7)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"file/r.safetensors cannot be written"):
        reference.save(tmp_path / "file" / "r.safetensors")


def test_a_savepoint_of_two_references_is_not_that_of_their_sum(pipe, reference, tmp_path):
    """Their bytes are the same."""
    other, poses = pipe.encode_reference(make_picture(1), make_pose(1)), [make_pose(2), make_pose(3)]
    each = images(pipe([reference, other], poses, generator=seeded(), work_folder=tmp_path))
    both = images(pipe(reference + other, poses, generator=seeded(), work_folder=tmp_path))
    assert np.array_equal(both, images(pipe(reference + other, poses, generator=seeded())))
    assert not np.array_equal(both, each)


@pytest.mark.parametrize("clip", [False, True])
def test_joined_references_equal_given_together(clip):
    pipe = make_pipeline(make_clip() if clip else None)
    pictures, poses = [make_picture(0), make_picture(1, (64, 48))], [make_pose(0), None]
    together = pipe.encode_reference(pictures, poses)
    joined = pipe.encode_reference(pictures[0], poses[0]) + pipe.encode_reference(pictures[1])
    assert torch.equal(together.context, joined.context)
    for name, kv in together.cache.entries.items():
        assert all(torch.equal(a, b) for a, b in zip(kv, joined.cache.entries[name], strict=True))
    name, (key, _) = next(iter(joined.cache.entries.items()))
    assert key.shape[1] == 64 + 48, name
    assert joined.context.shape[1] == 2
    out = images(pipe(joined, make_pose(3), generator=seeded()))
    one = images(pipe(pipe.encode_reference(pictures[0], poses[0]), make_pose(3), generator=seeded()))
    assert not np.array_equal(out, one)


def test_the_reference_and_its_pose_matter(pipe, reference):
    out = images(pipe(reference, make_pose(1), generator=seeded()))
    other = pipe.encode_reference(make_picture(1), make_pose(0))
    assert not np.array_equal(out, images(pipe(other, make_pose(1), generator=seeded())))
    unposed = pipe.encode_reference(make_picture(0))
    assert not np.array_equal(out, images(pipe(unposed, make_pose(1), generator=seeded())))
    assert not np.array_equal(out, images(pipe(None, make_pose(1), generator=seeded())))


def count_rows(pipe, **kwargs):
    rows = []
    handle = pipe.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    pipe(kwargs.pop("reference"), make_pose(1), generator=seeded(), **kwargs)
    handle.remove()
    return rows


def test_guidance_one_computes_nothing_twice(pipe, reference):
    assert count_rows(pipe, reference=reference, guidance_scale=1.0) == [1, 1, 1]
    assert count_rows(pipe, reference=reference, guidance_scale=2.0) == [2, 2, 2]
    assert count_rows(pipe, reference=None, guidance_scale=2.0) == [1, 1, 1]


def test_guidance_below_one_is_none_as_in_diffusers(pipe, reference):
    one, zero = (images(pipe(reference, make_pose(1), guidance_scale=g, generator=seeded())) for g in (1, 0))
    assert np.array_equal(one, zero)
    assert not close(zero, images(pipe(None, make_pose(1), generator=seeded())))


def test_guidance_one_equals_unguided_and_two_does_not(pipe, reference):
    """Unguided = the loop written out with the conditional rows alone."""
    latents = torch.randn(1, 4, 8, 8, generator=seeded())
    one = pipe(reference, make_pose(1), latents=latents, guidance_scale=1.0, output_type="latent").images
    features, state = pipe.encode_poses([make_pose(1)], (64, 64)), latents
    pipe.scheduler.set_timesteps(3)
    from scd.backbones.unet import denoise

    with torch.no_grad():
        for t in pipe.scheduler.timesteps:
            rows = denoise(pipe.unet, state, t.expand(1), features, reference.context, reference.cache, (0,))
            state = pipe.scheduler.step(rows, t, state).prev_sample
    assert torch.equal(one, state)
    two = pipe(reference, make_pose(1), latents=latents, guidance_scale=2.0, output_type="latent").images
    assert not torch.allclose(one, two)


def test_reference_file_round_trip(pipe, reference, tmp_path):
    reference.save(tmp_path / "r.safetensors")
    loaded = Reference.load(tmp_path / "r.safetensors")
    assert loaded.stamp == reference.stamp
    for name, kv in reference.cache.entries.items():
        assert all(torch.equal(a, b) for a, b in zip(kv, loaded.cache.entries[name], strict=True))
    a, b = (images(pipe(r, make_pose(1), generator=seeded())) for r in (reference, loaded))
    assert np.array_equal(a, b)
    (tmp_path / "bad.safetensors").write_bytes(b"not this")
    with pytest.raises(UserError, match=r"bad\.safetensors: no readable reference file"):
        Reference.load(tmp_path / "bad.safetensors")


def test_stale_references_are_refused(pipe, reference):
    with torch.no_grad():
        pipe.unet.conv_out.weight.mul_(1.01)
    with pytest.raises(StaleReference, match="other network weights: call encode_reference again"):
        pipe(reference, make_pose(1))
    with pytest.raises(StaleReference, match="other network weights"):
        reference + pipe.encode_reference(make_picture(1))


def test_stale_by_timestep_pose_encoder_and_precision(pipe, reference):
    assert pipe.stamp["reference_timestep"] == "0"
    pipe.register_to_config(reference_timestep=1)
    with pytest.raises(StaleReference, match="another reference timestep"):
        pipe(reference, make_pose(1))
    pipe.register_to_config(reference_timestep=0)
    pipe(reference, make_pose(1))
    with torch.no_grad():
        pipe.pose_encoder.conv_in.weight.mul_(2)
    with pytest.raises(StaleReference, match="another pose encoder"):
        pipe(reference, make_pose(1))
    pipe.to(torch.bfloat16)
    with pytest.raises(StaleReference, match="another precision"):
        pipe(reference, make_pose(1))


def test_a_change_of_precision_is_seen_whatever_the_values(pipe):
    """Half precision as float32 has the same values; only its dtype tells that a reference is stale."""
    pipe.to(torch.bfloat16).to(torch.float32)  # values that both can hold
    old = pipe.encode_reference(make_picture(0), make_pose(0))
    pipe.to(torch.bfloat16)
    with pytest.raises(StaleReference, match="another precision"):
        pipe(old, make_pose(1))
    new = pipe.encode_reference(make_picture(0), make_pose(0))
    assert new.stamp["dtype"] == "bfloat16"
    assert len(pipe(new, make_pose(1), generator=seeded()).images) == 1


def test_a_size_that_was_not_asked_for_is_the_poses_bucket(pipe, reference, caplog):
    tall = replace(make_pose(1), size=(1600, 1000))
    out = pipe(reference, tall, output_type="np", generator=seeded()).images
    assert out.shape == (1, 80, 48, 3), "64 x 64 pixels in the shape of 1600 x 1000"
    assert not caplog.messages
    assert pipe(reference, tall, 64, 64, output_type="np").images.shape == (1, 64, 64, 3)
    assert caplog.messages == [
        "a pose of a picture of 1600 x 1000 is stretched to 64 x 64; keep its shape: "
        "scd.media.place(pose.size, size).apply_to_pose(pose)"
    ]
    pipe.register_to_config(world_version=1)
    assert pipe(reference, tall, output_type="np").images.shape == (1, 64, 64, 3), "drawn people: the square"
    assert len(caplog.messages) == 2


def test_a_reference_of_which_no_joint_is_sure_is_one_without_a_pose(pipe):
    """As training has it: a black drawing has no features, and not those of a person of no joints."""
    torch.nn.init.normal_(pipe.pose_encoder.conv_out.bias)
    torch.nn.init.normal_(pipe.pose_encoder.conv_out.weight)
    pose = make_pose(0)

    def painted(given):
        reference = pipe.encode_reference(make_picture(0), given)
        return pipe(reference, make_pose(1), generator=seeded(), output_type="latent").images

    unsure = replace(pose, scores=np.full_like(pose.scores, 0.29))
    assert torch.equal(painted(unsure), painted(None))
    assert not torch.equal(painted(pose), painted(None))


def test_a_replaced_processor_is_an_error(pipe, reference):
    from diffusers.models.attention_processor import AttnProcessor2_0

    pipe.unet.set_attn_processor(AttnProcessor2_0())
    with pytest.raises(
        ValueError, match=r"attn1 has processor AttnProcessor2_0, which cannot read a reference"
    ):
        pipe(reference, make_pose(1))
    with pytest.raises(ValueError, match="cannot read a reference"):
        pipe.encode_reference(make_picture(0))


def test_outputs_and_sizes(pipe, reference):
    for kind, shape in (("pt", (1, 3, 40, 72)), ("np", (1, 40, 72, 3)), ("latent", (1, 4, 5, 9))):
        out = pipe(reference, make_pose(1), 40, 72, output_type=kind, return_dict=False)
        assert isinstance(out, tuple)
        assert tuple(out[0].shape) == shape
    with pytest.raises(ValueError, match="multiples of 8, not 41 x 64"):
        pipe(reference, make_pose(1), 41, 64)
    with pytest.raises(ValueError, match="multiples of 8, not 30 x 64"):
        pipe.encode_reference(make_picture(0, (30, 64)))
    with pytest.raises(ValueError, match="no poses"):
        pipe(reference, [])
    for pose, name in ((None, "NoneType"), (make_picture(0), "ndarray")):
        with pytest.raises(ValueError, match=f"a pose is a Pose or a PoseClip, not {name}"):
            pipe(reference, [make_pose(1), pose])
    with pytest.raises(ValueError, match="latents have shape"):
        pipe(reference, make_pose(1), latents=torch.zeros(1, 4, 3, 3))


def test_callback_sees_and_changes_latents_and_interrupts(pipe, reference):
    seen = []

    def stop(pipe, index, t, tensors):
        seen.append(index)
        pipe._interrupt = index == 1
        return {"latents": torch.zeros_like(tensors["latents"])}

    out = pipe(
        reference, make_pose(1), generator=seeded(), callback_on_step_end=stop, output_type="latent"
    ).images
    assert seen == [0, 1]
    assert (out == 0).all()


def test_folder_round_trip_in_a_fresh_process(pipe, reference, tmp_path):
    """`import scd` stays light, and model_index.json's ["scd", ...] entries resolve without our modules being
    imported first."""
    pipe.save_pretrained(tmp_path / "model")
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    assert index["pose_encoder"] == ["scd", "PoseEncoder"]
    assert index["reference_timestep"] == 0
    expected = pipe(reference, make_pose(1), generator=seeded(), output_type="pt").images
    torch.save(expected, tmp_path / "expected.pt")
    code = f"""
import sys, scd
assert "torch" not in sys.modules and "diffusers" not in sys.modules
sys.path.insert(0, {str(__import__("pathlib").Path(__file__).parent)!r})
import torch
pipe = scd.SCDPipeline.from_pretrained({str(tmp_path / "model")!r})
from conftest import make_picture, make_pipeline, make_pose
other = make_pipeline()
weights = zip(pipe.unet.state_dict().values(), other.unet.state_dict().values())
assert all(torch.equal(a, b) for a, b in weights)
assert pipe.config.default_guidance == 2.0
reference = pipe.encode_reference(make_picture(0), make_pose(0))
out = pipe(reference, make_pose(1), generator=torch.Generator().manual_seed(0), output_type="pt").images
expected = torch.load({str(tmp_path / "expected.pt")!r}, weights_only=True)
assert (out - expected).abs().max() < 1e-5 * expected.std(), (out - expected).abs().max()
from diffusers import UNet2DConditionModel
UNet2DConditionModel.from_pretrained({str(tmp_path / "model" / "unet")!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_bad_folders_are_named(pipe, tmp_path):
    from safetensors.torch import load_file, save_file

    import scd

    with pytest.raises(UserError, match=r"no SCD model folder"):
        scd.SCDPipeline.from_pretrained(tmp_path)
    pipe.save_pretrained(tmp_path / "m")
    file = tmp_path / "m" / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights.pop("conv_out.bias")
    weights["extra.weight"] = torch.zeros(1)
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"conv_out\.bias.*extra\.weight"):
        scd.SCDPipeline.from_pretrained(tmp_path / "m")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"unet: cannot be loaded"):
        scd.SCDPipeline.from_pretrained(tmp_path / "m")


@pytest.mark.parametrize("size", [(32, 32), (64, 48)])
def test_the_image_embedding_is_that_of_clip_s_own_preparation(size):
    """transformers' constants; of another size, Pillow's resampling, which public weights learnt with."""
    pipe, picture = make_pipeline(make_clip()), make_picture(0, size)
    small = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC))
    mean, std = (torch.tensor(v)[:, None, None] for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    prepared = (torch.from_numpy(small.copy()).permute(2, 0, 1)[None] / 255 - mean) / std
    with torch.no_grad():
        wanted = pipe.image_encoder(prepared).image_embeds
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
        given = pipe.encode_context(pixels)[:, 0]
    assert (given - wanted).abs().max() < (1e-5 if size == (32, 32) else 0.02) * wanted.std()


def test_image_embedding_reaches_the_target():
    pipe = make_pipeline(make_clip())
    reference = pipe.encode_reference(make_picture(0), make_pose(0))
    assert reference.context.abs().max() > 0
    from dataclasses import replace

    other = replace(reference, context=pipe.encode_reference(make_picture(4), make_pose(0)).context)
    a, b = (
        pipe(r, make_pose(1), generator=seeded(), output_type="latent").images for r in (reference, other)
    )
    assert not torch.allclose(a, b)


def test_place_features_tell_places_apart():
    from scd.pose_encoder import place_features

    waves = place_features(torch.zeros(2, 5, 4, 6), 3)
    assert waves.shape == (2, 12, 4, 6)
    places = waves[0].flatten(1).T
    assert torch.cdist(places, places).fill_diagonal_(9).min() > 0.1
    heights = torch.tensor([-0.75, -0.25, 0.25, 0.75])
    assert torch.allclose(waves[0, 0, :, 0], torch.sin(torch.pi / 2 * heights))
    assert torch.equal(waves[:, :, :, 0], place_features(torch.zeros(2, 5, 4, 6), 3)[:, :, :, 0])


def test_guidance_drops_the_cache_and_the_context_and_keeps_the_pose():
    """One guided step, written out: the unconditional rows have no reference, zero context and the pose."""
    from scd.backbones.unet import denoise

    pipe = make_pipeline(make_clip())
    reference = pipe.encode_reference(make_picture(0), make_pose(0))
    latents = torch.randn(1, 4, 8, 8, generator=seeded())
    arguments = {"num_inference_steps": 1, "guidance_scale": 3.0, "output_type": "latent"}
    guided = pipe(reference, make_pose(1), latents=latents, **arguments).images
    features = pipe.encode_poses([make_pose(1)], (64, 64))
    pipe.scheduler.set_timesteps(1)
    t = pipe.scheduler.timesteps[0]
    with torch.no_grad():
        zero = torch.zeros_like(reference.context)
        free = denoise(pipe.unet, latents, t.expand(1), features, zero, None, (-1,))
        read = denoise(pipe.unet, latents, t.expand(1), features, reference.context, reference.cache, (0,))
    expected = pipe.scheduler.step(free + 3 * (read - free), t, latents).prev_sample
    assert (guided - expected).abs().max() < 1e-5 * expected.std()


def test_pil_pictures_are_read_as_files_are(tmp_path):
    """Transparency on white, 16 bits as 8, upright."""
    hidden = Image.new("RGBA", (16, 16), (200, 0, 0, 0))
    hidden.putpixel((3, 2), (0, 90, 0, 255))
    grey = Image.fromarray(np.full((16, 16), 20000, np.uint16))
    lying = Image.fromarray((np.arange(24 * 16 * 3) % 256).astype(np.uint8).reshape(24, 16, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, image, more in (("h.png", hidden, {}), ("g.png", grey, {}), ("l.png", lying, {"exif": exif})):
        image.save(tmp_path / name, **more)
        with Image.open(tmp_path / name) as opened:
            ours = as_pixels(opened, 8)
            assert opened.size == image.size, "the caller's own picture stays"
        truth = torch.from_numpy(read_image(tmp_path / name)).permute(2, 0, 1) / 255
        torch.testing.assert_close(ours, truth)
    assert as_pixels(hidden, 8)[:, 0, 0].tolist() == [1, 1, 1]


def test_a_savepoint_goes_back_to_the_device_of_the_loop(pipe, reference, tmp_path, monkeypatch):
    """What lay on an accelerator that is not there any more; and another kind of device begins anew."""
    there = {"scheduler.sigmas": torch.arange(3.0)}
    for mark in ("cuda:0", "cpu"):
        assert _restored("sigmas", {"tensor": mark}, there, torch.device("cpu")).device.type == "cpu"
    meta = torch.device("meta")
    assert _restored("sigmas", {"tensor": "cuda:0"}, there, meta).device == meta
    assert _restored("sigmas", {"tensor": "cpu"}, there, meta).device.type == "cpu", "some stay on the host"

    def stop(_, step, *__):
        if step == 1:
            raise KeyboardInterrupt
        return {}

    monkeypatch.setattr("scd.pipeline.EVERY", 1)
    options = {"num_inference_steps": 4, "work_folder": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        pipe(reference, make_pose(1), generator=seeded(), callback_on_step_end=stop, **options)
    settings = []
    monkeypatch.setattr(
        "scd.pipeline.Savepoint", lambda folder, given: settings.append(given) or Savepoint(folder, given)
    )
    pipe(reference, make_pose(1), generator=seeded(), **options)
    assert settings[0]["device"] == "cpu"
