"""Training on real clips: kept latents change nothing, resuming is exact, and no detector runs."""

import json
import math
import pickle
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_clip, make_pipeline
from test_data import clip, know_poses, lay
from test_data import no_detector as no_detector

from scd import checkpoint, latents, model, train
from scd.cli import main
from scd.config import PRESETS, DataConfig, from_json, to_json
from scd.data import prepare
from scd.data.buckets import Buckets
from scd.data.check import check
from scd.data.collate import collate
from scd.data.latents import latents_path
from scd.data.layouts import find_clips
from scd.data.manifest import read_manifest
from scd.data.mixed import pairs_config
from scd.data.real import open_real
from scd.data.shots import Shot
from scd.data.tryon_pictures import open_tryon
from scd.data.world import WorldClips, WorldPictures
from scd.data.world_tryon import WorldTryOn
from scd.types import UserError

pytestmark = pytest.mark.usefixtures("one_thread", "no_detector")
KINDS = ("tiktok", "ubc", "folder")


def lay_out(root, kind):
    """Three clips of the world in a layout, prepared with their true poses."""
    names = {
        "tiktok": ["00001/images", "00002/images", "00003/images"],
        "ubc": ["train/a.mp4", "train/b.mp4", "test/c.mp4"],
        "folder": ["a.mp4", "b", "deep/c.mp4"],
    }[kind]
    for seed, name in enumerate(names, 1):
        lay(root, name, seed)
        know_poses(find_clips(root, kind), name, clip(seed)[1])
    layout = find_clips(root)
    assert layout.kind == kind
    prepare.find_all_poses(layout, prepare.survey(layout))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "get_detector", lambda name: None)
        return lay_out(tmp_path_factory.mktemp("folder"), "folder")


def config_of(root, **options):
    data = DataConfig(
        kind="folder", root=str(root), size=64, groups=2, targets=2, references=(0.5, 0.5), gap=20,
        augment=False, workers=0,
    )  # fmt: skip
    return replace(PRESETS["world-tiny"], data=replace(data, **options))


# ---- clips and try-on pairs in one run: the joint stage ----


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("viton") / "data"
    assert main(["world", str(root), "--layout", "vitonhd", "-n", "3", "--test", "2", "--size", "64"]) == 0
    return root


def joint_config(root, pairs, **options):
    return config_of(root, tryon=str(pairs), tasks=(0.5, 0.5, 0.0), **options)


def test_blocks_of_clips_and_of_pairs_by_their_chances(root, pairs):
    config = joint_config(root, pairs)
    data = train.make_dataset(config, 120)
    alone = open_real(config.data, 120), open_tryon(pairs_config(config.data), 120)
    assert len(data) == 120
    kinds = []
    for block in range(60):
        samples = [data[2 * block + place] for place in range(2)]
        of_pairs = {sample.regions is not None for sample in samples}
        assert len(of_pairs) == 1, "a block has one shape"
        kinds += of_pairs
        expected = alone[of_pairs.pop()][2 * block]  # as it would be without the others
        assert np.array_equal(samples[0].targets, expected.targets)
        collate(samples)
    assert 0.3 < np.mean(kinds) < 0.7


def test_what_a_model_learns_decides_whether_it_paints_squares(root, tmp_path):
    make_pipeline().save_pretrained(tmp_path / "photographs")
    drawn = replace(PRESETS["world-tiny"], init=str(tmp_path / "photographs"))
    config = model.start(drawn, tmp_path / "drawn").config
    assert Buckets.of(config).nearest(2, 1) == (config.default_size,) * 2
    clips = config_of(root, size=64)
    built = model.start(clips, tmp_path / "clips").config
    assert built.world_version is None
    assert Buckets.of(built).nearest(2, 1) == (80, 48), "as it is shown them in training"


def test_a_joint_run_from_manifests_samples_both_and_keeps_latents(root, pairs, tmp_path):
    run = tmp_path / "run"
    command = [
        "train", "world-tiny", "--data", root, "--data.tryon", pairs, "--data.tasks", 0.5, 0.5, 0,
        "--data.size", 64, "--data.latents", tmp_path / "latents", "--run", run, "--steps", 4,
        "--sample-every", 4, "--sample-pictures", 2, "--data.gap", 20, "--tracker", "none",
    ]  # fmt: skip
    assert main([str(word) for word in command]) == 0
    assert len(list((tmp_path / "latents").iterdir())) == 3 + 3
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert {"psnr", "region_psnr"} <= rows[-1].keys()
    assert {path.name for path in (run / "samples").iterdir()} == {
        "step-00000004.png", "step-00000004-tryon.png",
    }  # fmt: skip
    assert main(["export", str(run), str(tmp_path / "mine")]) == 0
    assert "with pairs of `data`" in (tmp_path / "mine" / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--data.tasks", 1, 0, 0), "0.6 0.4 0"),
        (("--data.frames", 4), "give their manifest as --data"),
        (("--data.tryon", "ROOT"), "holds no try-on pairs"),
    ],
)
def test_what_cannot_be_mixed_is_one_line(root, pairs, tmp_path, capsys, options, text):
    options = [str(root) if word == "ROOT" else str(word) for word in options]
    command = ["train", "world-tiny", "--data", str(root), "--data.tryon", str(pairs), "--dry-run", *options]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert text in err
    assert len(err.splitlines()) == 1


# ---- kept latents ----


@pytest.fixture
def pipe(request):
    """A pipeline whose posterior is wide, so that a mode in place of a sample is seen."""
    return make_pipeline(make_clip() if getattr(request, "param", False) else None)


def loss_of(pipe, data, config, numbers=(0, 1)):
    trainee = train.Trainee(pipe).eval()
    batch = collate([data[i] for i in numbers])
    with torch.no_grad():
        return train.step_loss(trainee, pipe, batch, torch.Generator().manual_seed(5), config).item(), batch


@pytest.mark.parametrize("pipe", [False, True], indirect=True, ids=["no encoder", "image encoder"])
@pytest.mark.parametrize("frames", [1, 4])
def test_kept_latents_give_the_same_loss(pipe, root, tmp_path, monkeypatch, frames):
    from scd.backbones.motion import new_motion_adapter
    from scd.pipeline import SCDPipeline

    if frames > 1:
        pipe = SCDPipeline.from_pipe(pipe, motion_adapter=new_motion_adapter(pipe.unet, 2))
    config = config_of(root, frames=frames, strides=(2,))
    data = open_real(config.data, 8)
    plain, pictures = loss_of(pipe, data, config)
    kept = latents.with_latents(pipe, data, tmp_path)
    monkeypatch.setattr(Shot, "pictures", None)  # nothing is decoded any more
    same, batch = loss_of(pipe, kept, config)
    assert same == pytest.approx(plain, rel=2e-3)
    assert batch.targets.dtype == torch.float16
    assert torch.equal(batch.target_drawings, pictures.target_drawings)
    assert (batch.reference_tokens is not None) == (pipe.image_encoder is not None)
    # The same to half precision, mode and sample; the sample is none that is frozen
    for part in ("references", "targets"):
        x, y = getattr(pictures, part).flatten(0, 1), getattr(batch, part).flatten(0, 1)
        assert torch.allclose(latents.encode(pipe, x), latents.encode(pipe, y), atol=2e-3)
        seeded = (((z, torch.Generator().manual_seed(seed))) for z, seed in ((x, 1), (y, 1), (y, 2)))
        a, b, c = (latents.encode(pipe, z, generator) for z, generator in seeded)
        assert torch.allclose(a, b, atol=5e-3)
        assert (b - c).abs().mean() > 0.01
    context, again = (
        pipe.training_context(b.references, [0, -1, 1], b.reference_tokens) for b in (pictures, batch)
    )
    for x, y in zip(context, again, strict=True):
        assert x.shape == y.shape
        assert torch.allclose(x, y, atol=2e-3)


def test_latents_are_kept_once_and_belong_to_their_vae(pipe, root, tmp_path, monkeypatch):
    data = open_real(config_of(root).data, 8)
    latents.with_latents(pipe, data, tmp_path)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert len(files) == 3
    shot = data.shots[0]
    path = latents_path(tmp_path, shot, latents._stamp(pipe))
    assert path in files
    height, width = shot.bucket
    # Two numbers of two bytes for each of four channels: an eighth of a picture
    assert path.stat().st_size == pytest.approx(len(shot.usable) * height * width // 64 * 4 * 2 * 2, rel=0.02)

    monkeypatch.setattr(latents, "_encoded", None)
    latents.with_latents(pipe, data, tmp_path)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == files
    moved = replace(shot, placement=replace(shot.placement, source=(0, 0, 40, 40)))
    assert latents_path(tmp_path, moved, latents._stamp(pipe)) not in files
    with torch.no_grad():
        next(pipe.vae.parameters()).add_(0.1)
    with pytest.raises(TypeError):  # other weights: encoded again
        latents.with_latents(pipe, data, tmp_path)


def test_latents_that_stop_half_way_go_on(pipe, root, tmp_path, monkeypatch):
    data = open_real(config_of(root).data, 8)
    honest, done = latents._encoded, []

    def once(pipe, shot):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(shot.name)
        return honest(pipe, shot)

    monkeypatch.setattr(latents, "_encoded", once)
    with pytest.raises(KeyboardInterrupt):
        latents.with_latents(pipe, data, tmp_path)
    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"]
    monkeypatch.setattr(latents, "_encoded", lambda pipe, shot: done.append(shot.name) or honest(pipe, shot))
    latents.with_latents(pipe, data, tmp_path)
    assert done == [shot.name for shot in data.shots]


def test_damaged_latents_and_the_world_are_named(pipe, root, tmp_path):
    data = open_real(config_of(root).data, 8)
    kept = latents.with_latents(pipe, data, tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(b"short")
    with pytest.raises(UserError, match=r"\.safetensors: kept latents cannot be read .*; remove the file"):
        kept[0]
    assert latents.with_latents(pipe, data, tmp_path)[0].references.any(), "made again"
    with pytest.raises(UserError, match=r"--data\.latents: for real pictures only; the world's people"):
        latents.with_latents(pipe, train.make_dataset(PRESETS["world-tiny"], 4), tmp_path)


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("kind", ["world", "world-tryon", "folder"])
def test_spawned_workers_get_the_same_dataset(pipe, root, tmp_path, kind, frames):
    """A dataset travels to them as a pickle, in use or not."""
    if kind == "folder":
        data = open_real(config_of(root, frames=frames, strides=(2,)).data, 8)
        data = latents.with_latents(pipe, data, tmp_path)
    elif kind == "world":
        data = WorldClips(8, 32, 4, group=2) if frames > 1 else WorldPictures(8, 32, 2, group=2)
    else:
        data = WorldTryOn(8, 32, 2, group=2)
    before = data[3]
    after = pickle.loads(pickle.dumps(data))[3]
    for one, same in zip(before.__dict__.values(), after.__dict__.values(), strict=True):
        assert np.array_equal(one, same)


# ---- runs ----


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a model that learnt nothing yet."""
    folder = tmp_path_factory.mktemp("tiny")
    checkpoint.export(model.build(PRESETS["world-tiny"]), folder / "model")
    return folder / "model"


def weights(pipe):
    return {k: v.clone() for part in (pipe.unet, pipe.pose_encoder) for k, v in part.state_dict().items()}


@pytest.mark.parametrize("keep", [False, True], ids=["pictures", "latents"])
def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(root, tmp_path, keep):
    config = replace(
        config_of(root, latents=str(tmp_path / "latents") if keep else ""),
        steps=4, save_every=2, sample_every=100, sample_pictures=0,
    )  # fmt: skip
    whole = weights(train.train(config, tmp_path / "whole", model.build(config)))
    half = weights(train.train(replace(config, steps=2), tmp_path / "parts", model.build(config)))
    parts = weights(train.train(config, tmp_path / "parts", model.build(config)))
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    assert not all(torch.equal(half[k], parts[k]) for k in half)


def test_a_run_goes_on_where_its_files_were_moved_to(root, tmp_path, caplog):
    config = replace(config_of(root), steps=2, save_every=1, sample_every=100, sample_pictures=0)
    whole = weights(train.train(config, tmp_path / "whole", model.build(config)))
    train.train(replace(config, steps=1), tmp_path / "parts", model.build(config))
    assert not caplog.messages
    shutil.copytree(root, tmp_path / "elsewhere")
    there = replace(config, data=replace(config.data, root=str(tmp_path / "elsewhere")))
    parts = weights(train.train(there, tmp_path / "parts", model.build(there)))
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    assert caplog.messages == [
        f"{tmp_path / 'parts'}: goes on with another --data.root: it should hold the same files"
    ]
    with pytest.raises(UserError, match=r"other settings \(config.json: data.gap\)"):
        train.train(replace(there, data=replace(there.data, gap=10)), tmp_path / "parts", model.build(there))
    kept = replace(there, data=replace(there.data, latents=str(tmp_path / "latents")))
    with pytest.raises(UserError, match=r"other settings \(config.json: data.latents\)"):
        train.train(kept, tmp_path / "parts", model.build(there))


@pytest.mark.parametrize(("kind", "stage"), [("tiktok", 1), ("ubc", 2), ("folder", 1), ("folder", 2)])
def test_scd_train_runs_on_every_layout(kind, stage, tmp_path, tiny, capsys):
    """The presets' commands at a size for tests, from a model of the same shape."""
    lay_out(tmp_path / "data", kind)
    run = tmp_path / "run"
    code = main([
        "train", f"{kind}-stage{stage}", "--data.root", str(tmp_path / "data"), "--run", str(run),
        "--init", str(tiny), "--data.size", "64", "--steps", "1", "--device", "cpu",
        "--accumulation", "1", "--sample-pictures", "2", "--data.workers", "0", "--precision", "no",
        *(["--data.frames", "3", "--motion-heads", "2"] if stage == 2 else []),
    ])  # fmt: skip
    assert code == 0, capsys.readouterr().err
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert np.isfinite(rows[0]["loss"])
    assert rows[1]["psnr"] > 0
    assert (run / "samples" / "step-00000001.png").is_file()
    assert (run / "model" / "model_index.json").is_file()


def test_sheets_show_clips_that_are_held_out(tmp_path, monkeypatch):
    from scd import evaluate_real

    lay_out(tmp_path, "ubc")
    seen = []
    honest = evaluate_real.open_real
    monkeypatch.setattr(evaluate_real, "open_real", lambda *a, **k: seen.append(honest(*a, **k)) or seen[-1])
    pipe = make_pipeline()
    config = replace(config_of(tmp_path), sample_pictures=2)
    config = replace(config, data=replace(config.data, kind="ubc"))
    values = evaluate_real.sample_real(pipe, tmp_path / "sheet.png", config)
    assert set(values) == {"psnr", "psnr_copy", "detail"}
    assert [shot.name for shot in seen[0].shots] == ["test/c.mp4"]
    evaluate_real.sample_real(pipe, tmp_path / "sheet.png", replace(config, overfit=1))
    assert [shot.name for shot in seen[1].shots] == ["train/a.mp4"]
    assert {shot.name for shot in open_real(config.data, 1).shots} == {"train/a.mp4", "train/b.mp4"}


def test_held_out_clips_that_are_too_short_end_no_run(tmp_path, caplog, monkeypatch):
    """The sheet shows training's clips instead; and whatever a sheet meets, the model stands before it."""
    lay_out(tmp_path, "ubc")
    (tmp_path / "test" / "c.mp4").unlink()
    lay(tmp_path, "test/c.mp4", 3, num=8)
    know_poses(find_clips(tmp_path), "test/c.mp4", clip(3, 8)[1])
    layout = find_clips(tmp_path)
    report = check(layout, prepare.find_all_poses(layout, prepare.survey(layout)), 64)
    assert report.problems == [
        "test/c.mp4: held out, but too short to be looked at, no two frames with the person 1 s apart"
    ]
    assert report.verdict == ""
    config = replace(config_of(tmp_path, kind="ubc"), steps=1, sample_pictures=1)
    train.train(config, tmp_path / "run", model.build(config))
    (line,) = [r.getMessage() for r in caplog.records if "nothing held out" in r.getMessage()]
    assert line.startswith(f"{tmp_path}: the sheet shows the training, nothing held out (")
    assert "1 are shorter" in line
    assert (tmp_path / "run" / "samples" / "step-00000001.png").is_file()

    monkeypatch.setattr("scd.evaluate_real.grid", None)
    with pytest.raises(TypeError):
        train.train(config, tmp_path / "other", model.build(config))
    assert (tmp_path / "other" / "model" / "model_index.json").is_file()


# ---- presets and the command line ----


def test_presets_of_real_clips_are_the_recipes():
    for kind in KINDS:
        for stage, recipe in (("stage1", "sd15-pictures"), ("stage2", "sd15-motion")):
            preset = PRESETS[f"{kind}-{stage}"]
            assert preset.data.kind == kind
            assert replace(preset, name="", data=None) == replace(PRESETS[recipe], name="", data=None)
            assert (preset.data.size, preset.data.gap, preset.data.augment) == (512, 30, False)
            assert from_json(to_json(preset)) == preset
    assert (PRESETS["ubc-stage2"].data.frames, PRESETS["ubc-stage2"].data.strides) == (24, (4,))


def test_a_dry_run_looks_whether_the_data_lies_there(scd, root):
    code, out, _ = scd("train", "folder-stage1", "--data.root", root, "--init", "embedded", "--dry-run")
    assert code == 0
    assert "memory, about" in out
    for arguments, text in (
        ((), "scd: --data.root: name the folder of the dataset"),
        (("--data.root", root / "no"), f"scd: {root}/no: there is no such folder; check the name"),
        (("--data.root", root), "not TikTok's layout, which is 00001/images/0001.png"),
    ):
        code, _, err = scd("train", "tiktok-stage1", *arguments, "--dry-run")
        assert (code, len(err.splitlines())) == (2, 1)
        assert text in err


def test_a_dry_run_counts_an_epoch(scd, root, pairs, tmp_path):
    """Steps after which each clip, and of a mix each pair, was drawn once."""
    command = ("train", "folder-stage1", "--data.root", root, "--init", "embedded", "--dry-run",
               "--data.groups", 1, "--data.gap", 20)  # fmt: skip

    def rows(*options):
        code, out, _ = scd(*command, *options)
        assert code == 0
        return {k.strip(): v.strip() for k, v in re.findall(r"│ ([^│]+)│([^│]+)│", out)}

    clips = len(open_real(config_of(root).data, 1).shots)
    for accumulation in (1, 2):
        row = rows("--accumulation", accumulation)
        assert row["clips that can train"] == str(clips)
        assert row["steps per epoch"] == str(math.ceil(clips / accumulation))
    row = rows("--accumulation", 1, "--data.tryon", pairs, "--data.tasks", 0.8, 0.2, 0)
    counted = int(row["pairs that can train"])
    assert row["steps per epoch"] == str(math.ceil(max(clips / 0.8, counted / 0.2)))
    row = rows("--accumulation", 1, "--data.tryon", pairs, "--data.tasks", 0, 1, 0)
    assert row["steps per epoch"] == row["pairs that can train"] == str(counted)
    assert "the world is endless" in scd("train", "world-tiny", "--dry-run")[1]
    bare = tmp_path / "bare"
    shutil.copytree(root, bare, ignore=shutil.ignore_patterns("scd.jsonl"))
    assert "not known yet" in rows("--data.root", bare)["steps per epoch"]


def test_scd_data(scd, root, tmp_path):
    before = read_manifest(root / "scd.jsonl")
    code, out, err = scd("data", "check", root, "--size", 64)
    assert (code, err) == (0, "")
    figures = json.loads(out.splitlines()[-1])
    assert (figures["layout"], figures["clips"], figures["frames"], figures["shots"]) == ("folder", 3, 108, 3)
    assert figures["training_pairs"] == 3 * 2 * sum(36 - 30 - t for t in range(6))
    assert figures["manifest"] == str(root / "scd.jsonl")
    assert "held out clips" in out
    assert scd("data", "prepare", root, "--size", 64)[1] == out
    code, out, _ = scd("data", "preview", root, "--size", 64, "-o", tmp_path / "sheet.png", "-n", 2)
    assert (code, out) == (0, f"{tmp_path}/sheet.png\n")
    code, _, err = scd("data", "preview", root, "--size", 64, "-o", tmp_path / "sheet.png")
    assert code == 2
    assert "exists already" in err
    assert read_manifest(root / "scd.jsonl") == before


@pytest.mark.parametrize("num", [0, -1])
def test_a_preview_of_nothing_is_one_line(scd, root, num):
    code, _, err = scd("data", "preview", root, "-n", num)
    assert (code, err) == (2, f"scd: -n {num}: 1 at least\n")


def test_scd_data_says_what_cannot_train(scd, tmp_path):
    lay(tmp_path / "a", "clip", 1, num=3)
    layout = find_clips(tmp_path / "a")
    know_poses(layout, "clip", clip(1, 3)[1])
    code, out, err = scd("data", "prepare", tmp_path / "a")
    assert code == 2
    assert err == f"scd: {tmp_path}/a cannot train: no clip shows the person in two frames 1 s apart\n"
    assert "clip: too short, no two frames with the person 1 s apart" in out
    code, _, err = scd("data", "check", tmp_path / "nothing")
    assert (code, err) == (2, f"scd: {tmp_path}/nothing: there is no such folder; check the name\n")
    code, _, err = scd("data", "check", "ubc", tmp_path / "a")
    assert code == 2
    assert "not UBCFashion's layout" in err
    code, _, err = scd("data", "check", tmp_path / "a", "--size", 50)
    assert (code, err) == (2, "scd: --size 50: a multiple of 16, 32 at least\n")
