"""`scd train vitonhd` on the world in VITON-HD's layout, from a folder of Stable Diffusion's shape: what
learns, exact resume, the sheet, and folders that cannot train."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sd15_folder import make

from scd import latents, media, model, train
from scd.checkpoint import checkpoints
from scd.config import PRESETS, DataConfig
from scd.data.collate import collate
from scd.data.tryon_pictures import open_tryon
from scd.data.world import WorldPictures
from scd.data.world_tryon import WorldTryOn
from scd.data.write_clips import write_tiktok
from scd.data.write_viton_hd import write_viton_hd
from scd.region import latent_region
from scd.types import UserError
from scd.world import Scene
from scd.world.motion import CLIPS

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three people to train with, two to test with, in VITON-HD's shape."""
    folder = tmp_path_factory.mktemp("world")
    write_viton_hd(folder, 3, 2, (128, 96))
    return folder


@pytest.fixture
def broken(root, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(root, tmp_path / "viton"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("sd")
    make(base / "sd", base / "clip", tiny=True)
    return {"init": str(base / "sd"), "image_encoder": str(base / "clip")}


@pytest.fixture
def start(scd, root, folders):
    """`scd train vitonhd` at a size for tests."""

    def run(run_folder, *more, data=root):
        return scd(
            "train", "vitonhd", "--data.root", data, "--init", folders["init"],
            "--image-encoder", folders["image_encoder"], "--run", run_folder, "--device", "cpu",
            "--data.size", 64, "--data.groups", 2, "--data.workers", 0, "--accumulation", 1,
            "--precision", "no", "--save-every", 2, "--log-every", 1, "--warmup", 1, "--lr", "1e-3",
            "--sample-pictures", 2, *more,
        )  # fmt: skip

    return run


def networks(pipe):
    parts = {"unet": pipe.unet, "pose_encoder": pipe.pose_encoder, "vae": pipe.vae}
    parts["image_encoder"] = pipe.image_encoder
    return {f"{n}.{k}": v for n, part in parts.items() for k, v in part.state_dict().items()}


def held(folder):
    """All tensors of a run's newest checkpoint: weights, average, optimizer."""
    files = sorted(checkpoints(folder)[-1].glob("*.safetensors"))
    return {f"{file.stem}.{k}": v for file in files for k, v in load_file(file).items()}


# ---- runs ----


@pytest.mark.parametrize("learn", ["attention", "lora"])
def test_a_run_resumes_to_the_bit_and_learns_only_what_it_says(learn, start, root, folders, tmp_path):
    more = [] if learn == "attention" else ["--learn", learn, "--lora-rank", 4]  # attention: the preset's
    code, out, err = start(tmp_path / "whole", "--steps", 4, *more)
    assert (code, out) == (0, f"{tmp_path}/whole/model\n"), err
    assert start(tmp_path / "parts", "--steps", 2, *more, "--sample-pictures", 0)[0] == 0
    half = held(tmp_path / "parts")
    assert start(tmp_path / "parts", "--steps", 4, *more)[0] == 0
    whole, parts = held(tmp_path / "whole"), held(tmp_path / "parts")
    assert whole.keys() == parts.keys() == half.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    assert not all(torch.equal(half[k], parts[k]) for k in half)

    # What the checkpoint holds is what learns
    learnt = [k for k in whole if k.startswith("model.unet.")]
    assert learnt
    assert all(".attn1." in k or ".attn2." in k for k in learnt)
    assert all("lora_" in k for k in learnt) == (learn == "lora")

    # RUN/model is a stock folder; all but attention and pose encoder is as it was
    first = networks(model.load_init(replace(PRESETS["vitonhd"], **folders)))
    last, again = (networks(model.load(tmp_path / name / "model", "cpu")) for name in ("whole", "parts"))
    assert first.keys() == last.keys()
    assert all(torch.equal(last[k], again[k]) for k in last)
    changed = {k for k in last if not torch.equal(first[k], last[k])}
    assert any(k.startswith("pose_encoder.") for k in changed)
    inside = [k for k in changed if not k.startswith("pose_encoder.")]
    assert inside
    assert all(k.startswith("unet.") and (".attn1." in k or ".attn2." in k) for k in inside)

    rows = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [row["targets"] for row in rows if "loss" in row] == [2, 4, 6, 8]
    assert np.isfinite([row["loss"] for row in rows if "loss" in row]).all()
    assert rows[-1].keys() == {"step", "region_psnr", "color_error"}
    sheets = [tmp_path / name / "samples" / "step-00000004.png" for name in ("whole", "parts")]
    assert np.array_equal(*map(media.read_image, sheets))
    # Two pairs side by side: person, region, garment, result, truth of each
    height, width, _ = media.read_image(sheets[0]).shape
    assert height >= 80
    assert width >= 2 * 5 * 48


def test_everything_may_learn_and_a_garment_has_no_embedding_without_an_encoder(start, tmp_path):
    more = ("--learn", "all", "--image-encoder", "", "--ema-decay", 0, "--sample-pictures", 0)
    assert start(tmp_path / "whole", "--steps", 2, *more)[0] == 0
    for steps in (1, 2):
        code, _, err = start(tmp_path / "parts", "--steps", steps, *more)
        assert code == 0, err
    whole, parts = held(tmp_path / "whole"), held(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    pipe = model.load(tmp_path / "parts" / "model", "cpu")
    assert pipe.image_encoder is None
    assert {f"model.unet.{name}" for name in pipe.unet.state_dict()} <= whole.keys()


def test_the_batch_of_a_folder_is_noised_in_the_region_alone(root, folders):
    """From the masks on the disk to what the network is shown, in portrait."""
    data = replace(PRESETS["vitonhd"].data, root=str(root), size=64, groups=2, workers=0)
    config = replace(PRESETS["vitonhd"], data=data, drop_reference=0.0, **folders)
    pipe = model.load_init(config)
    dataset = open_tryon(data, 2)
    batch = collate([dataset[i] for i in range(2)])
    assert batch.references.shape == batch.targets.shape == (2, 1, 3, 80, 48)  # the nearest bucket; padded
    assert not batch.reference_drawings.any()
    shown = {}

    def trainee(references, z_t, timesteps, reference_drawings, target_drawings, context, owner, *_):
        shown.update(z_t=z_t, owner=owner)
        return torch.zeros_like(z_t, requires_grad=True)

    train.step_loss(trainee, pipe, batch, torch.Generator().manual_seed(0), config)
    z_0 = latents.encode(pipe, batch.targets.flatten(0, 1), torch.Generator().manual_seed(0))
    region = torch.from_numpy(latent_region(batch.regions.flatten(0, 1)[:, 0].numpy() > 0))[:, None]
    region = region.expand_as(z_0)
    assert shown["owner"] == [0, 1]
    assert torch.equal(shown["z_t"][~region], z_0[~region])
    assert (shown["z_t"][region] != z_0[region]).all()
    assert 0.05 < region.float().mean() < 0.6


def test_a_folder_without_test_pairs_shows_those_of_training(start, broken, tmp_path):
    shutil.rmtree(broken / "test")
    (broken / "test_pairs.txt").unlink()
    code, _, err = start(tmp_path / "run", "--steps", 1, "--data.size", 80, data=broken)
    assert code == 0, err
    written = json.loads((tmp_path / "run" / "model" / "model_index.json").read_text())
    assert written["default_size"] == 80, "it paints at the size it learnt at, not at the network's 64"
    assert f"scd: {broken}: the sheet shows the training, nothing held out (" in err
    assert (tmp_path / "run" / "samples" / "step-00000001.png").is_file()


# ---- folders that cannot train ----


def without(*names):
    def remove(folder):
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def empty_list(folder):
    (folder / "train_pairs.txt").write_text("")


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (without("train/cloth"), "train/cloth is missing: garments lie there; copy the folder again"),
        (without("train", "test"), "not VITON-HD's layout, which is train/image/00006_00.jpg, "),
        (without("train"), "no pair can train, no pair has both its pictures; scd data check"),
        (empty_list, "no pair can train, no pair has both its pictures; scd data check"),
        (
            without("train/agnostic-mask", "train/openpose_json"),
            "no pair can train, none has an agnostic mask or a pose; scd data prepare",
        ),
        (shutil.rmtree, "there is no such folder; check the name"),
    ],
    ids=["half there", "something else", "no training part", "an empty list", "no masks", "nothing"],
)
@pytest.mark.parametrize("dry", [False, True], ids=["run", "dry run"])
def test_a_folder_that_cannot_train_is_one_line(damage, text, dry, start, broken, tmp_path):
    """Before any weights are read, and nothing is written."""
    damage(broken)
    code, _, err = start(tmp_path / "run", *(["--dry-run"] if dry else []), data=broken)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert err.startswith(f"scd: {broken}")
    assert text in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--data.root", ""], "scd: --data.root: name the folder of the dataset, or its manifest\n"),
        (["--data.frames", 4], "scd: --data.frames 4: vitonhd holds pictures, no clips; leave it out\n"),
    ],
    ids=["no name", "frames"],
)
def test_words_that_do_not_fit_are_one_line(arguments, text, start, tmp_path):
    assert start(tmp_path / "run", *arguments) == (2, "", text)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["vitonhd", "--learn", "motion"], "--learn motion: temporal layers learn from clips"),
        (["sd15-motion", "--data.frames", "1"], "--learn motion: temporal layers learn from clips"),
        (["world-pictures", "--motion-adapter", "x"], "--motion-adapter: of stage 2, with --learn motion"),
        (["world-pictures", "--data.targets", "0"], "--data.targets 0: 1 at least"),
        (["world-pictures", "--init", "embedded", "--image-encoder", "x"],
         "--image-encoder: embedded learnt without one"),
        (["world-pictures", "--data", "ROOT", "--matching-weight", "0.2"], "--matching-weight: for people"),
        (["world-pictures", "--data", "ROOT", "--data.moving", "0.2"], "--data.moving: of the drawn world's"),
        (["world-tryon", "--data", "ROOT", "--head-weight", "2"], "--head-weight: pairs for try-on do"),
    ],
)  # fmt: skip
def test_options_that_would_do_nothing_are_refused(arguments, text, root, scd, tmp_path):
    """Whatever names the data: its kind is known before they are looked at."""
    given = [str(root) if word == "ROOT" else word for word in arguments]
    code, _, err = scd("train", *given, "--run", tmp_path / "run", "--device", "cpu")
    assert (code, len(err.splitlines())) == (2, 1), err
    assert text in err


@pytest.mark.parametrize("words", [["--data", "ROOT"], ["--data.kind", "vitonhd", "--data.root", "ROOT"]])
def test_a_preset_of_the_world_trains_on_pairs(words, root, scd):
    given = [str(root) if word == "ROOT" else word for word in words]
    code, out, err = scd("train", "world-tryon", *given, "--dry-run")
    assert (code, err) == (0, ""), err
    assert '"head_weight": 1.0' in out


def test_a_preset_of_the_world_trains_on_clips(tmp_path, scd):
    write_tiktok(tmp_path / "clips", 2, 4, (64, 48))
    code, out, err = scd("train", "world-joint", "--data", tmp_path / "clips", "--dry-run")
    assert (code, err) == (0, ""), err
    assert re.search(r'"tasks": \[\s*1.0,\s*0.0,\s*0.0\s*\]', out)


def test_overfitting_takes_pairs_that_can_train(broken):
    """The first of those that can, not the first."""
    people = sorted((broken / "train" / "agnostic-mask").iterdir())
    people[0].unlink()
    next((broken / "train" / "openpose_json").glob(f"{people[0].stem.removesuffix('_mask')}*")).unlink()
    dataset = open_tryon(DataConfig(kind="vitonhd", root=str(broken), size=64), 4, overfit=1)
    assert [f"{pair.name}_mask" for pair in dataset.pairs] == [people[1].stem]
    with pytest.raises(UserError, match="holds pictures, no clips"):
        open_tryon(DataConfig(kind="vitonhd", root=str(broken), frames=2), 4)


def test_a_pair_is_one_garment_and_one_person_whatever_the_preset_says():
    """So that another preset's five targets and three references are neither counted nor paid for."""
    for preset, references, rows in (("world-tryon", 3, 5), ("vitonhd", 1, 1)):
        config = PRESETS[preset]
        assert (config.data.most_references, config.data.rows) == (references, rows)
    pairs = replace(PRESETS["world-tryon"], data=replace(PRESETS["world-tryon"].data, kind="dresscode"))
    assert (pairs.data.most_references, pairs.data.rows, pairs.targets_per_step) == (1, 1, 4)


def test_people_who_move_are_taken_from_their_clip():
    """Odd views of a scene are frames of its motion clip, also beside try-on, whose own pictures stay."""
    options = {"size": 32, "augment": False, "reuse": 2}
    posed, moving = (WorldPictures(4, num_targets=5, moving=share, **options) for share in (0.0, 1.0))
    seed = moving.seed_of(0, 0)
    of_scene = Scene.from_seed(seed)
    clips = {kind: [v.image for v in of_scene.clip(kind, 5 * 15 + 1, size=32)] for kind in CLIPS}
    views = [moving.picture(seed, index) for index in range(6)]
    assert all(np.array_equal(views[i].image, posed.view(seed, i).image) for i in (0, 2, 4))
    assert any(
        all(np.array_equal(views[i].image, clip[15 * i]) for i in (1, 3, 5)) for clip in clips.values()
    )
    # the sample itself shows them, and where nobody moves what it always showed
    pictures = [np.concatenate([data[0].references, data[0].targets]) for data in (posed, moving)]
    assert sum(np.array_equal(a, b) for a, b in zip(*pictures, strict=True)) == 3
    assert any(np.array_equal(views[1].image, picture) for picture in pictures[1])

    tryon = [WorldTryOn(2, 32, 2, moving=share, augment=False) for share in (0.0, 1.0)]
    assert np.array_equal(tryon[0][0].targets, tryon[1][0].targets)


def test_some_people_have_exact_poses(monkeypatch):
    """Of samples of every task none is moved with `exact` 1, some with 0.5; the pictures stay."""
    options = {"size": 32, "num_targets": 2}
    plain, moved, some, exact = (
        WorldPictures(8, augment=augment, exact=share, **options)
        for augment, share in ((False, 0.0), (True, 0.0), (True, 0.5), (True, 1.0))
    )

    def drawings(dataset):
        return [dataset[i].target_drawings for i in range(8)]

    same = [np.array_equal(a, b) for a, b in zip(drawings(plain), drawings(some), strict=True)]
    assert 1 <= sum(same) <= 7
    assert all(np.array_equal(a, b) for a, b in zip(drawings(plain), drawings(exact), strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(drawings(plain), drawings(moved), strict=True))
    assert all(np.array_equal(plain[i].targets, some[i].targets) for i in range(8))

    calls, shown = [], []
    monkeypatch.setattr("scd.data.augment.perturb", lambda pose, rng: calls.append(pose) or pose)
    for augment, share in ((False, 0.0), (True, 1.0), (True, 0.0)):
        dataset = WorldTryOn(2, tasks=(0.0, 0.5, 0.5), augment=augment, exact=share, **options)
        shown.append([dataset[i] for i in range(2)])
        assert bool(calls) == (augment and share == 0.0)
    plain, exact, _ = shown
    assert all(np.array_equal(a.targets, b.targets) for a, b in zip(plain, exact, strict=True))
