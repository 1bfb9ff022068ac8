"""Try-on datasets measured, on a folder that the world wrote: its truth is exact."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_pipeline

from scd import media
from scd.data.fitting import read_fitting
from scd.data.tryon import find_pairs
from scd.data.write_viton_hd import write_viton_hd
from scd.evaluate_viton_hd import (
    Subject,
    choose_pairs,
    evaluate_pairs,
    match_predictions,
    measure,
    missing_pictures,
    names_of,
    paint_pairs,
    read_predictions,
)
from scd.metrics.distribution import (
    InceptionDistance,
    VideoDistance,
    frechet_distance,
    kernel_distance,
    load_i3d,
    load_inception,
)
from scd.metrics.image import absolute_error, psnr
from scd.metrics.perceptual import load_lpips
from scd.types import UserError
from scd.world import LABELS

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (64, 48)  # (height, width): VITON-HD's shape
CEILING = 10 * np.log10(255**2 * 12)  # of scd.metrics.image.psnr: a perfect picture
MEASURES = ("psnr", "ssim", "l1", "region_psnr", "region_ssim", "garment_psnr", "color_error")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Three people to test with, one to train with."""
    root = tmp_path_factory.mktemp("tryon") / "world"
    write_viton_hd(root, 1, 3, SIZE)
    (root / "world.json").write_text("{}")
    return root


@pytest.fixture
def viton(written, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(written, tmp_path / "viton"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a tiny model with random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_pipeline().save_pretrained(folder)
    return folder


class Stub:
    """Paints what `paint(person)` says."""

    unet = SimpleNamespace(dtype=torch.float32)

    def __init__(self, paint):
        self.paint, self.seeds, self.asked, self.references = paint, [], [], []

    def encode_reference(self, picture):
        return picture

    def __call__(self, reference, poses, person, region, generator, output_type):
        self.seeds += [g.initial_seed() for g in generator]
        self.references += reference
        self.asked.append(output_type)
        return SimpleNamespace(images=np.stack([self.paint(p) for p in person]) / 255)

    def decode_output(self, latents, is_clip, output_type):
        assert (is_clip, output_type) == (False, "np")
        return 1 - latents


def run(pipe, pairs, **options):
    return evaluate_pairs(paint_pairs(pipe, pairs, SIZE, **options), names_of(pairs))


# ---- numbers ----


def test_paired_the_person_is_the_truth(written):
    pairs = choose_pairs(find_pairs(written), paired=True)
    pipe = Stub(lambda person: person)
    result = run(pipe, pairs, seed=4, batch=2)
    assert [result[name] for name in MEASURES] == pytest.approx([CEILING, 1, 0, CEILING, 1, CEILING, 0])
    assert (result["num_pairs"], result["num_with_truth"], result["num_broken"]) == (3, 3, 0)
    assert result["outside_max_difference"] == 0
    assert result["lpips"] is result["fid"] is result["kid"] is None
    assert pipe.seeds == [4, 5, 6]
    for pair, reference in zip(pairs, pipe.references, strict=True):
        np.testing.assert_array_equal(reference, read_fitting(pair, SIZE).garment)
    darker = run(Stub(lambda person: np.maximum(person, 10) - 10), pairs)
    assert darker["l1"] == pytest.approx(
        np.mean([absolute_error(np.maximum(p, 10) - 10, p) for p in people(pairs)])
    )
    assert darker["outside_max_difference"] == 10
    assert 9 < darker["color_error"] < 10.01 * np.sqrt(3)


def people(pairs):
    return [read_fitting(pair, SIZE).person for pair in pairs]


def test_unpaired_there_is_a_truth_where_the_world_drew_it(written, viton):
    pairs = choose_pairs(find_pairs(written), paired=False)
    answers = {read_fitting(p, SIZE).person.tobytes(): media.read_image(p.truth) for p in pairs}
    right = run(Stub(lambda person: answers[person.tobytes()]), pairs)
    assert [right[name] for name in MEASURES] == pytest.approx([CEILING, 1, 0, CEILING, 1, CEILING, 0])
    old = run(Stub(lambda person: person), pairs)
    expected = []
    for pair in pairs:
        fitting, truth = read_fitting(pair, SIZE), media.read_image(pair.truth)
        worn = media.read_image(pair.labels)[..., 0] == LABELS.index("upper")
        expected.append(psnr(fitting.person, truth, worn & fitting.region))
    assert old["garment_psnr"] == pytest.approx(np.mean(expected))
    shutil.rmtree(viton / "test" / "truth")
    unknown = run(Stub(lambda person: person), choose_pairs(find_pairs(viton), paired=False))
    assert [unknown[name] for name in MEASURES] == [None] * 7
    assert (unknown["num_pairs"], unknown["num_with_truth"]) == (3, 0)
    assert unknown["outside_max_difference"] == 0


def test_garments_are_judged_inside_the_region(written):
    """Where nothing may be painted, nothing of the garment can be."""
    (pair,) = choose_pairs(find_pairs(written), paired=True, limit=1)
    fitting = read_fitting(pair, SIZE)
    worn = media.read_image(pair.labels)[..., 0] == LABELS.index("upper")
    region = fitting.region.copy()
    region[int(np.argwhere(worn)[:, 0].mean()) :] = False
    subject = Subject(pair, replace(fitting, region=region), fitting.person, worn)
    row = measure(subject, np.where(region[..., None], fitting.person, 0).astype(np.uint8))
    assert (worn & ~region).any()
    assert row["garment_psnr"] == row["region_psnr"] == pytest.approx(CEILING)
    assert row["color_error"] == 0
    assert row["psnr"] < 20


def test_without_paste_back_the_latents_are_decoded_as_they_are(written):
    pairs = choose_pairs(find_pairs(written), paired=True, limit=1)
    pipe = Stub(lambda person: person)
    assert run(pipe, pairs)["psnr"] == pytest.approx(CEILING)
    assert run(pipe, pairs, paste_back=False)["psnr"] < 15  # this stub decodes the negative
    assert pipe.asked == ["np", "latent"]


def test_a_broken_pair_is_named_counted_and_changes_no_other(viton, caplog):
    layout = find_pairs(viton)
    pairs = choose_pairs(layout, paired=True)
    pairs[1].person.write_bytes(b"no picture")
    pipe = Stub(lambda person: person)
    with caplog.at_level(logging.WARNING, "scd"):
        result = run(pipe, pairs)
    assert (result["num_pairs"], result["num_broken"], pipe.seeds) == (2, 1, [0, 2])
    assert [record.getMessage() for record in caplog.records] == [
        f"left out: {pairs[1].person} is not a picture that can be read: use PNG, JPEG or WebP"
    ]
    with pytest.raises(UserError, match="none of 1 pairs could be read"):
        run(pipe, pairs[1:2])
    pairs[0].garment.unlink()
    (line,) = missing_pictures(find_pairs(viton))[:1]
    assert line.startswith("test_pairs.txt, line 1:")


def test_padding_is_neither_measured_nor_written(written, tmp_path):
    pairs, seen = choose_pairs(find_pairs(written), paired=True, limit=1), []

    def paint(person):
        seen.append(person.shape)
        spoilt = person.copy()
        spoilt[:, :8] = spoilt[:, -8:] = 0  # 48 of 64 columns are the picture
        return spoilt

    paintings = paint_pairs(Stub(paint), pairs, (64, 64))
    result = evaluate_pairs(paintings, names_of(pairs), tmp_path)
    assert seen == [(64, 64, 3)]
    assert result["psnr"] == pytest.approx(CEILING)
    assert media.read_image(tmp_path / f"{pairs[0].name}.png").shape == (64, 48, 3)


# ---- which pairs, whose pictures ----


def test_pairs_by_setting_category_and_number(written):
    layout = find_pairs(written)
    assert [p.paired for p in choose_pairs(layout, True, ["upper"], 2)] == [True, True]
    assert not any(p.paired for p in choose_pairs(layout, False))
    with pytest.raises(UserError, match="has no dress unpaired test pairs; scd data check"):
        choose_pairs(layout, False, ["dress"])


def test_a_person_in_two_garments_has_two_pictures(written):
    one, two, _ = choose_pairs(find_pairs(written), paired=True)
    again = replace(one, garment=two.garment, paired=False)
    names = names_of([one, two, again])
    assert names == {
        one: f"{one.name}_{one.garment.stem}", two: two.name, again: f"{one.name}_{two.garment.stem}",
    }  # fmt: skip


def test_predictions_are_the_test_set_or_nothing(written, tmp_path):
    pairs = choose_pairs(find_pairs(written), paired=False)
    first, second, third = pairs
    for name in (first.name, f"{second.name}_{second.garment.stem}", third.name):
        media.write_image(tmp_path / "them" / "deep" / f"{name}.png", np.zeros((*SIZE, 3), np.uint8))
    (tmp_path / "them" / "deep" / "._00001.png").write_text("what a Mac leaves beside a picture")
    assert list(match_predictions(tmp_path / "them", pairs, pairs)) == pairs
    assert list(match_predictions(tmp_path / "them", pairs[:1], pairs)) == [first], "--limit 1"
    deep = tmp_path / "them" / "deep"
    shutil.copy(deep / f"{third.name}.png", deep / "me.png")
    with pytest.raises(UserError, match=r"not the test set: 1 pictures belong to no pair \(me.png\);"):
        match_predictions(tmp_path / "them", pairs, pairs)
    (deep / f"{third.name}.png").unlink()
    with pytest.raises(UserError, match=rf"set: 1 of 3 have no prediction \({third.name}\) and 1 pictures"):
        match_predictions(tmp_path / "them", pairs, pairs)
    (deep / "me.png").unlink()
    with pytest.raises(UserError, match=rf"set: 1 of 3 have no prediction \({third.name}\); numbers of"):
        match_predictions(tmp_path / "them", pairs, pairs)
    shutil.copy(deep / f"{first.name}.png", deep / f"{third.name}.png")
    media.write_image(tmp_path / "them" / "other" / f"{first.name}.jpg", np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(UserError, match=rf"holds {first.name}.png and {first.name}.jpg: which of the two"):
        match_predictions(tmp_path / "them", pairs, pairs)
    (tmp_path / "them" / "other" / f"{first.name}.jpg").rename(deep / f"{first.name}.jpg")
    with pytest.raises(UserError, match="which of the two"):
        match_predictions(tmp_path / "them", pairs, pairs)
    with pytest.raises(UserError, match="there is no such folder"):
        match_predictions(tmp_path / "none", pairs, pairs)


def test_predictions_of_people_with_one_number_in_two_categories(written, tmp_path):
    """As the command writes them they are found again; a bare number that means two people is refused."""
    folders = ("upper_body", "lower_body", "dresses")
    pairs = [
        replace(pair, name=f"{folder}/7_0", person=pair.person.with_name("7_0.jpg"))
        for pair, folder in zip(choose_pairs(find_pairs(written), paired=True), folders, strict=True)
    ]
    for pair, name in names_of(pairs).items():
        media.write_image(tmp_path / "own" / f"{name}.png", np.full((*SIZE, 3), pairs.index(pair), np.uint8))
    found = match_predictions(tmp_path / "own", pairs, pairs)
    assert [media.read_image(found[pair]).max() for pair in pairs] == [0, 1, 2]
    media.write_image(tmp_path / "flat" / "7_0.png", np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(UserError, match=r"is it upper_body/7_0 with .*, or lower_body/7_0 with"):
        match_predictions(tmp_path / "flat", pairs, pairs)
    with pytest.raises(UserError, match="2 pairs are called upper_body/7_0"):
        names_of([pairs[0], replace(pairs[0], region=None)])


def test_predictions_have_any_size_and_the_person_s_shape(written, tmp_path):
    (pair,) = choose_pairs(find_pairs(written), paired=True, limit=1)
    large = media.read_image(pair.person).repeat(2, 0).repeat(2, 1)
    media.write_image(tmp_path / "large.png", large)
    names = names_of([pair])
    result = evaluate_pairs(read_predictions({pair: tmp_path / "large.png"}, SIZE), names)
    assert result["psnr"] == pytest.approx(CEILING)
    media.write_image(tmp_path / "wide.png", large[:64])
    with pytest.raises(UserError, match=r"wide.png: is 96x64, the person 48x64"):
        evaluate_pairs(read_predictions({pair: tmp_path / "wide.png"}, SIZE), names)


# ---- the command ----


def test_the_command_paints_and_measures_what_it_painted(scd, written, model, tmp_path):
    command = ["evaluate", "vitonhd", written, "--unpaired", "--size", "64x48"]
    painting = [*command, "--model", model, "--steps", 1, "--out", tmp_path / "out"]
    code, out, err = scd(*painting)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert {
        "data": "vitonhd", "root": str(written), "setting": "unpaired", "categories": ["upper"],
        "limit": None, "height": 64, "width": 48, "paste_back": True, "predictions": None, "num_steps": 1,
        "guidance": 2.0, "scheduler": "DDIMScheduler", "dtype": "float32", "seed": 0, "model": str(model),
        "lpips": None, "lpips_of": None, "fid": None,
        "kid": None, "fid_of": None, "num_pairs": 3, "num_with_truth": 3, "num_broken": 0, "num_missing": 0,
        "outside_max_difference": 0, "ssim_of": "torchmetrics, RGB, data range 1, Gaussian window 11",
    }.items() <= result.items()  # fmt: skip
    assert set(MEASURES) < set(result)
    assert "garment_psnr" in "".join(out.splitlines()[:-1]), "a table comes first"
    assert "lpips is left out: --lpips names no weights" in err
    assert "fid and kid are left out: --inception names no weights" in err
    assert "exists already" in scd(*painting)[2]
    again = scd(*command, "--predictions", tmp_path / "out")
    measured = json.loads(again[1].splitlines()[-1])
    assert [measured[name] for name in MEASURES] == [result[name] for name in MEASURES]
    assert (measured["model"], measured["paste_back"]) == (None, None)
    decoded = scd(*painting, "--force", "--no-paste-back", "--limit", 1, "--batch", 1)
    assert json.loads(decoded[1].splitlines()[-1])["outside_max_difference"] > 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--paired", "--unpaired"], "one at a time"),
        (["--size", "512"], "--size 512: write HEIGHTxWIDTH"),
        (["--size", "16x16"], "32 at least"),
        (["--limit", "0"], "--limit 0: one at least"),
        (["--category", "lower"], "has no lower paired test pairs"),
        (["--out", "a", "--predictions", "b"], "leave --out away"),
        (["--predictions", "nothing"], "nothing: there is no such folder"),
        (["--model", "MODEL", "--size", "60x48"], "--size 60x48: multiples of 8"),
        (["--category", "hat"], "'upper'"),
    ],
)
def test_wrong_words_are_one_line(scd, written, model, arguments, text):
    arguments = [model if word == "MODEL" else word for word in arguments]
    code, out, err = scd("evaluate", "vitonhd", written, *arguments)
    assert (code, out) == (2, "")
    assert text in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_size_far_from_the_trained_one_is_said(scd, written, model):
    options = ("--model", model, "--steps", 1, "--limit", 1, "--size", "32x32")
    code, _, err = scd("evaluate", "vitonhd", written, *options)
    assert code == 0
    assert "trained at 64 px: --size 32x32 is far from that" in err


# ---- distributions ----


def test_frechet_distance_by_hand():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(400, 3))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a + np.array([3, 0, 4]), a) == pytest.approx(25)
    # Scaled by 2: tr(A + 4 A - 2 * 2 A) = tr(A), beside the means
    expected = np.trace(np.cov(a, rowvar=False)) + (a.mean(0) ** 2).sum()
    assert frechet_distance(2 * a, a) == pytest.approx(expected)
    few = rng.normal(size=(2, 5))  # a singular covariance
    assert np.isfinite(frechet_distance(few, few[::-1]))
    with pytest.raises(ValueError, match="takes two pictures"):
        frechet_distance(a[:1], a)


def test_kernel_distance_is_unbiased():
    rng = np.random.default_rng(0)
    same = [kernel_distance(rng.normal(size=(20, 4)), rng.normal(size=(20, 4))) for _ in range(200)]
    other = [kernel_distance(rng.normal(size=(20, 4)) + 1, rng.normal(size=(20, 4))) for _ in range(50)]
    assert abs(np.mean(same)) < 0.1 * np.mean(other)
    a, b = np.array([[1.0], [2.0]]), np.array([[0.0], [3.0]])
    # within a (2 + 1)^3 = 27, within b 1, across (1 + 64 + 1 + 343) / 4
    assert kernel_distance(a, b) == pytest.approx(27 + 1 - 2 * (1 + 64 + 1 + 343) / 4)


def test_distances_see_generated_and_real_people(written):
    seen = InceptionDistance(lambda pixels: pixels.float().mean((2, 3)))
    pairs = choose_pairs(find_pairs(written), paired=True)
    paintings = paint_pairs(Stub(lambda person: person), pairs, SIZE)
    result = evaluate_pairs(paintings, names_of(pairs), distribution=seen)
    assert [len(seen.seen[real]) for real in (True, False)] == [3, 3]
    assert result["fid"] == pytest.approx(0, abs=1e-3)
    alone = InceptionDistance(lambda pixels: torch.zeros(1, 2))
    alone.add(np.zeros((8, 8, 3), np.uint8), real=True)
    assert alone.numbers() == {"fid": None, "kid": None}


def test_clips_are_seen_in_windows_of_sixteen_frames():
    windows = []

    def features(window):
        windows.append(window)
        return window.mean((3, 4)).mean(2)

    seen = VideoDistance(features)
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (18, 24, 16, 3), np.uint8)
    clip[0], clip[1] = 0, 255
    seen.add(clip, real=True)
    assert {tuple(window.shape) for window in windows} == {(1, 3, 16, 224, 224)}
    assert len(windows) == 18 - 16 + 1
    assert torch.allclose(windows[0][0, :, 0], torch.tensor(-1.0))
    assert torch.allclose(windows[0][0, :, 1], torch.tensor(1.0))
    assert torch.equal(windows[0][:, :, 2:], windows[2][:, :, :-2]), "a frame apart"
    assert seen.numbers() == {"fvd": None, "num_windows": 0}
    seen.add(clip, real=False)
    assert seen.numbers() == {"fvd": pytest.approx(0, abs=1e-9), "num_windows": 3}
    seen.add(clip[:15], real=False)
    assert len(windows) == 6, "too short for one"


def test_weights_that_are_not_there_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"pip install 'scd\[lpips\]'|not torchvision's squeezenet1_1"):
        load_lpips(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match=r"pip install 'scd\[fid\]'|not torch-fidelity's pt_inception"):
        load_inception(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match=r"none.pt: not StyleGAN-V's i3d_torchscript.pt \(.+\)"):
        load_i3d(tmp_path / "none.pt")
    torch.jit.save(torch.jit.script(torch.nn.Identity()), tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt: not StyleGAN-V's i3d_torchscript.pt"):
        load_i3d(tmp_path / "other.pt")
