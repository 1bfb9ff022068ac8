"""The loss on what attention reads: its value by hand, what it leaves out, and that it teaches."""

from dataclasses import replace

import pytest
import torch

from scd import matching, model, step, train
from scd.backbones.motion import picture_copy
from scd.config import PRESETS
from scd.data.collate import collate
from scd.matching import matching_loss
from scd.types import UserError

TINY = PRESETS["world-tiny"]


def places(num: int, scale: float) -> torch.Tensor:
    """(1, 1, num, num): queries or keys that know their own place; equal ones have the product scale^2."""
    return scale * torch.eye(num)[None, None]


def test_perfect_matches_cost_nothing_and_others_what_they_miss():
    """16 x 16 places; the target is the reference with its places shuffled, and its queries know how."""
    g = torch.Generator().manual_seed(0)
    reference = torch.randn(1, 1, 4, 16, 16, generator=g)
    order = torch.randperm(256, generator=g)
    target = reference[0].flatten(2)[..., order].unflatten(-1, (16, 16))
    keys, nothing = places(256, 40.0), torch.zeros(1, 1, 256, 256)
    ones = torch.ones(1, 1, 16, 16)

    def loss(query):
        return matching_loss({"layer": (query, keys, nothing)}, reference, target, [0], ones).item()

    assert loss(keys[:, :, order]) < 1e-8
    # Who looks nowhere in particular sees the reference's mean
    asked = target[..., ::2, ::2]
    mean = reference.mean((0, 1, 3, 4))[:, None, None]
    assert loss(nothing) == pytest.approx((asked - mean).square().mean().item(), rel=1e-4)
    assert loss(keys) == pytest.approx(
        (asked - reference[0, :, :, ::2, ::2]).square().mean().item(), rel=1e-4
    )


def test_it_is_the_definition():
    """Against loops: two references in a group, heads averaged as much as they read, soft weights, two layers
    of which the finer one is asked at every fourth place, and rows that read nothing."""
    g = torch.Generator().manual_seed(1)
    references, z_0 = (torch.randn(*s, 3, 32, 32, generator=g) for s in ((2, 2), (3,)))
    weights = torch.rand(3, 1, 32, 32, generator=g)
    owner = [1, -1, 0]
    seen = {
        name: tuple(torch.randn(rows, 2, num, 8, generator=g) for rows, num in ((3, n), (2, 2 * n), (3, n)))
        for name, n in (("fine", 1024), ("coarse", 256), ("left out", 64))
    }
    expected = []
    for name, side in (("fine", 32), ("coarse", 16)):
        query, keys_r, keys = seen[name]
        stride, off, weight = side // matching.QUERIES, 0.0, 0.0
        for row in (0, 2):
            pooled = torch.nn.functional.avg_pool2d(references[owner[row]], 32 // side).flatten(2)
            shown = torch.cat(list(pooled), -1)  # (C, N_r)
            wanted = torch.nn.functional.avg_pool2d(z_0[row], 32 // side)
            counts = torch.nn.functional.avg_pool2d(weights[row], 32 // side)
            for y in range(stride // 2, side, stride):
                for x in range(stride // 4, side, stride):
                    read = torch.zeros(shown.shape[1])
                    for head in range(2):
                        q = query[row, head, y * side + x] / 8**0.5
                        logits = torch.cat([keys_r[owner[row], head] @ q, keys[row, head] @ q])
                        read += logits.softmax(0)[: len(read)] / 2
                    moved = shown @ read / read.sum()
                    off += (counts[0, y, x] * (moved - wanted[:, y, x]).square().mean()).item()
                    weight += counts[0, y, x].item()
        expected.append(off / weight)
    value = matching_loss(seen, references, z_0, owner, weights, (0.5, 0.25))
    assert value.item() == pytest.approx(sum(expected) / 2, rel=1e-4)
    with pytest.raises(UserError, match="--matching-weight: no attention of this network has 16 x 16 places"):
        matching_loss({"left out": seen["left out"]}, references, z_0, owner, weights)
    nobody = matching_loss(seen, references, z_0, [-1, -1, -1], weights)
    assert nobody.item() == 0
    assert matching_loss(seen, references, z_0, owner, 0 * weights).item() == 0


def test_odd_sizes_belong_to_their_layers():
    assert matching._size_of(17 * 20, (33, 40)) == (17, 20)
    assert matching._size_of(33 * 40, (33, 40)) == (33, 40)
    with pytest.raises(ValueError, match="a layer of 300 places does not belong to latents of 33 x 40"):
        matching._size_of(300, (33, 40))
    asked = matching._grid((33, 40), (0.99, 0.99), torch.device("cpu"))
    assert asked.max() < 33 * 40
    assert len(asked.unique()) == len(asked) >= 64


def step_batch():
    network = replace(TINY.network, patch_size=4, pose_channels=(8, 16))  # 16 x 16 places
    config = replace(TINY, network=network, data=replace(TINY.data, size=64), drop_reference=0.0)
    dataset = train.make_dataset(config, 2)
    return config, collate([dataset[i] for i in range(2)])


def test_a_step_counts_rows_that_are_painted_whole():
    """With the weight the step's loss grows by that much of the matches' loss; a garment alone has none."""
    config, batch = step_batch()
    pipe = model.build(config)
    trainee = train.Trainee(pipe)

    def loss(b, weight):
        asked = replace(config, matching_weight=weight)
        return step.step_loss(trainee, pipe, b, torch.Generator().manual_seed(0), asked).item()

    none, one, two = (loss(batch, w) for w in (0.0, 1.0, 2.0))
    assert one - none > 0.01
    assert two - one == pytest.approx(one - none, rel=1e-3)
    everything = replace(batch, regions=torch.ones_like(batch.targets[:, :, :1]))
    assert loss(everything, 1.0) == pytest.approx(one, rel=1e-5)
    part = everything.regions.clone()
    part[..., :8] = 0
    assert loss(replace(batch, regions=part), 1.0) == loss(replace(batch, regions=part), 0.0)


def test_checkpointing_gives_the_same_gradients():
    config, batch = step_batch()
    gradients = []
    for checkpointing in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            pipe = model.build(config)
            torch.nn.init.normal_(pipe.pose_encoder.conv_out.weight)
        trainee = train.Trainee(pipe).train()
        if checkpointing:
            pipe.unet.enable_gradient_checkpointing()
        asked = replace(config, matching_weight=1.0)
        step.step_loss(trainee, pipe, batch, torch.Generator().manual_seed(0), asked).backward()
        gradients.append({n: p.grad for n, p in trainee.named_parameters() if p.grad is not None})
    plain, saving = gradients
    assert plain.keys() == saving.keys()
    assert all(torch.allclose(plain[n], saving[n], atol=1e-6) for n in plain)


def test_half_precision_divides_by_next_to_nothing():
    """A target that reads itself and hardly its reference: gradients are finite under autocast to float16,
    scaled as such training scales them, and near float32's."""
    g = torch.Generator().manual_seed(0)
    reference, target = torch.randn(1, 1, 4, 16, 16, generator=g), torch.randn(1, 4, 16, 16, generator=g)
    query, keys_r = (torch.randn(1, 2, 256, 8, generator=g) for _ in range(2))
    keys = 12 * query / query.norm(dim=-1, keepdim=True) ** 2 * 8**0.5
    gradients = []
    for dtype in (torch.float32, torch.float16):
        leaves = [x.clone().to(dtype).requires_grad_() for x in (query, keys_r, keys)]
        with torch.autocast("cpu", torch.float16, enabled=dtype == torch.float16):
            loss = matching_loss({"layer": tuple(leaves)}, reference, target, [0], torch.ones(1, 1, 16, 16))
        (loss * 2**14).backward()
        gradients.append([x.grad.float() / 2**14 for x in leaves])
    for single, half in zip(*gradients, strict=True):
        assert half.isfinite().all()
        assert (half - single).abs().max() < 0.02 * single.abs().max()


def test_a_network_of_its_own_for_references_is_refused(tmp_path):
    config = replace(TINY, matching_weight=1.0)
    pipe = model.build(config)
    pipe.reference_unet = picture_copy(pipe.unet)
    with pytest.raises(UserError, match="--matching-weight: not with a model that has a network of its own"):
        train.train(config, tmp_path, pipe)


def test_it_teaches_attention_where_to_look():
    """Forty steps on the matches alone, on the batch's own rows: half of what was missed is found."""
    config, batch = step_batch()
    pipe = model.build(config)
    torch.nn.init.normal_(pipe.pose_encoder.conv_out.weight, std=0.1)
    trainee = train.Trainee(pipe).train()
    asked = replace(config, matching_weight=1e4)
    optimizer = torch.optim.AdamW(trainee.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = step.step_loss(trainee, pipe, batch, torch.Generator().manual_seed(0), asked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0], losses


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("world-motion", "--matching-weight", 1), "--matching-weight: for pictures and one network"),
        (
            ("world-pictures", "--matching-weight", 1, "--reference-network", "separate"),
            "for pictures and one",
        ),
        (("world-tryon", "--matching-weight", 1), "--matching-weight: for people who are painted whole"),
        (("world-pictures", "--matching-weight", -1), "--matching-weight -1.0: 0 at least"),
        (("world-pictures", "--timestep-shift", 0), "--timestep-shift 0.0: 0.1 at least"),
        (("world-pictures", "--skip-broken", -1), "--skip-broken -1: 0 at least"),
        (("world-pictures", "--data.exact", 0.5, "--data.no-augment"), "--data.exact: of the drawn world's"),
        (("world-tiny", "--network.codec-pictures", 0), "--network.codec-pictures 0: 1 at least"),
        (("world-motion", "--data.moving", 0.5), "--data.moving: of the drawn world's pictures"),
        (("tiktok-stage1", "--data.moving", 0.5), "--data.moving: of the drawn world's pictures"),
    ],
)
def test_settings_that_would_do_nothing_are_one_line(scd, options, text):
    code, _, err = scd("train", *options, "--dry-run")
    assert (code, err.count("\n")) == (2, 1)
    assert text in err
