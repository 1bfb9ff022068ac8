"""The linear codec: an exact basis when all components are kept, the right interface, unit latents."""

import pytest
import torch

from scd.codec import PatchCodec


def pictures(num=40, side=32, seed=0):
    """Smooth random pictures with structure that a basis can find."""
    g = torch.Generator().manual_seed(seed)
    return torch.nn.functional.interpolate(
        torch.rand(num, 3, 6, 6, generator=g) * 2 - 1, (side, side), mode="bicubic"
    ).clamp(-1, 1)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_all_components_give_the_picture_back(whitening):
    x = pictures(200)
    codec = PatchCodec.fit(x, 3 * 16, patch_size=4, whitening=whitening)
    flat = torch.zeros(1, 3, 8, 8) + torch.tensor([0.2, -0.5, 0.7])[:, None, None]
    for picture in (x, flat):
        assert (codec(picture).sample - picture).abs().max() < 0.02, (
            "only the mean patch's texture may be missing"
        )


def test_fewer_components_are_the_best_of_their_number():
    x = pictures()
    errors = [(PatchCodec.fit(x, n)(x).sample - x).square().mean().item() for n in (3, 8, 24)]
    assert errors[0] > errors[1] > errors[2]
    codec = PatchCodec.fit(x, 8)
    basis = codec.encoder.weight.flatten(1)
    assert torch.allclose(basis @ basis.T, torch.eye(8), atol=1e-5), "orthonormal"


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_latents_have_unit_deviation_and_the_right_interface(whitening):
    x = pictures()
    codec = PatchCodec.fit(x, 12, whitening=whitening)
    posterior = codec.encode(x).latent_dist
    z = posterior.mode() * codec.config.scaling_factor
    assert z.shape == (40, 12, 4, 4)
    assert abs(z.square().mean().sqrt() - 1) < 0.05
    assert torch.equal(posterior.sample(torch.Generator().manual_seed(0)), posterior.mode())
    if whitening == 1.0:
        assert (z.std((0, 2, 3)) - 1).abs().max() < 0.1
    assert torch.equal(codec.decode(posterior.mode(), return_dict=False)[0], codec(x).sample)


def test_the_fit_repeats():
    a, b = (PatchCodec.fit(pictures(), 8).state_dict() for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for k in a)
