"""LoRA files of three layouts: load, scale, fuse, unload; references encoded before are stale, those after
are not."""

import logging

import numpy as np
import pytest
import torch
from conftest import make_picture, make_pipeline, make_pose
from safetensors.torch import load_file, save_file
from test_clips import make_clip, make_motion_pipeline, make_reader_pipeline

from scd.backbones.motion import has_motion
from scd.reference import StaleReference

RANK = 4


def targets(pipe, everything, motion=False):
    """Linear and convolutional layers that a LoRA changes: attention, or all that LCM-LoRA touches; of the
    picture network, or of the motion modules."""
    attention = ("to_q", "to_k", "to_v", "to_out.0")
    all_of_lcm = (
        *attention, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut",
        "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv",
    )  # fmt: skip
    ends = all_of_lcm if everything else attention
    layers = {n: m for n, m in pipe.unet.named_modules() if n.endswith(ends)}
    return {n: m for n, m in layers.items() if (".motion_modules." in n) == motion}


def matrices(layer, g):
    """down and up of one layer."""
    weight = layer.weight
    if weight.ndim == 2:
        shapes = (RANK, weight.shape[1]), (weight.shape[0], RANK)
    else:
        shapes = (RANK, *weight.shape[1:]), (weight.shape[0], RANK, 1, 1)
    return tuple(torch.randn(shape, generator=g) for shape in shapes)


def write(path, pipe, layout, motion=False):
    """A file in the layout of diffusers' training scripts, of kohya's with a text encoder and alphas, or of
    LCM-LoRA (kohya's names, every kind of layer). Returns the change of each weight."""
    g, state, change = torch.Generator().manual_seed(3), {}, {}
    for name, layer in targets(pipe, layout == "lcm", motion).items():
        down, up = (0.1 * m for m in matrices(layer, g))
        if layout == "diffusers":
            state[f"unet.{name}.lora_A.weight"], state[f"unet.{name}.lora_B.weight"] = down, up
            scale = 1.0
        else:
            key = f"lora_unet_{name.replace('.', '_')}"
            state[f"{key}.lora_down.weight"], state[f"{key}.lora_up.weight"] = down, up
            state[f"{key}.alpha"] = torch.tensor(2.0)
            scale = 2.0 / RANK
        delta = (up.flatten(1) @ down.flatten(1)).reshape(layer.weight.shape)
        change[name] = scale * delta
    if layout == "kohya":
        key = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
        state[f"{key}.lora_down.weight"] = torch.randn(RANK, 8, generator=g)
        state[f"{key}.lora_up.weight"] = torch.randn(8, RANK, generator=g)
        state[f"{key}.alpha"] = torch.tensor(2.0)
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    return change


def paint(pipe, reference):
    """A picture; of a motion network, a clip."""
    poses = make_clip(3) if has_motion(pipe.unet) else make_pose(1)
    output = pipe(reference, poses, generator=torch.Generator().manual_seed(0), output_type="latent")
    return output.images if output.frames is None else output.frames


def still(pipe, reference):
    """One picture, of any network."""
    generator = torch.Generator().manual_seed(0)
    return pipe(reference, make_pose(1), generator=generator, output_type="latent").images


def encode(pipe):
    size = (pipe.config.default_size,) * 2
    return pipe.encode_reference(make_picture(0, size), make_pose(0))


def relative(a, b):
    return ((a - b).abs().max() / b.std()).item()


@pytest.mark.parametrize(
    "network",
    [make_pipeline, make_motion_pipeline, make_reader_pipeline],
    ids=["picture", "motion", "reader"],
)
@pytest.mark.parametrize("layout", ["diffusers", "kohya", "lcm"])
def test_load_scale_fuse_unload(layout, network, tmp_path, caplog):
    pipe, path = network(), tmp_path / "lora.safetensors"
    change = write(path, pipe, layout)
    before = {k: v.clone() for k, v in pipe.unet.state_dict().items()}
    plain_reference = encode(pipe)
    plain = paint(pipe, plain_reference)
    with caplog.at_level(logging.WARNING):
        pipe.load_lora_weights(path, adapter_name="style")
    assert ("2 keys for text encoders left out" in caplog.text) == (layout == "kohya")

    with pytest.raises(StaleReference, match="extracted with other LoRA adapters or scales: call encode"):
        paint(pipe, plain_reference)
    loaded = paint(pipe, encode(pipe))

    # The truth: the same network with the change added to its weights by hand
    other = network()
    with torch.no_grad():
        for name, layer in other.unet.named_modules():
            if name in change:
                layer.weight += change[name]
    assert relative(loaded, paint(other, encode(other))) < 1e-4
    assert relative(loaded, plain) > 1e-2

    full = encode(pipe)
    pipe.set_adapters("style", 0.0)
    with pytest.raises(StaleReference, match="LoRA adapters or scales"):
        paint(pipe, full)
    assert relative(paint(pipe, encode(pipe)), plain) < 1e-5
    pipe.set_adapters("style", 1.0)
    assert torch.equal(paint(pipe, full), loaded), "the same scale again: the reference is good again"
    pipe.disable_lora()
    with pytest.raises(StaleReference, match="LoRA adapters or scales"):
        paint(pipe, full)
    pipe.enable_lora()

    pipe.fuse_lora("unet", 1.0)  # as diffusers takes them
    with pytest.raises(StaleReference):
        paint(pipe, plain_reference)
    assert relative(paint(pipe, encode(pipe)), loaded) < 1e-4
    pipe.unfuse_lora()
    pipe.unload_lora_weights()
    after = pipe.unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.allclose(after[k], before[k], atol=1e-6) for k in before)
    assert relative(paint(pipe, encode(pipe)), plain) < 1e-4


def test_fused_and_unloaded_is_another_network(tmp_path):
    """PEFT fuses through `.data`: no address and no version changes, and yet an old reference is stale."""
    pipe, path = make_pipeline(), tmp_path / "lora.safetensors"
    write(path, pipe, "diffusers")
    reference = encode(pipe)
    pipe.load_lora_weights(path)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    with pytest.raises(StaleReference, match="other network weights"):
        paint(pipe, reference)


def test_a_lora_that_stands_in_the_reference_network_is_noticed(tmp_path):
    """Ours never puts one there, diffusers' own method on the network does."""
    pipe, path = make_reader_pipeline(), tmp_path / "lora.safetensors"
    write(path, make_pipeline(), "diffusers")
    reference = encode(pipe)
    plain = paint(pipe, reference)
    pipe.reference_unet.load_lora_adapter(load_file(path), prefix="unet", adapter_name="style")
    with pytest.raises(StaleReference, match="another reference network"):
        paint(pipe, reference)
    loaded = encode(pipe)
    assert relative(paint(pipe, loaded), plain) > 1e-3
    pipe.reference_unet.set_adapters("style", 0.5)
    with pytest.raises(StaleReference, match="another reference network"):
        paint(pipe, loaded)
    with pytest.raises(ValueError, match="a LoRA is loaded, which a model folder cannot hold"):
        pipe.save_pretrained(tmp_path / "model")
    pipe.reference_unet.unload_lora()
    assert torch.equal(paint(pipe, reference), plain)


def test_unloading_makes_the_first_reference_good_again(tmp_path):
    pipe, path = make_pipeline(), tmp_path / "lora.safetensors"
    write(path, pipe, "diffusers")
    reference = encode(pipe)
    plain = paint(pipe, reference)
    pipe.load_lora_weights(path)
    pipe.unload_lora_weights()
    assert np.array_equal(paint(pipe, reference), plain)


def test_files_that_do_not_fit_are_refused(tmp_path):
    pipe, path = make_pipeline(), tmp_path / "lora.safetensors"
    down, up = torch.zeros(4, 16), torch.zeros(16, 4)
    save_file({"unet.far.away.to_q.lora_A.weight": down, "unet.far.away.to_q.lora_B.weight": up}, path)
    with pytest.raises(ValueError, match=r"made for another network, .*lacks: far\.away\.to_q"):
        pipe.load_lora_weights(path)
    save_file({"unet.conv_in.lora_A.weight": torch.zeros(4, 4, 3, 3),
               "unet.conv_in.lora_B.weight": torch.zeros(32, 4, 1, 1)}, path)  # fmt: skip
    with pytest.raises(ValueError, match="changes conv_in, which carries the pose"):
        pipe.load_lora_weights(path)
    state = {f"unet.mid_block.attentions.0.{n}": w for n, w in (("lora_A", down), ("lora_B", up))}
    save_file({**state, "reference_unet.mid_block.lora_A.weight": down + 1}, path)
    with pytest.raises(ValueError, match="also changes reference_unet; only the denoising network takes one"):
        pipe.load_lora_weights(path)
    save_file({"model.weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="holds no LoRA of a denoising network"):
        pipe.load_lora_weights(path)
    torch.save({"unet.x.lora_A.weight": down}, tmp_path / "pickled.bin")
    with pytest.raises(OSError, match="pickled"):
        pipe.load_lora_weights(tmp_path, weight_name="pickled.safetensors")
    assert not any("lora" in name for name in pipe.unet.state_dict())


@pytest.mark.filterwarnings("ignore:Already found a .peft_config")  # PEFT's, of every second adapter
def test_a_lora_of_motion_modules_leaves_references_good(tmp_path):
    """AnimateDiff's motion LoRA: no reference ever enters temporal layers, so none is stale; pictures stay
    what they were, clips change. A picture LoRA beside it makes references stale, and its own scale not."""
    pipe, path = make_motion_pipeline(), tmp_path / "motion.safetensors"
    write(path, pipe, "diffusers", motion=True)
    reference = encode(pipe)
    before, picture = paint(pipe, reference), still(pipe, reference)
    pipe.load_lora_weights(path, adapter_name="camera")
    moved = paint(pipe, reference)
    assert relative(moved, before) > 1e-2
    assert torch.equal(still(pipe, reference), picture)
    write(tmp_path / "style.safetensors", make_pipeline(), "diffusers")
    pipe.load_lora_weights(tmp_path / "style.safetensors", adapter_name="style")
    pipe.set_adapters(["camera", "style"])
    with pytest.raises(StaleReference, match="LoRA adapters or scales"):
        paint(pipe, reference)
    both = encode(pipe)
    together = paint(pipe, both)
    pipe.set_adapters(["camera", "style"], [0.5, 1.0])
    with pytest.raises(StaleReference, match="LoRA adapters or scales"):
        paint(pipe, reference)
    assert relative(paint(pipe, both), together) > 1e-3, "the same reference, another camera"
    pipe.unload_lora_weights()
    assert relative(paint(pipe, reference), before) < 1e-5


@pytest.mark.parametrize("network", [make_pipeline, make_motion_pipeline], ids=["picture", "motion"])
def test_a_folder_cannot_hold_a_lora_and_says_so(network, tmp_path):
    """diffusers writes the layers' inner names, which nothing reads again."""
    pipe, path = network(), tmp_path / "lora.safetensors"
    write(path, pipe, "diffusers")
    pipe.load_lora_weights(path)
    with pytest.raises(ValueError, match=r"call unload_lora_weights\(\) first, or fuse_lora\(\) and then"):
        pipe.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    painted = paint(pipe, encode(pipe))
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path / "model")
    again = type(pipe).from_pretrained(tmp_path / "model")
    assert relative(paint(again, encode(again)), painted) < 1e-4
