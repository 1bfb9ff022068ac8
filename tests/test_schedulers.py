"""Every sampler that people bring: it agrees with DDIM on a distribution whose best denoiser is known, or it
is refused by name with what fits."""

import inspect
import re

import diffusers
import pytest
import torch
from conftest import make_pipeline, make_scheduler

from scd.cli.models import set_defaults
from scd.cli.options import ModelOptions
from scd.pipeline import SCDPipeline
from scd.schedulers import KNOWN, begin, check_scheduler, scheduler_named
from scd.types import UserError

MEAN, STD = 0.7, 0.5  # of the data, a normal distribution in every pixel
STEPS = 50
V, X0, EPS = "v_prediction", "sample", "epsilon"

REFUSED = {  # with zero-terminal SNR (v and x0); for eps, whose schedule is Stable Diffusion's own, all fit
    "DPMSolverSinglestep": {V, X0},
    "DEISMultistep": {V, X0},
    "PNDM": {V, X0},
    "HeunDiscrete": {V, X0},
    "LMSDiscrete": {V, X0},
    "EulerAncestralDiscrete": {X0},
}
# Mean and deviation may differ from DDIM's own by this much. DDIM itself has 0.69 and 0.47 after 50 steps.
TOLERANCE = {"mean": 0.03, "std": 0.06}
SHARPER = {"LCM"}  # re-noises an x0 that shrinks to the mean, for distilled networks: only its mean counts


def trained(kind):
    return make_scheduler(prediction_type=kind, rescale_betas_zero_snr=kind != EPS)


def of_kind(name, kind):
    return getattr(diffusers, f"{name}Scheduler").from_config(trained(kind).config)


def sample(scheduler, kind):
    """10,000 pixels of the distribution, with its exact denoiser, which reads alpha-bar off DDIM's schedule
    as a network would know it: by the timestep."""
    g = torch.Generator().manual_seed(0)
    state = torch.randn(1, 1, 100, 100, generator=g)
    scheduler.set_timesteps(STEPS)
    state = state * scheduler.init_noise_sigma
    abar = trained(kind).alphas_cumprod.double()
    takes = inspect.signature(scheduler.step).parameters
    extra = {"generator": torch.Generator().manual_seed(1)} if "generator" in takes else {}
    for t in scheduler.timesteps:
        z_t = scheduler.scale_model_input(state, t)
        low, part = int(t), float(t) - int(t)
        level = abar[low] + part * (abar[min(low + 1, 999)] - abar[low])
        alpha, sigma = level.sqrt().float(), (1 - level).sqrt().float()
        x0 = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (z_t - alpha * MEAN)
        eps = (z_t - alpha * x0) / sigma
        prediction = {EPS: eps, X0: x0, V: alpha * eps - sigma * x0}[kind]
        state = scheduler.step(prediction, t, state, return_dict=False, **extra)[0]
    return state.mean().item(), state.std().item()


@pytest.mark.parametrize("kind", [EPS, V, X0])
@pytest.mark.parametrize("name", KNOWN)
def test_fits_and_agrees_with_ddim_or_is_refused(name, kind):
    ddim = trained(kind)
    if kind in REFUSED.get(name, ()):
        with pytest.raises(ValueError, match=rf"^{name}Scheduler does not fit this model: .*DDIM, DDPM") as e:
            check_scheduler(ddim, of_kind(name, kind))
        listed = re.search(r"Take one of (.*) and make", str(e.value))[1].split(", ")
        assert listed == [n for n in KNOWN if kind not in REFUSED.get(n, ())]
        return
    check_scheduler(ddim, of_kind(name, kind))
    mean, std = sample(of_kind(name, kind), kind)
    ddim_mean, ddim_std = sample(ddim, kind)
    assert abs(mean - ddim_mean) < TOLERANCE["mean"], (mean, ddim_mean)
    assert name in SHARPER or abs(std - ddim_std) < TOLERANCE["std"], (std, ddim_std)


def test_the_distribution_is_the_data():
    """The tolerance is around something true: many DDIM steps give the data's mean and deviation."""
    mean, std = sample(trained(V), V)
    assert abs(mean - MEAN) < 0.02
    assert abs(std - STD) < 0.05


def test_assignment_checks_and_keeps_the_old_one():
    pipe = make_pipeline()
    old = pipe.scheduler
    with pytest.raises(ValueError, match="HeunDiscreteScheduler does not fit this model: its noise schedule"):
        pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(old.config)
    with pytest.raises(ValueError, match="it is set to epsilon, the model predicts v_prediction"):
        pipe.scheduler = diffusers.EulerDiscreteScheduler()
    with pytest.raises(ValueError, match=r"last alpha-bar 0\.0000 of 1000, trained 0\.0000"):
        pipe.scheduler = make_scheduler(beta_schedule="linear")
    with pytest.raises(ValueError, match="it is set to flow"):
        pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match="it has no alpha-bar schedule"):
        pipe.scheduler = diffusers.EDMEulerScheduler(prediction_type="v_prediction")
    assert pipe.scheduler is old
    pipe.scheduler = diffusers.UniPCMultistepScheduler.from_config(old.config)
    assert pipe.config.scheduler == ("diffusers", "UniPCMultistepScheduler")


def test_a_way_through_other_schedulers_does_not_begin_to_clip():
    """UniPC knows no `clip_sample`; DDIM made from one that lost it would cut latents off at 1."""
    ddim = trained(V)
    through = scheduler_named(scheduler_named(ddim, "UniPCMultistep"), "DDIM")
    assert through.config.clip_sample is False
    with pytest.raises(ValueError, match="its clip_sample is on, and would cut off latents: clip_sample=Fa"):
        check_scheduler(ddim, make_scheduler(clip_sample=True, prediction_type=V))
    for own in (diffusers.UniPCMultistepScheduler(), diffusers.LCMScheduler(prediction_type="v_prediction")):
        assert scheduler_named(own, "DDIM").config.clip_sample is False
    leading = diffusers.DDIMScheduler(clip_sample=False)  # by default, which is not Euler's
    assert scheduler_named(leading, "EulerDiscrete").config.timestep_spacing == "leading"


def test_a_folder_keeps_its_schedule(tmp_path):
    pipe = make_pipeline()
    pipe.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="PNDMScheduler does not fit this model"):
        SCDPipeline.from_pretrained(tmp_path, scheduler=diffusers.PNDMScheduler())
    other = scheduler_named(pipe.scheduler, "DPMSolverMultistep")
    assert SCDPipeline.from_pretrained(tmp_path, scheduler=other).scheduler is other
    with pytest.raises(ValueError, match="RePaintScheduler does not fit this model"):  # its step wants more
        pipe.scheduler = diffusers.RePaintScheduler.from_config(
            {**pipe.scheduler.config, "trained_betas": pipe.scheduler.betas.numpy()}
        )


def test_too_few_steps_for_a_scheduler_are_an_error_of_the_user():
    """PNDM's first step is made of four predictions."""
    plain = make_scheduler(rescale_betas_zero_snr=False, prediction_type=V)
    pipe = SCDPipeline.from_pipe(make_pipeline(), scheduler=plain)
    set_defaults(pipe, ModelOptions(scheduler="PNDM", steps=4))
    with pytest.raises(UserError, match="--steps 3: too few for PNDMScheduler; take more"):
        set_defaults(pipe, ModelOptions(steps=3))


def test_schedulers_by_name(caplog):
    """In any case, with the trained schedule, and without diffusers' warnings of another class's settings."""
    own = diffusers.LCMScheduler.from_config(trained(X0).config, original_inference_steps=100)
    for name in ("ddim", "DDIMScheduler", "Ddim"):
        found = scheduler_named(own, name)
        assert type(found) is diffusers.DDIMScheduler
        assert torch.equal(found.alphas_cumprod, own.alphas_cumprod)
        assert found.config.prediction_type == "sample"
    assert not caplog.records
    with pytest.raises(ValueError, match=r"EulerAncestralDiscrete: not a scheduler that fits .* DDIM, DDPM"):
        scheduler_named(own, "EulerAncestralDiscrete")


def test_a_step_of_no_default_sampler_has_no_weight():
    """METHOD 4: the terminal step is the first one sampled; a weight of 0 there would leave it untrained."""
    from scd import process

    for kind in (EPS, V, X0):
        scheduler = trained(kind)
        for steps in (1, 4, 10, 20, 50):
            scheduler.set_timesteps(steps)
            alpha, sigma = process.noise_levels(scheduler, scheduler.timesteps)
            assert (process.OBJECTIVES[kind].weight(alpha, sigma) > 0).all()


def test_flows_are_refused_where_they_would_be_sampled():
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler: its models are trained, not yet"):
        begin(diffusers.FlowMatchEulerDiscreteScheduler(), 4, 10, torch.device("cpu"))
