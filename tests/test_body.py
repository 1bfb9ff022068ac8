"""What a network made from nothing is told of bodies: codes that are true, an encoder that learns them, heads
that match the same place."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scd import body, world
from scd.backbones.unet import joint, spatial_layers
from scd.config import PRESETS
from scd.model import build
from scd.types import BODY_NAMES, Pose

WRIST = BODY_NAMES.index("right_wrist")


@pytest.fixture(scope="module")
def view():
    return world.Scene.from_seed(3).view(0, size=64)


def test_a_place_is_coded_where_it_lies(view):
    code = body.place_code(view.pose, 32)
    assert code.shape == (32, 32, body.NUM_PLACES)
    row, column = np.unravel_index(code[:, :, WRIST].argmax(), (32, 32))
    x, y = view.pose.joints[WRIST] * 32
    assert abs(column + 0.5 - x) <= 0.5
    assert abs(row + 0.5 - y) <= 0.5
    assert code.max() > 0.8


def test_the_code_grows_with_the_person(view):
    """Twice as large a person, twice as wide a blur: codes of one body match at any distance."""
    joints = 0.5 + (view.pose.joints - 0.5) / 2
    small = body.place_code(Pose(joints.astype(np.float32), view.pose.scores, view.pose.size), 64)
    large = body.place_code(view.pose, 64)
    assert small[:, :, 1].sum() * 4 == pytest.approx(large[:, :, 1].sum(), rel=0.05)


def test_parts_are_shares_of_the_truth(view):
    code = body.part_code(view.labels, 16)
    assert code.shape == (16, 16, body.NUM_PARTS)
    assert code.sum() * 16 == pytest.approx(view.mask.sum(), rel=1e-4)  # a cell has 4 x 4 pixels
    face = world.LABELS.index("face")
    assert code[:, :, face - 1].sum() * 16 == pytest.approx((view.labels == face).sum(), abs=1e-3)


@pytest.fixture(scope="module")
def taught():
    """The preset world-tiny, taught on few people; how much its encoder explains before and after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scd.model.NUM_CODEC_PICTURES", 24)
        plain = build(PRESETS["world-tiny"])
    generator = torch.Generator().manual_seed(0)
    assert not plain.pose_encoder.is_trained
    before = body.teach(plain.pose_encoder, 32, 1, num_scenes=4)
    after = body.teach(plain.pose_encoder, 32, 120, num_scenes=4)
    shares = body.start_matchers(plain, num_scenes=10)
    return plain, before, after, shares, generator


def test_the_encoder_learns_the_codes(taught):
    _, before, after, _, _ = taught
    assert before < 0.1
    assert after > 0.4


def test_heads_match_the_same_place(taught):
    """With the same picture as reference and target, a token's best match in the reference lies nearby."""
    pipe, _, _, shares, generator = taught
    assert set(shares) == set(spatial_layers(pipe.unet))
    first = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    assert shares[first][1] > 0.5
    view = world.Scene.from_seed(8).view(0, size=32)
    pixels = torch.from_numpy(view.image).permute(2, 0, 1)[None] / 127.5 - 1
    z = pipe.encode_pictures(pixels)
    features = pipe.encode_poses([view.pose], (32, 32))
    context = torch.zeros(1, 1, pipe.unet.config.cross_attention_dim)
    layer, seen = spatial_layers(pipe.unet)[first], []
    hook = layer.to_q.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    with torch.no_grad():
        noised = z + torch.randn(z.shape, generator=generator)
        both, tokens = (features, features), (context, context)
        joint(pipe.unet, z[:, None], noised, 0, torch.tensor([500]), both, tokens, [0])
        hook.remove()
        depth = layer.to_q.out_features // layer.heads
        rows = slice(depth, 2 * depth)  # the second head: place in the picture
        query, key = layer.to_q(seen[0][1])[:, rows], layer.to_k(seen[0][0])[:, rows]
    best = (query @ key.T).argmax(1)
    side = z.shape[-1]
    far = max(abs(best // side - torch.arange(side * side) // side).float().mean(),
              abs(best % side - torch.arange(side * side) % side).float().mean())  # fmt: skip
    assert far < 0.8  # of 4 cells a side; 1.25 by chance


def test_a_run_from_nothing_is_taught_when_asked(monkeypatch):
    called = []
    monkeypatch.setattr("scd.model.NUM_CODEC_PICTURES", 24)
    monkeypatch.setattr(body, "teach", lambda encoder, size, steps: called.append((size, steps)))
    monkeypatch.setattr(body, "start_matchers", lambda pipe: called.append("matchers"))
    tiny = PRESETS["world-tiny"]
    build(tiny)
    assert called == []
    build(replace(tiny, network=replace(tiny.network, body_steps=7)))
    assert called == [(32, 7), "matchers"]
