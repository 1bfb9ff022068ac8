"""Evaluation of try-on, with pipelines that know or ignore the answer: every number has an exact value."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_pipeline

from scd import media, world
from scd.data.augment import as_detected
from scd.data.world_tryon import world_region
from scd.evaluate_tryon import (
    draw_case,
    evaluate_world_tryon,
    held_out_scenes,
    paste_flat,
    sample_tryon,
    try_on,
)
from scd.metrics.image import colour_error, psnr, ssim, structure_error
from scd.world import LABELS

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 32
CEILING = 10 * np.log10(255**2 * 12)  # of scd.metrics.image.psnr: a perfect picture


class Stub:
    """Answers with what `paint(person, garments, pose, region)` says: person None where nobody is changed,
    garments None without a reference. Its VAE loses nothing."""

    device = "cpu"
    unet = SimpleNamespace(dtype=torch.float32)

    def __init__(self, paint):
        self.paint, self.seeds = paint, []
        self.config = SimpleNamespace(default_size=SIZE, default_steps=3, default_guidance=1.5)
        self.scheduler = None

    def set_progress_bar_config(self, **options):
        pass

    def encode_reference(self, picture, pose=None):
        return picture if isinstance(picture, list) else [picture]

    def encode_pictures(self, pixels):
        return pixels

    def decode_latents(self, latents):
        return latents / 2 + 0.5

    def __call__(
        self, reference, poses, height=None, width=None, *, generator, output_type, person=None, region=None
    ):
        assert output_type == "np"
        self.seeds += [g.initial_seed() for g in generator]
        nothing = [None] * len(poses)
        together = zip(person or nothing, reference or nothing, poses, region or nothing, strict=True)
        pictures = np.stack([self.paint(*case) for case in together])
        assert (height, width) in ((None, None), pictures.shape[1:3])
        return SimpleNamespace(images=pictures / 255)


def keep(person, *_):
    return person


@pytest.fixture(scope="module")
def scenes():
    return list(held_out_scenes(6, SIZE))


def knows(trials):
    """A pipeline that paints the truth, by the garment it is shown."""
    answers = {trial.garments[0].tobytes(): trial.truth for trial in trials}
    return Stub(lambda person, garments, *_: answers[garments[0].tobytes()])


def test_a_trial_is_the_same_person_in_another_garment_of_that_kind(scenes):
    assert len({case.own.kind for case in scenes}) >= 2
    for case in scenes:
        kind, trial = LABELS.index(case.own.kind), case.trial
        assert case.garment.kind == case.own.kind
        assert case.garment != case.own
        assert (case.truth.labels[trial.mask] == kind).all()
        assert trial.region[trial.mask].all()
        np.testing.assert_array_equal(trial.person, case.worn.image)
        changed = np.abs(trial.truth.astype(int) - trial.person).max(-1) > 3
        assert (changed & ~trial.region).mean() < 0.02, "what may not be painted is the same"


def test_samples_of_a_pipeline_that_knows_and_of_one_that_does_nothing(scenes, tmp_path):
    trials = [case.trial for case in scenes[:4]]
    right = sample_tryon(knows(trials), tmp_path / "right.png", SIZE, 4)
    assert right["garment_psnr"] == right["region_psnr"] == pytest.approx(CEILING)
    assert right["color_error"] == 0
    lazy = sample_tryon(Stub(keep), tmp_path / "lazy.png", SIZE, 4)
    assert lazy["garment_psnr"] == lazy["garment_psnr_old"] == right["garment_psnr_old"]
    assert lazy["garment_psnr"] == pytest.approx(np.mean([psnr(t.person, t.truth, t.mask) for t in trials]))
    assert lazy["color_error"] == pytest.approx(
        np.mean([np.linalg.norm(t.person[t.mask].mean(0) - t.truth[t.mask].mean(0)) for t in trials])
    )
    assert media.read_image(tmp_path / "lazy.png").shape == media.read_image(tmp_path / "right.png").shape


def test_noise_depends_on_the_case_alone(scenes, monkeypatch):
    monkeypatch.setattr("scd.evaluate.BATCH", 2)
    pipe, done = Stub(keep), []
    trials = [case.trial for case in scenes[:5]]
    pictures = try_on(pipe, trials, seed=7, progress=done.append)
    assert pipe.seeds == [7, 8, 9, 10, 11]
    assert done == [2, 2, 1]
    np.testing.assert_array_equal(pictures, [trial.person for trial in trials])


def test_colour_error_by_hand():
    truth, mask = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool)
    mask[0], result = True, truth.copy()
    result[0, :2] = (6, 8, 0)  # the mean of the row is half of it
    result[1:] = 255
    assert colour_error(result, truth, mask) == pytest.approx(5)


# ---- scd evaluate world-tryon ----


@pytest.fixture(scope="module")
def cases(scenes):
    return [draw_case(scene) for scene in scenes[:4]]


def oracle(cases):
    """A pipeline that paints what is true of the person and the garments that it is shown."""
    answers = {}

    def learn(person, garments, picture):
        answers[b"".join(picture.tobytes() for picture in [person, *garments])] = picture

    for case in cases:
        for trial in (case.trial, case.paired):
            learn(trial.person, trial.garments, trial.truth)
        dressed = case.dressed.target
        learn(case.trial.person, case.trial.garments, case.trial.truth)
        answers["animate", case.trial.person.tobytes()] = dressed  # with the garment as a second reference
        answers["animate", case.trial.truth.tobytes()] = dressed
        if case.two is not None:
            both, top, lower = case.two
            between = both.person.copy()  # nobody has drawn it: any picture that is told apart
            between[0, 0] = 1
            learn(both.person, both.garments, both.truth)
            answers.setdefault(top.person.tobytes() + top.garments[0].tobytes(), between)
            after = answers[top.person.tobytes() + top.garments[0].tobytes()]
            learn(after, lower.garments, both.truth)

    def paint(person, garments, pose, region):
        if person is None:
            return answers["animate", garments[0].tobytes()]
        shown = b"".join(picture.tobytes() for picture in [person, *(garments or [])])
        return answers.get(shown, person)

    return Stub(paint)


def test_a_case_is_drawn_as_it_is_said(scenes, cases):
    assert sum(case.two is not None for case in cases) >= 1
    for scene, case in zip(scenes, cases, strict=False):
        view, trial = scene.worn, case.trial
        np.testing.assert_array_equal(case.paired.truth, case.paired.person)
        np.testing.assert_array_equal(case.paired.garments[0], world.flat_garment(scene.own, SIZE))
        np.testing.assert_array_equal(case.other.truth, trial.truth)
        assert (case.other.garments[0] != trial.garments[0]).any()
        np.testing.assert_array_equal(case.dressed.reference, trial.person)
        asked, true = case.dressed.target_pose, case.dressed.truth_pose
        both_there = (asked.scores > 0) & (true.scores > 0)
        np.testing.assert_array_equal(asked.joints[both_there], true.joints[both_there])
        assert np.abs(as_detected(view.pose).joints - asked.joints).max() > 0.05
        if case.two is None:
            assert view.outfit.dress is not None
            continue
        both, top, lower = case.two
        assert len(both.garments) == 2
        np.testing.assert_array_equal(both.region, top.region | lower.region)
        np.testing.assert_array_equal(top.region, world_region(view, ["upper"]))
        upper, trousers = (both.truth[scene.worn.labels == LABELS.index(n)] for n in ("upper", "lower"))
        assert len(upper)
        assert len(trousers)
        assert both.mask[trial.mask].mean() > 0.5, "one of the two is the garment of the pair"


def test_numbers_of_a_pipeline_that_knows(cases, tmp_path):
    pipe, done = oracle(cases), []
    result = evaluate_world_tryon(pipe, 4, 5, tmp_path / "sheet.png", "known", progress=done.append)
    for name in (
        "garment_psnr", "garment_psnr_vae", "region_psnr", "psnr", "paired_psnr", "paired_region_psnr",
        "garment_psnr_two", "garment_psnr_two_steps", "masked_psnr_dressed", "masked_psnr_dressed_two_steps",
        "garment_psnr_dressed", "garment_psnr_dressed_two_steps",
    ):  # fmt: skip
        assert result[name] == pytest.approx(CEILING), name
    for name in ("ssim", "paired_ssim", "paired_region_ssim"):
        assert result[name] == pytest.approx(1), name
    assert result["color_error"] == result["print_error"] == result["print_error_vae"] == 0
    # Without a garment, and with one that it does not know, this pipeline keeps the person as it is
    old = np.mean([psnr(c.trial.person, c.trial.truth, c.trial.mask) for c in cases])
    for name in ("garment_psnr_no_garment", "garment_psnr_other_garment", "garment_psnr_old"):
        assert result[name] == pytest.approx(old), name
    assert result["color_error_no_garment"] == result["color_error_other_garment"] > 20
    assert result["print_error_other_garment"] == 1
    flat = np.mean([psnr(paste_flat(c), c.trial.truth, c.trial.mask) for c in cases])
    assert result["garment_psnr_flat"] == pytest.approx(flat)
    assert old < flat < 30, "a flat garment is nearer to the worn one than the old garment is"
    assert result["lpips"] is None
    assert result["num_two"] == sum(case.two is not None for case in cases)
    assert result["num_prints"] == sum(case.patterned for case in cases)
    painted = 6 * 4 + 3 * result["num_two"]
    assert sum(done) == len(pipe.seeds) == painted
    assert set(pipe.seeds) == {5, 6, 7, 8}, "every way of painting has the same noise"
    assert (result["num_steps"], result["guidance"], result["model"]) == (3, 1.5, "known")
    assert (result["num_pairs"], result["world_version"]) == (4, world.VERSION)
    assert media.read_image(tmp_path / "sheet.png").shape[1] > 10 * SIZE


def test_numbers_of_pipelines_that_do_harm(cases):
    def spill(person, *_):
        return np.zeros((SIZE, SIZE, 3)) if person is None else np.where(person > 127, person - 9, person)

    spilt = evaluate_world_tryon(Stub(spill), 2, lpips=lambda result, truth: 0.25)
    assert spilt["outside_max_difference"] == 9
    assert spilt["lpips"] == 0.25
    lazy = evaluate_world_tryon(
        Stub(lambda person, garments, *_: garments[0] if person is None else person), 2
    )
    assert lazy["garment_psnr"] == lazy["garment_psnr_old"] == lazy["garment_psnr_no_garment"]
    assert lazy["outside_max_difference"] == 0
    assert lazy["paired_psnr"] == pytest.approx(CEILING)
    assert lazy["print_error"] == 1
    dressed = [case.dressed for case in cases[:2]]
    copied = np.mean([psnr(p.reference, p.target, p.mask) for p in dressed])
    assert lazy["masked_psnr_dressed"] == lazy["masked_psnr_dressed_two_steps"] == pytest.approx(copied)


def test_scenes_without_two_pieces_or_prints_have_no_such_number(monkeypatch, scenes):
    only = next(scene for scene in scenes if scene.worn.outfit.dress is not None)
    plain = replace(only, garment=replace(only.garment, pattern="plain"))
    monkeypatch.setattr("scd.evaluate_tryon.held_out_scenes", lambda num, size: iter([plain]))
    result = evaluate_world_tryon(Stub(lambda person, g, *_: g[0] if person is None else person), 1)
    assert result["garment_psnr_two"] is result["garment_psnr_two_steps"] is None
    assert (result["num_two"], result["num_prints"], result["print_error"]) == (0, 0, None)


def test_structure_error_sees_the_print_and_not_the_colour():
    truth, mask = np.full((64, 64, 3), 90, np.uint8), np.zeros((64, 64), bool)
    mask[8:56, 8:56] = True
    truth[:, ::4] = truth[:, 1::4] = 150  # stripes, two pixels wide
    brighter = np.where(mask[..., None], truth + np.uint8(40), 0).astype(np.uint8)
    assert structure_error(truth, truth, mask) == 0
    assert structure_error(brighter, truth, mask) == pytest.approx(0, abs=1e-9)
    strength = structure_error(np.full_like(truth, 120), truth, mask)
    assert strength == pytest.approx(30, abs=1.5)
    assert structure_error(np.zeros_like(truth), truth, mask) == pytest.approx(strength)
    assert structure_error(np.roll(truth, 2, 1), truth, mask) == pytest.approx(2 * strength)


def test_ssim_over_a_mask():
    rng = np.random.default_rng(0)
    truth, mask = rng.integers(0, 256, (48, 40, 3), dtype=np.uint8), np.zeros((48, 40), bool)
    mask[:8] = True
    broken = truth.copy()
    broken[24:] = 0
    assert ssim(broken, truth, mask) == pytest.approx(1)
    assert ssim(broken, truth, np.ones_like(mask)) == pytest.approx(ssim(broken, truth))
    assert ssim(broken, truth) < 0.6
    with pytest.raises(ValueError, match="empty mask"):
        ssim(truth, truth, np.zeros_like(mask))


# ---- the command ----


def test_the_command_prints_a_table_then_json(scd, tmp_path):
    make_pipeline().save_pretrained(tmp_path / "tiny")
    options = ("--num", 2, "--steps", 1, "--size", 32, "--sheet", tmp_path / "sheet.png")
    command = ("evaluate", "world-tryon", *options, "--model", tmp_path / "tiny")
    code, out, err = scd(*command)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert list(result)[:10] == [
        "garment_psnr", "garment_psnr_no_garment", "garment_psnr_other_garment", "garment_psnr_vae",
        "region_psnr", "color_error", "color_error_no_garment", "color_error_other_garment",
        "outside_max_difference", "num_pairs",
    ]  # fmt: skip
    assert result["outside_max_difference"] == 0
    assert result["lpips"] is None
    assert (result["num_pairs"], result["num_steps"], result["guidance"]) == (2, 1, 2.0)
    assert min(result["seconds_dressed_two_steps"], result["seconds_dressed"]) > 0
    assert "print_error_plain" in "".join(out.splitlines()[:-1])
    assert "lpips is left out: --lpips names no weights" in err
    assert media.read_image(tmp_path / "sheet.png").size
    assert "sheet.png exists already" in scd(*command)[2]
    assert "--num 0: one person at least" in scd("evaluate", "world-tryon", "--num", 0)[2]
