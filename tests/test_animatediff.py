"""AnimateDiff's own files, of each of its versions: they become what the folder in diffusers' layout is."""

import pickle
from dataclasses import replace

import pytest
import torch
from conftest import make_unet
from diffusers import MotionAdapter, UNet2DConditionModel
from family_folder import authors_state
from safetensors.torch import save_file
from test_train import MOTION, TINY

from scd import SCDPipeline, animatediff, model
from scd.animatediff import load_motion_adapter
from scd.backbones.motion import has_motion
from scd.stable_diffusion import UNET
from scd.types import UserError

VERSIONS = {
    "mm_sd_v15": {"use_motion_mid_block": False, "motion_max_seq_length": 24},
    "mm_sd_v15_v2": {},
    "v3_sd15_mm": {"use_motion_mid_block": False},
}
# What one temporal transformer is called in them
_ATTENTION = [*(f"to_{x}.weight" for x in "qkv"), "to_out.0.weight", "to_out.0.bias", "pos_encoder.pe"]
NAMES = {
    *(f"{layer}.{kind}" for layer in ("norm", "proj_in", "proj_out") for kind in ("weight", "bias")),
    *(f"transformer_blocks.0.attention_blocks.{i}.{name}" for i in (0, 1) for name in _ATTENTION),
    *(
        f"transformer_blocks.0.{layer}.{kind}"
        for layer in ("norms.0", "norms.1", "ff_norm", "ff.net.0.proj", "ff.net.2")
        for kind in ("weight", "bias")
    ),
}


def make_adapter(unet, seed=0, **changes):
    """Of AnimateDiff's shape, random weights, the position tables as they are."""
    torch.manual_seed(seed)
    adapter = MotionAdapter(
        block_out_channels=unet.config.block_out_channels,
        motion_layers_per_block=unet.config.layers_per_block,
        **changes,
    )
    for parameter in adapter.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape)
    return adapter


@pytest.fixture
def unet():
    return make_unet()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("layout", ["plain", "trainer", "half"])
def test_a_file_is_the_adapter_that_it_was_made_of(unet, tmp_path, version, layout):
    adapter = make_adapter(unet, **VERSIONS[version])
    state = authors_state(adapter.state_dict())
    assert {name.split("temporal_transformer.")[1] for name in state} == NAMES
    path = tmp_path / f"{version}.ckpt"
    if layout == "half":
        path = path.with_suffix(".safetensors")
        save_file({name: value.half().contiguous() for name, value in state.items()}, path)
    elif layout == "trainer":
        torch.save({"epoch": 1, "state_dict": {f"module.{n}": v for n, v in state.items()}}, path)
    else:
        torch.save(state, path)
    read = load_motion_adapter(path, unet.config)
    found, wanted = read.state_dict(), adapter.state_dict()
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        truth = wanted[name].half().float() if layout == "half" else wanted[name]
        assert value.dtype == torch.float32
        assert torch.equal(value, truth), name
    told = [{k: v for k, v in a.config.items() if not k.startswith("_")} for a in (read, adapter)]
    assert told[0] == told[1]  # frames, middle block, heads and groups among them


def test_the_published_sizes():
    """21 transformers of 28 tensors, 453.2 M parameters."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNET)
        state = authors_state(make_adapter(unet).state_dict())
    weights = {name: torch.zeros(()).expand(value.shape) for name, value in state.items()}
    assert len(weights) == 21 * 28
    adapter = animatediff.motion_adapter(weights, unet.config, "mm_sd_v15_v2.ckpt")
    assert sum(p.numel() for p in adapter.parameters()) == 453_209_280


def test_training_starts_with_such_a_file(tmp_path):
    pictures = model.start(TINY, tmp_path / "pictures")
    adapter = make_adapter(pictures.unet)
    torch.save(authors_state(adapter.state_dict()), tmp_path / "mm.ckpt")
    config = replace(
        MOTION, init=str(tmp_path / "pictures" / "model"), motion_adapter=str(tmp_path / "mm.ckpt")
    )
    pipe = model.start(config, tmp_path / "clips")
    assert has_motion(pipe.unet)
    again = SCDPipeline.from_pretrained(tmp_path / "clips" / "model")
    for name, value in adapter.state_dict().items():
        assert torch.equal(again.unet.state_dict()[name], value)
    adapter = MotionAdapter(block_out_channels=(32,), motion_layers_per_block=1)
    adapter.save_pretrained(tmp_path / "other")
    config = replace(config, motion_adapter=str(tmp_path / "other"))
    with pytest.raises(UserError, match=r"other: this motion adapter was made for another network: "):
        model.start(config, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def of_another_network(state):
    return authors_state(make_adapter(make_unet((64, 64))).state_dict())


def of_two_kinds(state):
    name = next(n for n in state if "attention_blocks.1.pos_encoder" in n)
    return {**state, name: state[name] + 1}


SPOILT = {
    "size": (of_another_network, r"mm\.ckpt: not the weights of this MotionAdapter: \d+ of another size: "),
    "short": (
        lambda s: {n: v for n, v in s.items() if "up_blocks.1.motion_modules.1" not in n},
        r"mm\.ckpt: not the weights of this MotionAdapter: 27 missing: up_blocks\.1\.motion_modules\.1\.",
    ),
    "whole": (
        lambda s: {**s, "conv_in.weight": torch.zeros(1)},
        r"mm\.ckpt: not the weights of this MotionAdapter: 1 left over: conv_in\.weight$",
    ),
    "kinds": (of_two_kinds, r"mm\.ckpt: a motion module with position tables of another kind \("),
    "none": (lambda s: {n: v for n, v in s.items() if "pos_enc" not in n}, r"it has no position tables$"),
    "more": (lambda s: {"config": "a", **s}, r"mm\.ckpt: holds more than tensors"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "said"), SPOILT.values(), ids=SPOILT.keys())
def test_what_does_not_fit_is_one_line(unet, tmp_path, spoil, said):
    path = tmp_path / "mm.ckpt"
    torch.save(spoil(authors_state(make_adapter(unet).state_dict())), path)
    with pytest.raises(UserError, match=said) as e:
        load_motion_adapter(path, unet.config)
    assert "\n" not in str(e.value)


def test_what_is_no_such_file_is_one_line(unet, tmp_path):
    state = authors_state(make_adapter(unet).state_dict())
    path = tmp_path / "mm.ckpt"
    with pytest.raises(UserError, match=rf"{path}: there is no such file"):
        load_motion_adapter(path, unet.config)
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"damaged, or half a download .*: download it again"):
        load_motion_adapter(path, unet.config)
    path.write_bytes(pickle.dumps(SystemExit))
    with pytest.raises(UserError, match="holds more than tensors, and nothing of it was executed"):
        load_motion_adapter(path, unet.config)
    (tmp_path / "mm.txt").write_text("motion")
    with pytest.raises(
        UserError, match=r"mm\.txt: a motion adapter is a folder in diffusers' layout, or one"
    ):
        load_motion_adapter(tmp_path / "mm.txt", unet.config)
