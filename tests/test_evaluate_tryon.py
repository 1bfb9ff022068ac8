"""Evaluation of try-on, with pipelines that know or ignore the answer: every number has an exact value."""

from types import SimpleNamespace

import numpy as np
import pytest

from scd import media
from scd.evaluate_tryon import held_out_scenes, sample_tryon, try_on
from scd.metrics.image import colour_error, psnr
from scd.world import LABELS

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 64
CEILING = 10 * np.log10(255**2 * 12)  # of scd.metrics.image.psnr: a perfect picture


class Stub:
    """Answers with what `paint(person, region, garments, pose)` says; remembers its generators' seeds."""

    def __init__(self, paint):
        self.paint, self.seeds = paint, []

    def set_progress_bar_config(self, **options):
        pass

    def encode_reference(self, picture, pose=None):
        return picture

    def __call__(self, reference, poses, person, region, generator, output_type):
        assert output_type == "np"
        self.seeds += [g.initial_seed() for g in generator]
        references = [None] * len(person) if reference is None else reference
        together = zip(person, region, references, poses, strict=True)
        return SimpleNamespace(images=np.stack([self.paint(*case) for case in together]) / 255)


@pytest.fixture(scope="module")
def scenes():
    return list(held_out_scenes(6, SIZE))


def knows(trials):
    """A pipeline that paints the truth, by the garment it is shown."""
    answers = {trial.garments[0].tobytes(): trial.truth for trial in trials}
    return Stub(lambda person, region, garments, pose: answers[garments[0].tobytes()])


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
        assert (changed & ~trial.region).mean() < 0.01, "what may not be painted is the same"


def test_samples_of_a_pipeline_that_knows_and_of_one_that_does_nothing(scenes, tmp_path):
    trials = [case.trial for case in scenes[:4]]
    right = sample_tryon(knows(trials), tmp_path / "right.png", SIZE, 4)
    assert right["garment_psnr"] == right["region_psnr"] == pytest.approx(CEILING)
    assert right["color_error"] == 0
    lazy = sample_tryon(Stub(lambda person, *_: person), tmp_path / "lazy.png", SIZE, 4)
    assert lazy["garment_psnr"] == lazy["garment_psnr_old"] == right["garment_psnr_old"]
    assert lazy["garment_psnr"] == pytest.approx(np.mean([psnr(t.person, t.truth, t.mask) for t in trials]))
    assert lazy["color_error"] == pytest.approx(
        np.mean([np.linalg.norm(t.person[t.mask].mean(0) - t.truth[t.mask].mean(0)) for t in trials])
    )
    assert media.read_image(tmp_path / "lazy.png").shape == media.read_image(tmp_path / "right.png").shape


def test_noise_depends_on_the_case_alone(scenes, monkeypatch):
    monkeypatch.setattr("scd.evaluate.BATCH", 2)
    pipe, done = Stub(lambda person, *_: person), []
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
