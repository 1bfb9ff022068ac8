"""The method is an equivalence: joint == extract + cached == masked attention; no reference == the stock
network."""

import copy

import pytest
import torch
from conftest import make_pose_encoder, make_unet
from diffusers.models.attention_processor import AttnProcessor2_0

from scd.attention import Cached, Extract, Joint, KVCache, attend, attend_with_reference, causal_mask
from scd.backbones.unet import adapt, check_adapted, denoise, extract, joint, predict, spatial_layers


def values(seed=0, references=2, num=1, targets=4, channels=4, side=8):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    rows = references * num
    return {
        "z_r": draw(references, num, channels, side, side),
        "z_t": draw(targets, channels, side, side),
        "t": torch.tensor([3, 200, 400, 999, 7, 8, 9, 10])[:targets],
        "features": (draw(rows, 32, side, side), draw(targets, 32, side, side)),
        "context": (draw(rows, num, 16), draw(targets, num, 16)),
    }


def relative(a, b):
    return ((a - b).abs().max() / b.std()).item()


def extract_groups(unet, v):
    """One extract pass per reference, joined within a group and stacked over groups: the long way."""
    groups, num = v["z_r"].shape[:2]
    caches = []
    for g in range(groups):
        parts = [
            extract(
                unet,
                v["z_r"][g, r, None],
                0,
                v["features"][0][g * num + r, None],
                v["context"][0][g * num + r, None],
            )
            for r in range(num)
        ]
        caches.append(sum(parts[1:], start=parts[0]))
    return KVCache.stack(caches)


@pytest.mark.parametrize("num", [1, 2, 3])
def test_extract_then_cached_equals_joint(unet, num):
    v, owner = values(num=num), (0, 1, 1, 0)
    together = joint(unet, v["z_r"], v["z_t"], 0, v["t"], v["features"], v["context"], owner)
    apart = denoise(unet, v["z_t"], v["t"], v["features"][1], v["context"][1], extract_groups(unet, v), owner)
    assert relative(apart, together) < 1e-5
    swapped = denoise(
        unet, v["z_t"], v["t"], v["features"][1], v["context"][1], extract_groups(unet, v), (1, 0, 0, 1)
    )
    assert relative(swapped, together) > 1e-3, "the reference must matter, or this test compares nothing"


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_joint_and_cached_agree(unet, checkpointing):
    v, owner = values(), (0, 1, 1, 0)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    unet.train()

    def gradients(run):
        unet.zero_grad()
        run().square().mean().backward()
        return {n: p.grad.clone() for n, p in unet.named_parameters() if p.grad is not None}

    a = gradients(lambda: joint(unet, v["z_r"], v["z_t"], 0, v["t"], v["features"], v["context"], owner))
    b = gradients(
        lambda: denoise(
            unet, v["z_t"], v["t"], v["features"][1], v["context"][1], extract_groups(unet, v), owner
        )
    )
    plain = copy.deepcopy(unet)
    plain.disable_gradient_checkpointing()
    plain.zero_grad()
    joint(plain, v["z_r"], v["z_t"], 0, v["t"], v["features"], v["context"], owner).square().mean().backward()
    c = {n: p.grad for n, p in plain.named_parameters() if p.grad is not None}
    assert a.keys() == b.keys() == c.keys()
    scale = max(g.abs().max() for g in a.values())
    for name in a:
        assert (a[name] - b[name]).abs().max() < 1e-5 * scale, name
        assert (a[name] - c[name]).abs().max() < 1e-5 * scale, name
    assert c["conv_in.weight"].abs().max() > 0


def test_two_calls_equal_masked_attention_over_one_sequence():
    """One layer, the paper's figure: values and gradients under `causal_mask` against the two calls without
    any mask."""
    g = torch.Generator().manual_seed(0)
    num_reference, num_target, heads = 6, 10, 2
    q, k, v = (
        torch.randn(3, num_reference + num_target, 8, generator=g, requires_grad=True) for _ in range(3)
    )
    split = lambda x: x.unflatten(-1, (heads, -1)).transpose(1, 2)  # noqa: E731
    masked = torch.nn.functional.scaled_dot_product_attention(
        split(q), split(k), split(v), attn_mask=causal_mask(num_reference, num_target)
    ).transpose(1, 2).flatten(-2)  # fmt: skip
    n = num_reference
    own = attend(q[:, :n], k[:, :n], v[:, :n], heads)
    target = attend_with_reference(q[:, n:], k[:, n:], v[:, n:], (k[:, :n], v[:, :n]), (0, 1, 2), heads)
    both = torch.cat([own, target], 1)
    assert relative(both, masked) < 1e-5
    for a, b in zip(
        torch.autograd.grad(masked.square().sum(), (q, k, v)),
        torch.autograd.grad(both.square().sum(), (q, k, v)),
        strict=True,
    ):
        assert relative(a, b) < 1e-5


def test_causal_mask_is_the_figure():
    assert causal_mask(1, 2).tolist() == [[True, False, False], [True, True, True], [True, True, True]]


def test_without_reference_equals_stock_to_the_bit():
    stock, own = make_unet(), adapt(make_unet())
    assert stock.state_dict().keys() == own.state_dict().keys()
    v = values()
    expected = stock(v["z_t"], v["t"], v["context"][1]).sample
    assert torch.equal(predict(own, v["z_t"], v["t"], None, v["context"][1]), expected)
    zero = make_pose_encoder(zero=True)(torch.rand(4, 3, 64, 64))
    assert torch.equal(predict(own, v["z_t"], v["t"], zero, v["context"][1]), expected), (
        "a fresh pose encoder changes nothing"
    )
    fresh = denoise(own, v["z_t"], v["t"], None, v["context"][1], None, (-1,) * 4)
    assert torch.equal(fresh, expected)


def test_rows_that_read_nothing_do_not_see_the_reference(unet):
    v = values()
    cache = extract_groups(unet, v)
    mixed = denoise(unet, v["z_t"], v["t"], v["features"][1], v["context"][1], cache, (0, -1, 1, -1))
    alone = predict(unet, v["z_t"], v["t"], v["features"][1], v["context"][1])
    assert relative(mixed[[1, 3]], alone[[1, 3]]) < 1e-5
    assert relative(mixed[[0, 2]], alone[[0, 2]]) > 1e-3
    none = denoise(unet, v["z_t"], v["t"], v["features"][1], v["context"][1], cache, (-1,) * 4)
    assert torch.equal(none, alone)


def test_cache_follows_neither_target_nor_timestep(unet):
    v, w = values(), values(seed=9)
    before = extract(unet, v["z_r"][:, 0], 0, v["features"][0], v["context"][0])
    denoise(unet, w["z_t"], w["t"], w["features"][1], w["context"][1], before, (0, 1, 0, 1))
    after = extract(unet, v["z_r"][:, 0], 0, v["features"][0], v["context"][0])
    for name in before.entries:
        assert all(torch.equal(a, b) for a, b in zip(before.entries[name], after.entries[name], strict=True))


def test_joint_reference_rows_do_not_depend_on_targets(unet):
    v, w = values(), values(seed=9)
    outputs = []
    for t in (v, w):
        rows = torch.cat([v["z_r"].flatten(0, 1), t["z_t"]])
        steps = torch.cat([torch.zeros(2, dtype=torch.long), t["t"]])
        context, features = (
            torch.cat([v["context"][0], t["context"][1]]),
            torch.cat([v["features"][0], t["features"][1]]),
        )
        outputs.append(predict(unet, rows, steps, features, context, Joint(2, 1, (0, 1, 1, 0)))[:2])
    assert torch.equal(*outputs)


def test_two_people_in_one_batch_equal_each_alone(unet):
    v = values()
    together = joint(unet, v["z_r"], v["z_t"], 0, v["t"], v["features"], v["context"], (0, 0, 1, 1))
    for g in (0, 1):
        rows = slice(2 * g, 2 * g + 2)
        alone = joint(
            unet, v["z_r"][g, None], v["z_t"][rows], 0, v["t"][rows],
            (v["features"][0][g, None], v["features"][1][rows]),
            (v["context"][0][g, None], v["context"][1][rows]), (0, 0),
        )  # fmt: skip
        assert relative(together[rows], alone) < 1e-5


@pytest.mark.parametrize("side", [8, 6, 5])
def test_reference_of_another_size(unet, side):
    """Reference and target may differ in size and aspect ratio, odd sizes too."""
    v = values()
    latents, features = v["z_r"][:1, 0, :, :side, : side - 1], v["features"][0][:1, :, :side, : side - 1]
    cache = extract(unet, latents, 0, features, v["context"][0][:1])
    out = denoise(unet, v["z_t"], v["t"], v["features"][1], v["context"][1], cache, (0, 0, 0, 0))
    assert out.shape == v["z_t"].shape
    assert torch.isfinite(out).all()


def test_adapt_is_idempotent_and_watched(unet):
    processors = [layer.processor for layer in spatial_layers(unet).values()]
    adapt(unet)
    assert [p.name for p in processors] == [layer.processor.name for layer in spatial_layers(unet).values()]
    check_adapted(unet)
    unet.set_attn_processor(AttnProcessor2_0())
    with pytest.raises(
        ValueError, match=r"layer down_blocks\.0\.attentions\.0\.transformer_blocks\.0\.attn1 has processor"
    ):
        check_adapted(unet)


def test_a_network_is_compiled_in_place(unet):
    """Inside `torch.compile` its layers have other names, under which no cache has keys."""
    with pytest.raises(ValueError, match=r"call pipe\.unet\.compile\(\) in its place"):
        check_adapted(torch.compile(unet))
    unet.compile()
    check_adapted(unet)


def test_wrong_use_is_named(unet):
    v = values()
    cache = extract_groups(unet, v)
    with pytest.raises(ValueError, match="4 target rows, but 1 owners"):
        denoise(unet, v["z_t"], v["t"], None, v["context"][1], cache, (0,))
    other = extract(adapt(make_unet((16,))), v["z_r"][:, 0], 0, None, v["context"][0])
    with pytest.raises(ValueError, match="different networks"):
        cache + other
    with pytest.raises(ValueError, match="comes from another network"):
        denoise(unet, v["z_t"], v["t"], None, v["context"][1], KVCache({}), (0,) * 4)


def test_no_warning_about_unknown_arguments(unet, caplog):
    import diffusers

    diffusers.utils.logging.enable_propagation()
    try:
        v = values()
        predict(unet, v["z_t"], v["t"], None, v["context"][1], Cached(extract_groups(unet, v), (0,) * 4))
        predict(unet, v["z_t"], v["t"], None, v["context"][1], Extract())
        assert not caplog.records
    finally:
        diffusers.utils.logging.disable_propagation()


def test_pose_features_are_added_after_the_first_convolution(unet):
    v = values()
    latents, features = v["z_t"], v["features"][1]
    weight, bias = unet.conv_in.weight, unet.conv_in.bias
    expected = torch.nn.functional.conv2d(latents, weight, bias, padding=1) + features
    assert torch.equal(unet.conv_in(torch.cat([latents, features], 1)), expected)
    assert torch.allclose(unet.conv_in(latents), expected - features, atol=1e-5)
