"""Training on the network's own predictions, as sampling will show them to it (scd.step.own_prediction)."""

from dataclasses import replace

import pytest
import torch
from test_train import MOTION, TINY, TRYON, batch_of, motion_pipe

from scd import latents, model, process, step, train
from scd.data.collate import collate
from scd.data.dataset import make_dataset
from scd.data.world import WorldClips


class Two(torch.nn.Module):
    """A trainee that guesses `guess` at the terminal noise level and says `said` afterwards; it keeps what it
    was shown."""

    def __init__(self, guess=0.0, said=None):
        super().__init__()
        self.guess, self.said, self.shown = guess, said, []

    def forward(self, references, z_t, timesteps, *_):
        self.shown.append((z_t, timesteps, torch.is_grad_enabled()))
        if len(self.shown) == 1:
            return torch.full_like(z_t, self.guess)
        return torch.zeros_like(z_t) if self.said is None else self.said(z_t, timesteps)


def gaussian(values):
    return abs(values.mean()) < 0.1 and abs(values.std() - 1) < 0.1


def take(trainee, config, batch, pipe=None, seed=0):
    pipe = model.build(config) if pipe is None else pipe
    g = torch.Generator().manual_seed(seed)
    return pipe, step.step_loss(trainee, pipe, batch, g, config).item()


def test_targets_are_noised_from_what_the_network_guessed():
    """Noise alone comes first, at the last timestep and without gradients; then its guess, noised, in place
    of the truth. With none asked for there is one pass over the truth."""
    config, trainee = replace(TINY, own_predictions=1.0), Two(guess=3.0)
    batch = collate(batch_of(TINY, 2))
    pipe, _ = take(trainee, config, batch)
    (first, last, learns), (second, timesteps, learns_then) = trainee.shown
    assert (last == 999).all()
    assert (learns, learns_then) == (False, True)
    assert gaussian(first)  # zero-terminal SNR: nothing of the truth
    alpha, sigma = process.noise_levels(pipe.scheduler, timesteps)
    assert gaussian((second - alpha * 3.0) / sigma)
    off = Two()
    take(off, TINY, batch, pipe)
    assert len(off.shown) == 1
    z_0 = latents.encode(pipe, batch.targets.flatten(0, 1), torch.Generator().manual_seed(0))
    z_t, timesteps, _ = off.shown[0]
    alpha, sigma = process.noise_levels(pipe.scheduler, timesteps)
    assert gaussian((z_t - alpha * z_0) / sigma)


def test_a_share_of_the_targets_is_guessed():
    config, far, rows = replace(TINY, own_predictions=0.25), 1000.0, []
    batch = collate(batch_of(TINY, 2))
    pipe = model.build(TINY)
    for seed in range(40):
        trainee = Two(guess=far)
        take(trainee, config, batch, pipe, seed)
        z_t, timesteps, _ = trainee.shown[1]
        alpha, _ = process.noise_levels(pipe.scheduler, timesteps)
        noisy = alpha.flatten() > 0.05  # elsewhere a guess leaves no trace
        rows += (z_t.mean((1, 2, 3)) > far * alpha.flatten() / 2)[noisy].tolist()
    assert 0.1 < sum(rows) / len(rows) < 0.4


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_the_truth_stays_the_answer(prediction):
    """Who knows the truth has no loss, however wrong its guess was: the noise is what leads from the truth to
    what the network saw."""
    network = replace(TINY.network, prediction_type=prediction)
    config = replace(TINY, own_predictions=1.0, network=network)
    batch = collate(batch_of(TINY, 2))
    pipe = model.build(config)
    z_0 = latents.encode(pipe, batch.targets.flatten(0, 1), torch.Generator().manual_seed(0))

    def truth(z_t, timesteps):
        alpha, sigma = process.noise_levels(pipe.scheduler, timesteps)
        objective = process.OBJECTIVES[prediction]
        return objective.target(z_0, (z_t - alpha * z_0) / sigma, alpha, sigma)

    assert take(Two(guess=2.0, said=truth), config, batch, pipe)[1] < 1e-8
    assert take(Two(guess=2.0), config, batch, pipe)[1] > 1e-2


def test_a_guess_counts_as_what_it_is_made_from():
    """The terminal step's weight, 1, whatever the timestep: a guess is no surer under little noise."""
    config = replace(TINY, own_predictions=1.0)
    batch = collate(batch_of(TINY, 2))
    pipe = model.build(config)
    z_0 = latents.encode(pipe, batch.targets.flatten(0, 1), torch.Generator().manual_seed(0))
    expected = (pipe.vae.loss_weights[:, None, None] * z_0**2).mean().item()
    for seed in range(3):
        assert take(Two(guess=1.0), config, batch, pipe, seed)[1] == pytest.approx(expected, rel=0.02)


def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("scd.evaluate.sample_grid", lambda pipe, path, size, num: {})
    config = replace(TINY, own_predictions=0.5, steps=4, save_every=2)

    def learnt(name, *lengths):
        for steps in lengths:
            pipe = train.train(replace(config, steps=steps), tmp_path / name, model.build(config))
        return {k: v.clone() for k, v in pipe.unet.state_dict().items()}

    whole, parts = learnt("whole", 4), learnt("parts", 2, 4)
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


def test_outside_the_region_stands_the_truth_in_both_passes():
    config, trainee = replace(TRYON, own_predictions=1.0), Two(guess=50.0)
    data = make_dataset(config, 2)
    batch = collate([data[i] for i in range(2)])
    pipe, _ = take(trainee, config, batch)
    z_0 = latents.encode(pipe, batch.targets.flatten(0, 1), torch.Generator().manual_seed(0))
    outside = (trainee.shown[0][0] == z_0).all(1)
    assert 0.1 < outside.float().mean() < 0.9
    assert torch.equal(outside, (trainee.shown[1][0] == z_0).all(1))


def test_a_clip_is_guessed_whole_from_one_noise():
    config = replace(MOTION, own_predictions=0.5)
    batch = collate([WorldClips(2, 32, 3, (1,), references=(1.0,), group=2)[i] for i in range(2)])
    pipe = motion_pipe()
    pipe.register_to_config(shared_noise=True)
    trainee = Two(guess=0.0)
    take(trainee, config, batch, pipe)
    noise = trainee.shown[0][0].unflatten(0, (2, 3))
    assert torch.equal(noise, noise[:, :1].expand_as(noise))
    assert not torch.equal(noise[0, 0], noise[1, 0])


def test_weights_learn_in_half_precision_too():
    """Autocast keeps the half-precision weights of a pass: in some versions of PyTorch those of the guess
    too, which have no gradients."""
    config = replace(TINY, own_predictions=1.0)
    pipe, batch = model.build(TINY), collate(batch_of(TINY, 2))

    def gradients(config):
        trainee = step.Trainee(pipe).train()
        trainee.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            value = step.step_loss(trainee, pipe, batch, torch.Generator().manual_seed(0), config)
        value.backward()
        return {n for n, p in trainee.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}

    assert gradients(config) == gradients(TINY)
