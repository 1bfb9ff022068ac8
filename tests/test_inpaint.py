"""Painting in a region: of everything it is plain generation, of nothing it gives the picture back; between
them the network sees the rest of the picture as it is, whatever the sampler."""

import diffusers
import numpy as np
import pytest
import torch
from conftest import make_picture, make_pipeline, make_pose, make_scheduler
from PIL import Image

from scd import SCDPipeline
from scd.backbones import unet as backbone
from scd.encoders import as_pixels
from scd.inpaint import Canvas
from scd.pose.skeleton import empty_pose
from scd.reference import Reference
from scd.region import latent_region, paste_back
from scd.schedulers import KNOWN
from scd.types import PoseClip

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (40, 48)  # no multiple of each other, and no default of the pipeline


@pytest.fixture(scope="module")
def pipe():
    return make_pipeline()


@pytest.fixture(scope="module")
def garment(pipe):
    return pipe.encode_reference(make_picture(9, (32, 32)))


@pytest.fixture
def scheduler_kept(pipe):
    before = pipe.scheduler
    yield
    pipe.scheduler = before


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_person(seed=0, size=SIZE):
    return make_picture(seed, size)


def make_region(seed=0, size=SIZE):
    """A few boxes, at any place, the border too."""
    rng = np.random.default_rng(seed)
    region = np.zeros(size, bool)
    for _ in range(2):
        y, x = rng.integers(0, size[0] - 4), rng.integers(0, size[1] - 4)
        region[y : y + rng.integers(4, 24), x : x + rng.integers(4, 24)] = True
    return region


EVERYTHING, NOTHING = np.ones(SIZE, bool), np.zeros(SIZE, bool)


def paint(pipe, reference, *poses, output_type="np", seed=0, **kwargs):
    settings = {"generator": seeded(seed), "num_inference_steps": 2, "output_type": output_type, **kwargs}
    images = pipe(reference, *poses, **settings).images
    return np.stack([np.asarray(i) for i in images]) if output_type == "pil" else images


@torch.no_grad()
def z_0_of(pipe, person):
    return pipe.encode_pictures(pipe._pixels(person))[0]


def spy(monkeypatch, replace=None):
    """Every input of the network, and `replace(rows)` in the network's place."""
    seen, real = [], backbone.denoise

    def denoise(unet, rows, *rest):
        seen.append(rows.clone())
        return real(unet, rows, *rest) if replace is None else replace(rows)

    monkeypatch.setattr(backbone, "denoise", denoise)
    return seen


def mix(rows):
    """A fixed linear function of a picture, in which places and channels meet."""
    kernel = torch.randn(4, 4, 5, 5, generator=seeded(3)) / 12
    return torch.nn.functional.conv2d(rows, kernel, padding=2)


# ---- the two ends, and between them ----


@pytest.mark.parametrize("kind", ["pil", "np", "pt", "latent"])
def test_a_region_of_everything_is_plain_generation(pipe, garment, kind):
    plain = paint(pipe, garment, make_pose(1), *SIZE, output_type=kind)
    whole = paint(pipe, garment, make_pose(1), output_type=kind, person=make_person(), region=EVERYTHING)
    assert whole.shape == plain.shape
    assert (whole == plain).all()


def test_a_region_of_nothing_gives_the_picture_back(pipe, garment):
    person = make_person()
    for given in (person, Image.fromarray(person)):
        assert np.array_equal(
            paint(pipe, garment, output_type="pil", person=given, region=NOTHING)[0], person
        )
    for kind in ("pt", "np"):
        floats = torch.rand(3, *SIZE, generator=seeded(1))
        out = torch.as_tensor(paint(pipe, garment, output_type=kind, person=floats, region=NOTHING)[0])
        assert torch.equal(out if kind == "pt" else out.permute(2, 0, 1), floats)
        out = torch.as_tensor(paint(pipe, garment, output_type=kind, person=person, region=NOTHING)[0])
        assert torch.equal(out if kind == "pt" else out.permute(2, 0, 1), as_pixels(person, 8))
    out = paint(pipe, garment, output_type="latent", person=person, region=NOTHING)[0]
    assert torch.equal(out, z_0_of(pipe, person))


@pytest.mark.parametrize(("seed", "size"), [(0, SIZE), (1, (24, 64)), (2, (8, 72)), (3, (56, 8))])
def test_outside_is_the_picture_and_inside_is_painted(pipe, garment, seed, size):
    person, region = make_person(seed, size), make_region(seed, size)
    bytes_ = paint(pipe, garment, output_type="pil", person=person, region=region)[0]
    floats = paint(pipe, garment, person=person, region=region)[0]
    latents = paint(pipe, garment, output_type="latent", person=person, region=region)[0]
    assert np.array_equal(bytes_[~region], person[~region])
    assert np.array_equal(floats[~region], as_pixels(person, 8).permute(1, 2, 0).numpy()[~region])
    assert np.array_equal(bytes_, np.rint(255 * floats).astype(np.uint8))
    assert (bytes_[region] != person[region]).mean() > 0.9
    inside = torch.from_numpy(latent_region(region))
    z_0 = z_0_of(pipe, person)
    assert torch.equal(latents[:, ~inside], z_0[:, ~inside])
    assert (latents[:, inside] != z_0[:, inside]).all()
    decoded = pipe.decode_latents(latents[None])[0].permute(1, 2, 0).detach().numpy()
    assert np.array_equal(floats, paste_back(decoded, as_pixels(person, 8).permute(1, 2, 0).numpy(), region))


# ---- what the network sees ----


def test_the_network_sees_the_picture_outside_and_the_scaled_state_inside(
    pipe, garment, monkeypatch, scheduler_kept
):
    """At every step, in both halves of guidance, with a sampler that scales its state."""
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    seen, states = spy(monkeypatch), []
    latents = torch.randn(1, 4, 5, 6, generator=seeded())
    paint(
        pipe, garment, person=make_person(), region=make_region(), latents=latents, num_inference_steps=3,
        guidance_scale=2.0, callback_on_step_end=lambda p, i, t, given: states.append(given["latents"]) or {},
    )  # fmt: skip
    inside, z_0 = torch.from_numpy(latent_region(make_region())), z_0_of(pipe, make_person())
    assert [len(rows) for rows in seen] == [2, 2, 2]
    states.insert(0, latents * pipe.scheduler.init_noise_sigma)
    for rows, state, sigma in zip(seen, states[:3], pipe.scheduler.sigmas[:3], strict=True):
        expected = state[0] / (sigma**2 + 1) ** 0.5
        for half in rows:
            assert torch.equal(half[:, ~inside], z_0[:, ~inside])
            assert torch.equal(half[:, inside], expected[:, inside])


def test_ddim_and_euler_agree_on_a_linear_model(pipe, monkeypatch, scheduler_kept):
    """Their scaled states are the same, so what they paint is. Resetting the state instead of the input shows
    Euler's network next to nothing where the picture is: another result."""
    settings = {
        "person": make_person(), "region": make_region(), "num_inference_steps": 8, "output_type": "latent",
        "latents": torch.randn(1, 4, 5, 6, generator=seeded()),
    }  # fmt: skip
    # Of unit variance, as a trained codec's
    inside, z_0 = torch.from_numpy(latent_region(make_region())), torch.randn(4, 5, 6, generator=seeded(1))
    monkeypatch.setattr(pipe, "encode_pictures", lambda pixels: z_0[None])
    seen = spy(monkeypatch, mix)
    ddim = paint(pipe, None, **settings)
    euler_scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.scheduler, ddim_scheduler = euler_scheduler, pipe.scheduler
    euler = paint(pipe, None, **settings)
    assert (ddim - euler).abs().max() < 1e-3 * ddim.std()

    def resetting(scheduler):
        pipe.scheduler, scale = scheduler, scheduler.scale_model_input

        def reset(state, t):
            state.copy_(torch.where(inside, state, z_0))
            return scale(state, t)

        seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(scheduler, "scale_model_input", reset)
            patch.setattr(Canvas, "compose", lambda self, latents: latents)
            return torch.where(inside, paint(pipe, None, **settings), z_0)

    assert torch.equal(resetting(ddim_scheduler), ddim), "DDIM does not scale"
    assert (resetting(euler_scheduler) - euler).abs().max() > 0.5 * euler.std()
    assert seen[0][0][:, ~inside].abs().max() < 0.001 * z_0.abs().max()


@pytest.mark.parametrize("name", KNOWN)
def test_every_sampler_leaves_the_outside_alone(name, monkeypatch):
    plain = make_scheduler(prediction_type="epsilon", rescale_betas_zero_snr=False)
    scheduler = getattr(diffusers, f"{name}Scheduler").from_config(plain.config)
    pipe = SCDPipeline(**{**make_pipeline().components, "scheduler": scheduler})
    pipe.set_progress_bar_config(disable=True)
    seen = spy(monkeypatch, mix)
    out = paint(pipe, None, person=make_person(), region=make_region(), num_inference_steps=5,
                output_type="latent")[0]  # fmt: skip
    outside, z_0 = ~torch.from_numpy(latent_region(make_region())), z_0_of(pipe, make_person())
    assert torch.isfinite(out).all()
    for latents in (out, *(row for rows in seen for row in rows)):
        assert torch.equal(latents[:, outside], z_0[:, outside])


def test_guidance_in_a_region(pipe, garment):
    """One guided step, written out: both halves read the composed input."""
    latents = torch.randn(1, 4, 5, 6, generator=seeded())
    settings = {"person": make_person(), "region": make_region(), "latents": latents, "output_type": "latent"}
    guided = paint(pipe, garment, num_inference_steps=1, guidance_scale=3.0, **settings)
    features = pipe.encode_poses([empty_pose(SIZE)], SIZE)
    inside, z_0 = torch.from_numpy(latent_region(make_region())), z_0_of(pipe, make_person())
    pipe.scheduler.set_timesteps(1)
    t = pipe.scheduler.timesteps[0]
    rows = torch.where(inside, latents, z_0)
    with torch.no_grad():
        zero = torch.zeros_like(garment.context)
        free = backbone.denoise(pipe.unet, rows, t.expand(1), features, zero, None, (-1,))
        read = backbone.denoise(pipe.unet, rows, t.expand(1), features, garment.context, garment.cache, (0,))
    state = pipe.scheduler.step(free + 3 * (read - free), t, latents).prev_sample
    expected = torch.where(inside, state, z_0)
    assert (guided - expected).abs().max() < 1e-4 * expected.std()
    other = paint(pipe, garment, num_inference_steps=1, guidance_scale=1.0, **settings)
    assert not torch.allclose(guided, other)


# ---- many at once ----


def close(a, b):
    """A batch's convolutions add up in another order."""
    return np.abs(a - b).max() < 1e-4


def test_persons_and_regions_of_a_batch_are_as_alone(pipe, garment):
    persons, regions = [make_person(i) for i in range(3)], [make_region(i) for i in range(3)]
    poses, generators = [make_pose(0), None, make_pose(2)], lambda: [seeded(i) for i in range(3)]

    def alone(person, region):
        return np.concatenate([
            paint(pipe, garment, poses[i], person=person[i], region=region[i], generator=seeded(i))
            for i in range(3)
        ])  # fmt: skip

    for person, region in ((persons, regions), (persons[0], regions), (persons, regions[0])):
        together = paint(pipe, garment, poses, person=person, region=region, generator=generators())
        each = [given if isinstance(given, list) else [given] * 3 for given in (person, region)]
        assert close(together, alone(*each))
    assert not close(alone(persons, regions), alone(persons[:1] * 3, regions))


def test_several_pictures_of_each(pipe, garment):
    person, region = [make_person(0), make_person(1)], [make_region(0), make_region(1)]
    four = paint(pipe, garment, person=person, region=region, num_images_per_prompt=2,
                 generator=[seeded(i) for i in range(4)])  # fmt: skip
    for i in range(4):
        one = paint(pipe, garment, person=person[i // 2], region=region[i // 2], seed=i)
        assert close(four[i : i + 1], one)
    one_for_all = paint(pipe, garment, person=person[0], region=region[0], num_images_per_prompt=2)
    assert close(one_for_all[:1], paint(pipe, garment, person=person[0], region=region[0]))
    assert not close(one_for_all[:1], one_for_all[1:])


def test_references_are_one_for_all_one_each_and_add(pipe, garment):
    other = pipe.encode_reference(make_picture(8, (32, 32)))
    settings = {"person": make_person(), "region": make_region()}
    each = paint(pipe, [garment, other], generator=[seeded(), seeded()], **settings)
    assert close(each[:1], paint(pipe, garment, **settings))
    assert close(each[1:], paint(pipe, other, **settings))
    both = paint(pipe, pipe.encode_reference(make_person(), make_pose(0)) + garment, **settings)
    assert not close(both, each[:1])
    assert np.array_equal(both[0][~make_region()], each[0][~make_region()])


def test_a_pose_that_is_not_known_is_empty(pipe, garment):
    settings = {"person": make_person(), "region": EVERYTHING, "output_type": "latent"}
    unknown = paint(pipe, garment, **settings)
    assert torch.equal(unknown, paint(pipe, garment, empty_pose(SIZE), **settings))
    assert not torch.allclose(unknown, paint(pipe, garment, make_pose(1), **settings))


def test_regions_as_pictures(pipe, garment):
    region = make_region()
    grey = Image.fromarray(np.where(region, 128, 127).astype(np.uint8))
    truth = paint(pipe, garment, person=make_person(), region=region)
    for given in (grey, Image.fromarray(region)):
        assert given.mode in ("L", "1")
        assert np.array_equal(paint(pipe, garment, person=make_person(), region=given), truth)


# ---- habits ----


def test_callbacks_change_the_state_and_interrupt(pipe, garment):
    shapes = []

    def stop(pipe, index, t, given):
        shapes.append(tuple(given["latents"].shape))
        pipe._interrupt = True
        return {"latents": torch.ones_like(given["latents"])}

    out = paint(pipe, garment, person=make_person(), region=make_region(), callback_on_step_end=stop,
                output_type="latent")[0]  # fmt: skip
    assert shapes == [(1, 4, 5, 6)]
    inside = torch.from_numpy(latent_region(make_region()))
    assert (out[:, inside] == 1).all()
    assert torch.equal(out[:, ~inside], z_0_of(pipe, make_person())[:, ~inside])


def test_a_savepoint_belongs_to_its_person_and_region(pipe, garment, tmp_path, monkeypatch):
    settings = {"output_type": "latent", "num_inference_steps": 4}
    this = {"person": make_person(), "region": make_region()}
    seen = spy(monkeypatch)
    first = paint(pipe, garment, work_folder=tmp_path, **this, **settings)
    assert len(seen) == 4
    assert torch.equal(paint(pipe, garment, work_folder=tmp_path, **this, **settings), first)
    assert len(seen) == 4, "all its steps were done"
    others = [{**this, "region": make_region(1)}, {**this, "person": make_person(1)}]
    for other in others:
        truth = paint(pipe, garment, **other, **settings)
        paint(pipe, garment, work_folder=tmp_path, **this, **settings)
        assert torch.equal(paint(pipe, garment, work_folder=tmp_path, **other, **settings), truth)
    plain = paint(pipe, garment, empty_pose(SIZE), *SIZE, **settings)
    assert torch.equal(paint(pipe, garment, empty_pose(SIZE), *SIZE, work_folder=tmp_path, **settings), plain)


def test_half_precision():
    pipe = make_pipeline().to(torch.bfloat16)
    reference = pipe.encode_reference(make_picture(9, (32, 32)))
    person, region = make_person(), make_region()
    out = paint(pipe, reference, person=person, region=region, output_type="pil")[0]
    assert np.array_equal(out[~region], person[~region])
    assert paint(pipe, reference, person=person, region=region, output_type="latent").dtype == torch.bfloat16


CLIP = PoseClip.from_poses([make_pose(0)] * 2, 25)
TALL = make_region(0, (48, 40))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"region": None}, "person and region go together: the picture, and where to paint in it"),
        ({"person": None}, "person and region go together"),
        ({"poses": CLIP}, "painted in pictures, not in clips: give the poses as a list of Pose"),
        ({"region": TALL}, "a region of 48 x 40 pixels does not fit a person of 40 x 48"),
        (
            {"person": [make_person(), make_person(0, (48, 40))]},
            "a person of 48 x 40 pixels does not fit a person of 40 x 48",
        ),
        ({"person": make_person(0, (41, 48))}, "picture sides must be multiples of 8, not 41 x 48"),
        ({"height": 64}, "height and width are the person's, 40 x 48, not 64 x None"),
        ({"height": 40, "width": 40}, "height and width are the person's, 40 x 48, not 40 x 40"),
        ({"person": [make_person()] * 2, "poses": [make_pose(0)] * 3}, "2 persons for 3 poses: one for all"),
        ({"person": [make_person()] * 2, "region": [EVERYTHING] * 3}, "2 persons for 3 poses: one for all"),
        ({"region": [EVERYTHING] * 2, "poses": make_pose(0)}, "2 regions for 1 poses: one for all, or one"),
        ({"region": []}, "an empty list: give one person, region or reference for all, or one each"),
        (
            {"region": EVERYTHING.astype(np.uint8)},
            r"a PIL picture of mode L or 1; not ndarray uint8 \(40, 48\)",
        ),
        ({"region": EVERYTHING[..., None]}, r"a region is bool \(H, W\).* not ndarray bool \(40, 48, 1\)"),
        ({"region": Image.new("RGBA", SIZE[::-1])}, "a region is bool .* not Image RGBA"),
        ({"region": "mask.png"}, "a region is bool .* not str"),
        ({"person": make_person().astype(np.float32)}, r"a picture is uint8 \(H, W, 3\), not float32"),
    ],
)
def test_what_does_not_fit_is_said(pipe, arguments, text):
    given = {"poses": None, "person": make_person(), "region": EVERYTHING, **arguments}
    with pytest.raises(ValueError, match=text):
        pipe(None, given.pop("poses"), **given)


def test_no_poses_and_no_person(pipe):
    with pytest.raises(ValueError, match="no poses: give a Pose"):
        pipe(None)


# ---- pasting ----


def pictures(size, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == np.uint8:
        return [rng.integers(0, 256, (*size, 3), np.uint8) for _ in range(2)]
    return [rng.random((*size, 3)).astype(dtype) for _ in range(2)]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("feather", [None, 0, 1, 5])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (37, 41), (200, 30)])
def test_pasting_is_exact_at_both_ends(size, feather, dtype):
    generated, original = pictures(size, dtype)
    region = make_region(4, (size[0] + 5, size[1] + 5))[: size[0], : size[1]]
    before = [generated.copy(), original.copy(), region.copy()]
    out = paste_back(generated, original, region, feather)
    assert out.dtype == dtype
    assert np.array_equal(out[~region], original[~region])
    assert np.array_equal(paste_back(generated, original, region | True, feather), generated)
    assert np.array_equal(paste_back(generated, original, region & False, feather), original)
    low, high = np.minimum(generated, original), np.maximum(generated, original)
    slack = 0 if dtype == np.uint8 else 1e-6
    assert ((low - slack <= out) & (out <= high + slack)).all()
    for array, was in zip((generated, original, region), before, strict=True):
        assert np.array_equal(array, was)


def test_the_ramp_lies_inside_and_the_border_is_no_edge():
    generated, original = np.ones((3, 12, 3), np.float32), np.zeros((3, 12, 3), np.float32)
    region = np.zeros((3, 12), bool)
    region[:, 4:] = True  # from the fifth column to three borders of the picture
    ramp = paste_back(generated, original, region, 3)
    assert np.allclose(ramp, np.array([0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1])[:, None])
    hard = paste_back(generated, original, region, 0)
    assert np.array_equal(hard[..., 0], region)
    white = paste_back(np.full_like(generated, 255, np.uint8), original.astype(np.uint8), region, 3)
    assert np.array_equal(white[0, :, 0], [0, 0, 0, 0, 64, 128, 191, 255, 255, 255, 255, 255])


@pytest.mark.parametrize("width", [2, 4, 8, 16, 40])
def test_the_middle_of_a_strap_is_generated(width):
    generated, original = np.ones((9, 60, 3), np.float32), np.zeros((9, 60, 3), np.float32)
    region = np.zeros((9, 60), bool)
    region[:, 10 : 10 + width] = True
    out = paste_back(generated, original, region, 8)[4, :, 0]
    assert (out[~region[4]] == 0).all()
    assert (out[region[4]] == 1).mean() >= 0.5
    assert np.allclose(out[10 : 10 + width], out[10 : 10 + width][::-1], rtol=0, atol=1e-6)


def test_a_strap_stays_whole_where_it_joins_a_wide_part():
    generated, original = np.ones((200, 200, 3), np.float32), np.zeros((200, 200, 3), np.float32)
    region = np.zeros((200, 200), bool)
    region[20:100, 95:105] = True
    region[100:200, 20:180] = True
    out = paste_back(generated, original, region, 16)[..., 0]
    assert (out[30:94, 97:103] == 1).all()
    assert (out[~region] == 0).all()
    assert np.allclose(out[150, 20:38], np.minimum(np.arange(1, 19) / 17, 1), atol=1e-6), "the whole ramp"


@pytest.mark.parametrize(("height", "feather"), [(8, 1), (64, 1), (128, 2), (1024, 16)])
def test_the_default_feather_is_a_share_of_the_picture(height, feather):
    size = height, 40 + 8 * feather
    generated, original = pictures(size, np.float32)
    region = np.zeros(size, bool)
    region[:, 4:] = True  # wide enough for the whole ramp
    out = paste_back(generated, original, region)
    assert np.array_equal(out, paste_back(generated, original, region, feather))
    assert not np.array_equal(out, paste_back(generated, original, region, feather + 1))


def test_what_is_no_number_outside_does_not_matter():
    generated, original = pictures((16, 16), np.float32)
    region = make_region(0, (16, 16))
    out = paste_back(np.where(region[..., None], generated, np.nan), original, region)
    assert np.array_equal(out, paste_back(generated, original, region))


def test_pasting_what_does_not_fit():
    generated, original = pictures((8, 8), np.uint8)
    region = np.ones((8, 8), bool)
    with pytest.raises(ValueError, match=r"differ in size: \(8, 8, 3\), \(7, 8, 3\) and \(8, 8\)"):
        paste_back(generated, original[1:], region)
    with pytest.raises(ValueError, match=r"differ in size: \(8, 8, 3\), \(8, 8, 3\) and \(7, 8\)"):
        paste_back(generated, original, region[1:])
    with pytest.raises(ValueError, match="differ in type: uint8 and float32"):
        paste_back(generated, original.astype(np.float32), region)


def test_a_stack_counts_as_its_pictures():
    """Without poses, one picture for each reference of a stack, as of a list."""
    pipe = make_pipeline()
    side = pipe.config.default_size
    references = [pipe.encode_reference(make_picture(i, (side, side))) for i in (0, 1)]
    person, region = make_picture(2, (side, side)), np.ones((side, side), bool)

    def paint(given):
        generators = [torch.Generator().manual_seed(i) for i in (0, 1)]
        return pipe(given, person=person, region=region, generator=generators, output_type="np").images

    np.testing.assert_array_equal(paint(references), paint(Reference.stack(references)))
