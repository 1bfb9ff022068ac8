"""Noising, objectives, weights and the regional loss against their formulas."""

import pytest
import torch
from conftest import make_scheduler
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from scd import process


def draw(seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, 6, 5, generator=g), torch.randn(4, 3, 6, 5, generator=g)


def scheduler_of(name):
    if name == "flow":
        return FlowMatchEulerDiscreteScheduler()
    return make_scheduler(prediction_type=name, rescale_betas_zero_snr=name != "epsilon")


@pytest.mark.parametrize("name", list(process.OBJECTIVES))
def test_x0_follows_from_the_objective(name):
    z_0, eps = draw()
    scheduler = scheduler_of(name)
    assert process.objective_name(scheduler) == name
    alpha, sigma = process.noise_levels(scheduler, torch.tensor([1, 100, 500, 900]))
    z_t = process.noise(z_0, eps, alpha, sigma)
    row = process.OBJECTIVES[name]
    assert torch.allclose(row.x0(row.target(z_0, eps, alpha, sigma), z_t, alpha, sigma), z_0, atol=1e-4)


def test_noise_agrees_with_diffusers():
    z_0, eps = draw()
    scheduler, t = make_scheduler(), torch.tensor([0, 10, 500, 999])
    alpha, sigma = process.noise_levels(scheduler, t)
    assert torch.allclose(process.noise(z_0, eps, alpha, sigma), scheduler.add_noise(z_0, eps, t), atol=1e-6)
    v = process.OBJECTIVES["v_prediction"].target(z_0, eps, alpha, sigma)
    assert torch.allclose(v, scheduler.get_velocity(z_0, eps, t), atol=1e-6)


@pytest.mark.parametrize("name", ["v_prediction", "sample", "flow"])
def test_weights_are_one_weight_on_x0(name):
    """A given error of x0 costs min(S + 1, 5) whatever the network predicts (METHOD 4)."""
    z_0, eps = draw()
    alpha, sigma = process.noise_levels(scheduler_of(name), torch.tensor([20, 300, 600, 990]))
    row, delta = process.OBJECTIVES[name], 0.1
    prediction = row.target(z_0, eps, alpha, sigma)
    slope = (row.x0(prediction + delta, z_0, alpha, sigma) - row.x0(prediction, z_0, alpha, sigma)) / delta
    # the definition: w(t) error^2 of the objective = weight on x0 x (error of x0)^2
    on_x0 = row.weight(alpha, sigma) / slope[:, :1, :1, :1] ** 2
    expected = ((alpha**2 + sigma**2) / sigma**2).clamp(max=5)
    assert torch.allclose(on_x0, expected, rtol=1e-3)


def test_epsilon_weight_is_min_snr():
    alpha, sigma = process.noise_levels(scheduler_of("epsilon"), torch.arange(0, 1000, 50))
    s = alpha**2 / sigma**2
    assert torch.allclose(process.OBJECTIVES["epsilon"].weight(alpha, sigma), s.clamp(max=5) / s)


@pytest.mark.parametrize("name", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [2, 10, 20, 50])
def test_no_sampled_timestep_has_weight_zero(name, steps):
    scheduler = scheduler_of(name)
    scheduler.set_timesteps(steps)
    alpha, sigma = process.noise_levels(scheduler, scheduler.timesteps)
    assert (process.OBJECTIVES[name].weight(alpha, sigma) > 0.01).all()


def test_epsilon_with_zero_terminal_snr_is_refused():
    with pytest.raises(ValueError, match="use v_prediction or sample"):
        process.objective_name(DDIMScheduler(prediction_type="epsilon", rescale_betas_zero_snr=True))


def test_region_limits_noise_and_loss():
    z_0, eps = draw()
    alpha, sigma = process.noise_levels(make_scheduler(), torch.tensor([10, 200, 700, 999]))
    region = torch.zeros(4, 1, 6, 5)
    region[:, :, 2:4, 1:3] = 1
    z_t = process.noise(z_0, eps, alpha, sigma, region)
    whole = process.noise(z_0, eps, alpha, sigma)
    outside = region.expand_as(z_0) == 0
    assert torch.equal(z_t[outside], z_0[outside])
    assert torch.equal(z_t[~outside], whole[~outside])
    prediction = torch.zeros_like(z_0, requires_grad=True)
    value = process.loss(*process.errors(prediction, z_0, eps, alpha, sigma, "v_prediction", region))
    value.backward()
    assert (prediction.grad[outside] == 0).all()
    assert (prediction.grad[~outside] != 0).all()
    row = process.OBJECTIVES["v_prediction"]
    error = row.weight(alpha, sigma) * row.target(z_0, eps, alpha, sigma) ** 2
    assert torch.allclose(value, error[~outside].mean())
    given = (prediction, z_0, eps, alpha, sigma, "sample")
    everywhere = process.loss(*process.errors(*given, torch.ones_like(region)))
    assert torch.allclose(everywhere, process.loss(*process.errors(*given)))


def test_guidance():
    a, b = draw()
    assert torch.allclose(process.guide(a, b, 1.0), b, atol=1e-6)
    assert torch.allclose(process.guide(a, b, 0.0), a)
    assert torch.allclose(process.guide(a, b, 3.0), a + 3 * (b - a))


def test_change_of_the_error_counts_as_often_as_asked_for():
    """An error that stays costs its square, one that turns its sign costs four times that besides."""
    z_0, eps = torch.zeros(6, 2, 3, 3), torch.zeros(6, 2, 3, 3)
    alpha, sigma = torch.full((6, 1, 1, 1), 0.1**0.5), torch.full((6, 1, 1, 1), 0.9**0.5)
    levels = (z_0, eps, alpha, sigma, "sample")
    same = torch.ones(6, 2, 3, 3)
    turned = same * torch.tensor([1.0, -1.0, 1.0] * 2)[:, None, None, None]
    plain = process.loss(*process.errors(same, *levels))
    assert process.loss(*process.errors(turned, *levels)) == plain
    still, restless = (
        process.loss(*process.errors(x, *levels, num_frames=3, change_weight=2.0)) for x in (same, turned)
    )
    assert still == plain
    # two changes of 2 in every three frames; none between the two clips, though the sign is the same there
    assert restless == pytest.approx((plain * (1 + 2.0 * 4 * 2 / 3)).item(), rel=1e-6)
