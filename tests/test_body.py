"""What a network made from nothing is told of bodies: codes that are true, an encoder that learns them, heads
that read the same place of the reference."""

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
FIRST = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


@pytest.fixture(scope="module")
def view():
    return world.Scene.from_seed(3).view(0, size=64)


def test_a_place_is_coded_where_it_lies(view):
    code = body.place_code(view.pose, 32)
    assert code.shape == (32, 32, body.NUM_PLACES)
    row, column = np.unravel_index(code[:, :, WRIST].argmax(), (32, 32))
    x, y = view.pose.joints[WRIST] * 32
    assert np.hypot(column + 0.5 - x, row + 0.5 - y) < 1.5
    lengths = np.linalg.norm(code, axis=-1)
    assert lengths.max() < 1 + 1e-5
    on_body = view.mask.reshape(32, 2, 32, 2).mean((1, 3)) == 1
    assert np.median(lengths[on_body]) > 0.6
    assert lengths.min() < 0.01


def test_what_the_picture_does_not_hold_is_nowhere(view):
    """An absent joint lies at (0, 0), score 0: no place of the body, nor half of a limb."""
    joints, scores = view.pose.joints.copy(), view.pose.scores.copy()
    joints[WRIST], scores[WRIST] = 0, 0
    code = body.place_code(Pose(joints, scores, view.pose.size), 32)
    whole = body.place_code(view.pose, 32)
    assert code[0, 0].max() < 0.01
    gone = [place for place in range(body.NUM_PLACES) if code[:, :, place].max() == 0]
    assert WRIST in gone
    assert len(gone) == 1 + sum(WRIST in limb for limb in body.LIMBS)
    assert whole[:, :, gone].max((0, 1)).min() > 0


def test_the_code_grows_with_the_person(view):
    """Twice as large a person, twice as wide a blur: codes of one body match at any distance."""
    joints = 0.5 + (view.pose.joints - 0.5) / 2
    small = body.place_code(Pose(joints.astype(np.float32), view.pose.scores, view.pose.size), 64)
    large = body.place_code(view.pose, 64)
    assert small[:, :, 1].sum() * 4 == pytest.approx(large[:, :, 1].sum(), rel=0.05)


def test_directions_disturb_none():
    directions = body.Directions.of(96, 16, 4)
    rows = torch.cat([getattr(directions, name) for name in directions.__dataclass_fields__])
    assert rows.shape == (96, 96)
    assert torch.allclose(rows @ rows.T, torch.eye(96), atol=1e-5)
    with pytest.raises(ValueError, match="64 channels of the first level cannot carry 96"):
        body.Directions.of(64, 16, 4)


# Half the size and few scenes, and otherwise the embedded model's network
SMALL = replace(
    PRESETS["world-pictures"],
    data=replace(PRESETS["world-pictures"].data, size=64),
    network=replace(PRESETS["world-pictures"].network, latent_channels=16, codec_pictures=24, body_steps=0),
)


@pytest.fixture(scope="module")
def taught():
    """Taught on few people; how much the encoder explains before and after, and each layer."""
    pipe = build(SMALL)
    directions = body.Directions.of(96, 16, 4)
    assert not pipe.pose_encoder.is_trained
    before = body.teach(pipe.pose_encoder, directions, 64, 1, num_scenes=4)
    after = body.teach(pipe.pose_encoder, directions, 64, 100, num_scenes=4)
    shares = body.start_reading(pipe, directions, num_scenes=20)
    return pipe, directions, before, after, shares


def test_the_encoder_learns_the_codes(taught):
    _, _, before, after, _ = taught
    assert before < 0.1
    assert after > 0.3


def states(pipe, layer, views, timestep=999):
    """What enters `layer`, and what its self-attention gives, for a reference and a target of pure noise."""
    pixels = torch.from_numpy(views[0].image).permute(2, 0, 1)[None] / 127.5 - 1
    z = pipe.encode_pictures(pixels)
    features = tuple(pipe.encode_poses([v.pose], (64, 64)) for v in views)
    context = torch.zeros(1, 1, pipe.unet.config.cross_attention_dim)
    seen, out = [], []
    hooks = [layer.to_q.register_forward_hook(lambda _, args, __: seen.append(args[0])),
             layer.register_forward_hook(lambda _, __, result: out.append(result))]  # fmt: skip
    with torch.no_grad():
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
        joint(pipe.unet, z[:, None], noise, 0, torch.tensor([timestep]), features, (context, context), [0])
    for hook in hooks:
        hook.remove()
    return z, seen[0], out[0]


def test_heads_look_at_the_reference_at_the_same_place(taught):
    """Same picture and pose: the second head's best match is the very place, and not among its own noise."""
    pipe, _, _, _, shares = taught
    assert set(shares) == set(spatial_layers(pipe.unet))
    assert shares[FIRST][0] > 0.25
    assert shares[FIRST][1] > 0.8
    view = world.Scene.from_seed(8).view(0, size=64)
    layer = spatial_layers(pipe.unet)[FIRST]
    _, x, _ = states(pipe, layer, (view, view))
    depth = layer.to_q.out_features // layer.heads
    rows = slice(depth, 2 * depth)
    with torch.no_grad():
        query, keys = layer.to_q(x[1])[:, rows], layer.to_k(x.flatten(0, 1))[:, rows]
    share = (query @ keys.T / depth**0.5).softmax(1)
    side = round(len(query) ** 0.5)
    assert share[:, : side * side].sum(1).mean() > 0.9, "the reference, not the target's own tokens"
    place = torch.arange(side * side)
    best = share[:, : side * side].argmax(1)
    far = torch.maximum((best // side - place // side).abs(), (best % side - place % side).abs())
    assert far.float().mean() < 0.8


def test_what_the_first_layer_hands_on_is_the_reference(taught):
    """The directions of the copy hold the reference's latents, though the target is pure noise; those of the
    body hold them on the body."""
    pipe, directions, *_ = taught
    view = world.Scene.from_seed(8).view(0, size=64)
    z, _, out = states(pipe, spatial_layers(pipe.unet)[FIRST], (view, view))
    truth = z[0].flatten(1).T
    on_body = torch.from_numpy(view.mask.reshape(16, 4, 16, 4).mean((1, 3)) > 0.9).flatten()
    for way_out, where in ((directions.copied, slice(None)), (directions.bent, on_body)):
        read = (out[1] @ way_out.T)[where]
        true = truth[where]
        match, chance = (
            torch.nn.functional.cosine_similarity(read, other, dim=1).mean() for other in (true, true.flip(0))
        )
        assert match > 0.3
        assert match > chance + 0.08


def test_a_run_from_nothing_is_taught_when_asked(monkeypatch):
    called = []
    monkeypatch.setattr(body, "teach", lambda encoder, directions, size, steps: called.append((size, steps)))
    monkeypatch.setattr(body, "start_reading", lambda pipe, directions: called.append("reading"))
    build(SMALL)
    assert called == []
    build(replace(SMALL, network=replace(SMALL.network, body_steps=7)))
    assert called == [(64, 7), "reading"]
