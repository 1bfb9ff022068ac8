"""Manifests: written by `scd data prepare`, read in place of the folder, and resumed after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_data import clip, know_poses, lay
from test_data import no_detector as no_detector

from scd import media
from scd.cli.data import ready
from scd.config import DataConfig
from scd.data import manifest as manifest_module
from scd.data import prepare, tryon_prepare
from scd.data.find import find_dataset
from scd.data.fitting import read_pose
from scd.data.layouts import Layout, find_clips
from scd.data.manifest import read_manifest, read_rows
from scd.data.pairs import read_pairs
from scd.data.real import open_real
from scd.data.tryon import find_pairs
from scd.data.tryon_pictures import open_tryon
from scd.data.tryon_prepare import prepare_pairs
from scd.data.workers import each
from scd.data.write_clips import write_tiktok, write_ubc
from scd.data.write_dress_code import write_dress_code
from scd.data.write_viton_hd import write_viton_hd
from scd.pose.region import garment_region
from scd.types import UserError

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (96, 72)  # (height, width) of people


def same(one, other):
    """Whether two samples hold the same."""
    pairs = zip(one.__dict__.values(), other.__dict__.values(), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Ten clips, of which the last is held out, with their poses kept: the folder."""
    root = tmp_path_factory.mktemp("clips") / "data"
    for number in range(10):
        lay(root, f"{number}", number % 3 + 1, num=24)
        know_poses(find_clips(root), f"{number}", clip(number % 3 + 1, 24)[1])
    return root


@pytest.fixture(scope="module")
def viton(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs") / "viton"
    write_viton_hd(root, 3, 2, SIZE)
    return root


@pytest.fixture(scope="module")
def dress_code(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs") / "dress"
    write_dress_code(root, 1, 2, SIZE)
    return root


# ---- clips ----


def test_a_manifest_gives_the_samples_of_the_folder(clips, tmp_path, no_detector, scd):
    """And lies where it was told to, with paths that start there; the folder is left alone."""
    data = Path(shutil.copytree(clips, tmp_path / "data"))
    config = DataConfig(kind="folder", root=str(data), size=32, gap=10, augment=False, groups=2)
    ready(config)
    before = {p: p.stat().st_mtime_ns for p in data.rglob("*")}
    manifest = tmp_path / "lists" / "mine.jsonl"
    code, out, err = scd("data", "prepare", "folder", data, "-o", manifest, "--size", 32)
    assert (code, err) == (2, f"scd: {data} cannot train: no clip shows the person in two frames 1 s apart\n")
    assert json.loads(out.splitlines()[-1])["manifest"] == str(manifest)
    header, rows = read_rows(manifest)
    assert (header.layout, header.root) == ("folder", "../data")
    assert [row["split"] for _, row in rows] == ["train"] * 9 + ["test"]
    for _, row in rows:
        assert (manifest.parent / row["clip"]).is_dir()
        assert (manifest.parent / row["poses"]).is_file()
        assert (row["frames"], row["fps"], row["size"]) == (24, "30", [80, 44])
    assert {p: p.stat().st_mtime_ns for p in data.rglob("*")} == before

    config = ready(config)
    listed = ready(DataConfig(root=str(manifest), size=32, gap=10, augment=False, groups=2))
    assert listed == replace(config, root=str(manifest)), "it says its kind"
    for held_out in (False, True):
        folder, lines = (open_real(one, 6, held_out=held_out) for one in (config, listed))
        assert [shot.clip for shot in folder.shots] == [shot.clip for shot in lines.shots]
        assert all(same(folder[i], lines[i]) for i in range(6))
    # Both move together
    before = open_real(listed, 6)[3]
    (tmp_path / "new").mkdir()
    for name in ("data", "lists"):
        (tmp_path / name).rename(tmp_path / "new" / name)
    moved = open_real(replace(listed, root=str(tmp_path / "new" / "lists" / "mine.jsonl")), 6)
    assert same(moved[3], before)
    assert moved.shots[0].path.is_relative_to(tmp_path / "new")


def test_what_comes_into_a_folder_during_a_run_does_not_end_it(clips, tmp_path, no_detector):
    """The next sheet looks at what was prepared; the run's own sheets, and its folder, are no clips."""
    root = Path(shutil.copytree(clips, tmp_path / "clips"))
    ready(DataConfig(kind="folder", root=str(root), size=64))
    config = DataConfig(kind="folder", root=str(root), size=64, gap=2, targets=2)
    before = [shot.clip for shot in open_real(config, 0, held_out=True).shots]
    run = root / "run" / "mine"
    (run / "samples").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    for number in range(2):
        media.write_image(run / "samples" / f"step-{number}.png", np.zeros((8, 8, 3), np.uint8))
    assert len(find_clips(root).clips) == 10
    for name in ("z: held out", "0: to train with"):
        lay(root, name, 1, num=24)
    assert [shot.clip for shot in open_real(config, 0, held_out=True).shots] == before
    with pytest.raises(UserError, match="was not prepared yet"):
        open_real(config, 0)


def test_split_in_a_manifest_decides(clips, tmp_path, no_detector):
    data = Path(shutil.copytree(clips, tmp_path / "data"))
    prepare.survey(find_clips(data))
    lines = (data / "scd.jsonl").read_text().splitlines()
    lines = [line.replace('"split": "train"', '"split": "test"') if '"clip": "4"' in line else line
             for line in lines]  # fmt: skip
    (data / "mine.jsonl").write_text("\n".join(lines))
    assert find_clips(data / "mine.jsonl").held_out == {"4", "9"}
    (data / "hand.jsonl").write_text("".join(f'{{"clip": "{n}"}}\n' for n in range(10)))
    layout = find_clips(data / "hand.jsonl")
    assert (layout.kind, layout.held_out) == ("folder", {"9"})
    (data / "val.jsonl").write_text('{"clip": "1", "split": "val"}\n')
    with pytest.raises(UserError, match=r'val\.jsonl, line 1: .* with a "split" of train or test'):
        find_clips(data / "val.jsonl")


def test_who_is_held_out_stays_so(clips, tmp_path, no_detector):
    """By hand in the folder's own manifest, and when clips are added: none that was held out ever trains."""
    data = Path(shutil.copytree(clips, tmp_path / "data"))
    prepare.survey(find_clips(data))
    text = (data / "scd.jsonl").read_text().splitlines()
    edited = [line.replace('"train"', '"test"') if '"clip": "4"' in line else line for line in text]
    (data / "scd.jsonl").write_text("\n".join(edited))
    layout = find_clips(data)
    assert layout.held_out == {"4", "9"}
    assert prepare.survey(layout)["4"].split == "test"
    for name in ("A", "B"):
        shutil.copytree(data / "0", data / name)
    grown = find_clips(data)
    assert grown.held_out >= {"4", "9"}
    assert not {"4", "9"} & set(grown.training)


def test_a_manifest_whose_files_are_gone_is_one_line(clips, viton, tmp_path, scd, no_detector):
    data = Path(shutil.copytree(clips, tmp_path / "data"))
    manifest = data / "scd.jsonl"
    prepare.find_all_poses(find_clips(data), prepare.survey(find_clips(data)))
    shutil.rmtree(data / "3")
    shutil.rmtree(data / "5")
    text = (
        f"{manifest}: 2 of the 10 files that it lists are missing, the first is {data}/3; "
        "bring them back, or write the manifest anew: scd data prepare"
    )
    code, _, err = scd("train", "world-tiny", "--data", manifest, "--run", tmp_path / "run")
    assert (code, err) == (2, f"scd: {text}\n")
    shutil.rmtree(data / "7")
    with pytest.raises(UserError, match="3 of the 12 files"):  # nine clips of three people, and their poses
        open_real(DataConfig(kind="folder", root=str(manifest)), 4)
    code, out, _ = scd("data", "check", manifest, "--size", 32)
    figures = json.loads(out.splitlines()[-1])
    assert (figures["missing"], figures["broken"], figures["unusable"]) == (3, 0, 3)

    data = Path(shutil.copytree(viton, tmp_path / "viton"))
    manifest = tmp_path / "viton.jsonl"
    prepare_pairs(find_pairs(data), manifest)
    person = find_pairs(data).training[1].person
    person.unlink()
    code, _, err = scd(
        "train", "vitonhd", "--data", manifest, "--init", "embedded", "--run", tmp_path / "run"
    )
    assert code == 2
    assert f"viton.jsonl: 1 of the 12 files that it lists are missing, the first is {person};" in err
    code, out, _ = scd("data", "check", manifest, "--size", 64)
    assert json.loads(out.splitlines()[-1])["missing"] == 1


def test_manifests_that_cannot_be_read_are_one_line(tmp_path, scd):
    path = tmp_path / "m.jsonl"
    for text, said in (
        (None, "there is no such manifest; check the name, or write it: scd data prepare"),
        ("", "lists nothing; write it anew: scd data prepare"),
        ('{"scd": 1, "layout": "ubc"}\n', "lists nothing; write it anew: scd data prepare"),
        (
            '{"scd": 9, "layout": "ubc"}\n',
            "is a manifest of version 9, this program reads 1; install a newer",
        ),
        ('{"scd": 1, "layout": "ubc"}\n{"clip": \n', ", line 2: not {"),
        ('{"person": "a.jpg"}\n', ", line 1: not {"),
        ('{"person": "a.jpg", "garment": "b.jpg", "category": "hat"}\n', ", line 1: not {"),
        ('{"person": "a.jpg", "garment": "b.jpg", "paired": false}\n', "no truth to train with"),
    ):
        if text is not None:
            path.write_text(text)
        for command in (("data", "check", path), ("train", "world-tiny", "--data", path, "--dry-run")):
            code, _, err = scd(*command)
            assert (code, len(err.splitlines())) == (2, 1), (text, err)
            assert str(path) in err
            assert said in err


def test_a_layout_that_is_another_says_which_it_looks_like(clips, viton, dress_code, tmp_path, scd):
    write_ubc(tmp_path / "ubc", 1, 1, 2, 32)
    write_tiktok(tmp_path / "tiktok", 1, 2, 32)
    there = {"folder": clips, "vitonhd": viton, "dresscode": dress_code, "ubc": tmp_path / "ubc",
             "tiktok": tmp_path / "tiktok"}  # fmt: skip
    for kind, root in there.items():
        assert find_dataset(root).kind == kind
        for other in there.keys() - {kind, "folder"}:
            with pytest.raises(UserError, match=f"it looks like {kind}$"):
                find_dataset(root, other)
    code, _, err = scd("train", "tiktok-stage1", "--data", there["ubc"], "--dry-run")
    assert (code, err.endswith("it looks like ubc\n")) == (2, True)
    for words, said in (
        (["tiktk", "x"], "there is no layout 'tiktk', did you mean 'tiktok'?: use tiktok"),
        (["a", "b", "c"], "name one folder or manifest"),
    ):
        code, _, err = scd("data", "check", *words)
        assert (code, len(err.splitlines()), said in err) == (2, 1, True)
    (tmp_path / "empty").mkdir()
    code, _, err = scd("data", "check", tmp_path / "empty")
    assert (code, "empty: holds neither videos" in err) == (2, True)


def test_prepare_resumes_after_a_kill(tmp_path, scd):
    """Killed with two processes at work, it leaves whole files and no process; the same command does the
    rest, and ends where an undisturbed one does."""
    for seed in range(1, 5):
        lay(tmp_path / "data", f"{seed}.mp4", seed, num=4, size=(144, 144))
    command = [sys.executable, "-m", "scd.cli", "data", "prepare", tmp_path / "data", "--workers", "2"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    manifest = tmp_path / "data" / "scd.jsonl"
    group = set()
    while running.poll() is None and not (manifest.exists() and '"poses"' in manifest.read_text()):
        group |= children(running.pid)
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    found = {e.clip: e for e in read_manifest(manifest).values() if e.poses}
    assert found
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in group)
    layout = find_clips(tmp_path / "data")
    kept = {e.poses: layout.poses(e).stat().st_mtime_ns for e in found.values()}
    scd("data", "prepare", tmp_path / "data")
    entries = read_manifest(manifest)
    assert all(entry.poses for entry in entries.values())
    assert {name: layout.poses(e).stat().st_mtime_ns for e in entries.values() for name in [e.poses]
            if name in kept} == kept  # fmt: skip


def children(pid):
    try:
        return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except OSError:
        return set()


def test_a_worker_that_is_killed_is_one_line():
    """As the system does it when memory is short."""
    text = "a worker process was ended from outside, .* the same command with fewer --workers goes on"
    with pytest.raises(UserError, match=text):
        list(each(os._exit, [(1,), (1,)], 2))
    assert list(each(divmod, [(7, 2), (9, 4)], 1)) == [(0, (3, 1)), (1, (2, 1))]


# ---- pairs ----


@pytest.mark.parametrize("kind", ["vitonhd", "dresscode"])
def test_a_manifest_of_pairs_gives_the_samples_of_the_folder(kind, request, tmp_path, no_detector, scd):
    root = request.getfixturevalue("viton" if kind == "vitonhd" else "dress_code")
    manifest = tmp_path / "mine.jsonl"
    code, out, err = scd("data", "prepare", kind, root, "-o", manifest, "--size", 64)
    assert (code, err) == (0, "")
    assert json.loads(out.splitlines()[-1])["manifest"] == str(manifest)
    folder, listed = find_pairs(root, kind), find_pairs(manifest)
    assert (listed.kind, listed.root) == (kind, root)
    for part in ("training", "paired", "unpaired"):
        known = [replace(p, size=(0, 0), garment_size=(0, 0), content=(), stamp=())
                 for p in getattr(listed, part)]  # fmt: skip
        assert known == list(getattr(folder, part)), part
    assert all(pair.size == SIZE and len(pair.content[0]) == 64 for pair in listed.pairs)
    config = DataConfig(kind=kind, root=str(root), size=64, groups=2, augment=True)
    for held_out in (False, True):
        one = open_tryon(config, 4, held_out=held_out)
        other = open_tryon(ready(replace(config, kind="world", root=str(manifest))), 4, held_out=held_out)
        assert all(same(one[i], other[i]) for i in range(4))
    row = read_rows(manifest)[1][0][1]
    assert (manifest.parent / row["person"]).is_file()
    assert (row["split"], row["paired"], row["size"]) == ("train", True, list(SIZE))


def test_pictures_that_changed_after_preparing_are_read_as_they_are(viton, tmp_path, no_detector):
    root = Path(shutil.copytree(viton, tmp_path / "viton"))
    manifest = tmp_path / "mine.jsonl"
    prepare_pairs(find_pairs(root), manifest)
    for path in (find_pairs(root).training[0].person, find_pairs(root).training[0].region):
        media.write_image(path, np.ascontiguousarray(media.read_image(path)[:60]), force=True)
    config = DataConfig(kind="vitonhd", root=str(root), size=64)
    folder, listed = open_tryon(config, 9), open_tryon(replace(config, root=str(manifest)), 9)
    assert len(set(folder.frames)) == 2
    assert folder.frames == listed.frames
    assert all(same(folder[i], listed[i]) for i in range(9))
    assert [item.key for item in folder.items] == [item.key for item in listed.items]


class Eyes:
    """A detector that knows the truth of one picture and counts."""

    def __init__(self, poses):
        self.poses, self.calls = poses, 0

    def detect(self, image):
        self.calls += 1
        return list(self.poses)


def test_prepare_finds_poses_and_regions_where_there_are_none_and_resumes(viton, tmp_path, monkeypatch):
    data = Path(shutil.copytree(viton, tmp_path / "viton"))
    before = find_pairs(data)
    truth = tryon_prepare.read_pose(before.training[0], SIZE)
    for part in ("train", "test"):
        shutil.rmtree(data / part / "openpose_json")
        shutil.rmtree(data / part / "agnostic-mask")
    eyes = Eyes([truth])
    monkeypatch.setattr(tryon_prepare.detect, "get_detector", lambda name: eyes)
    manifest = tmp_path / "out" / "m.jsonl"

    def stop():
        if eyes.calls == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_pairs(find_pairs(data), manifest, advance=stop)
    assert len(read_pairs(manifest).pairs) == 7, "what is not known yet is listed too"
    found = prepare_pairs(find_pairs(data), manifest)
    assert eyes.calls == 5, "each person once"
    assert prepare_pairs(find_pairs(data), manifest) == found
    assert prepare_pairs(find_pairs(manifest), manifest).pairs == found.pairs
    assert eyes.calls == 5
    beside = data / "scd.jsonl"  # the dataset's own manifest, which the folder's name stands for
    assert all(pair.pose is None for pair in find_pairs(data).pairs)
    prepare_pairs(find_pairs(data), beside)
    assert eyes.calls == 10
    guides = [(pair.region, pair.pose) for pair in read_pairs(beside).pairs]
    folder = find_pairs(data).pairs
    assert [(pair.region, pair.pose) for pair in folder] == guides
    assert not any(pair.content or pair.size[0] or pair.error for pair in folder), "pictures are read anew"
    changed, gone = folder[0].person, folder[1].region
    kept = changed.read_bytes()
    changed.write_bytes(kept + b" ")
    gone.unlink()
    again = find_pairs(data).pairs
    assert (again[0].region, again[0].pose) == (None, None), "of another picture"
    assert (again[1].region, again[1].pose) == (None, guides[1][1])
    changed.write_bytes(kept)
    beside.write_text('{"clip": "a.mp4"}\n')
    assert find_pairs(data).pairs[1].pose is None, "a manifest of clips is not of these pairs"
    beside.unlink()
    for pair in found.pairs:
        assert not pair.error
        assert pair.region.is_relative_to(tmp_path / "out" / "scd" / "regions"), pair
        assert pair.pose.is_relative_to(tmp_path / "out" / "scd" / "poses")
        assert media.read_image(pair.region).shape[:2] == SIZE
    listed = open_tryon(DataConfig(kind="vitonhd", root=str(manifest), size=64), 3)
    assert listed[0].regions.mean() > 0.05
    found.training[0].region.unlink()
    assert prepare_pairs(find_pairs(data), manifest).training[0].region.exists(), "made again"
    eyes.poses = []
    (data / "train" / "image" / found.training[0].person.name).write_bytes(
        (data / "train" / "image" / found.training[1].person.name).read_bytes()[:-9]
    )
    changed = prepare_pairs(find_pairs(data), manifest).training[0]
    assert "no agnostic mask, and no pose that shows where" in changed.error or "damaged" in changed.error


def test_a_manifest_says_what_its_dataset_lacks(viton, tmp_path, no_detector):
    """Or an evaluation of the manifest would count fewer pairs and call none missing."""
    data = Path(shutil.copytree(viton, tmp_path / "viton"))
    find_pairs(data).paired[0].garment.unlink()
    problems = find_pairs(data).problems
    assert any("is missing" in line for line in problems)
    prepare_pairs(find_pairs(data), tmp_path / "mine.jsonl")
    assert find_pairs(tmp_path / "mine.jsonl").problems == problems


def test_preparing_writes_the_manifest_now_and_then(clips, tmp_path, monkeypatch, no_detector):
    """Of 20,000 clips it takes a second; written after each, half a day would go to that alone."""
    root = Path(shutil.copytree(clips, tmp_path / "clips"))
    layout = find_clips(root)
    written, write = [], Layout.write
    monkeypatch.setattr(Layout, "write", lambda *given: written.append(write(*given)))
    monkeypatch.setattr(manifest_module, "WRITTEN_EVERY", -1)
    prepare.survey(layout)
    assert len(written) == 10
    layout.manifest.unlink()
    written.clear()
    monkeypatch.setattr(manifest_module, "WRITTEN_EVERY", 1e9)
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare.survey(layout, advance=stop)
    assert len(written) == 1
    known = [entry for entry in layout.entries().values() if entry.stamp]
    assert len(known) == 3, "what is known is kept when it is stopped"


def test_pairs_by_hand_keep_what_else_a_line_says(viton, tmp_path, no_detector):
    pair = find_pairs(viton).training[0]
    row = {"person": os.path.relpath(pair.person, tmp_path), "garment": str(pair.garment), "caption": ["ü"],
           "region": str(pair.region), "pose": str(pair.pose)}  # fmt: skip
    manifest = tmp_path / "mine.jsonl"
    manifest.write_text(json.dumps(row) + "\n")
    layout = find_dataset(manifest)
    assert [(p.name, p.category, p.paired) for p in layout.training] == [(pair.name, "upper", True)]
    prepare_pairs(layout, manifest)
    header, ((_, after),) = read_rows(manifest)
    assert (header.layout, after["caption"], after["size"]) == ("vitonhd", ["ü"], list(SIZE))
    assert find_pairs(manifest).training[0].garment == pair.garment


def test_one_person_in_two_pieces_keeps_both_masks(viton, tmp_path, no_detector):
    """Two lines with one picture, each with its own region."""
    pair, other = find_pairs(viton).training[:2]
    rows = [
        {"person": str(pair.person), "garment": str(pair.garment), "category": category,
         "region": str(region), "pose": str(pair.pose)}
        for category, region in (("upper", pair.region), ("lower", other.region))
    ]  # fmt: skip
    manifest = tmp_path / "mine.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare_pairs(find_dataset(manifest), manifest)
    assert [(p.category, p.region) for p in read_pairs(manifest).training] == [
        ("upper", pair.region), ("lower", other.region),
    ]  # fmt: skip
    for row in rows:
        del row["region"]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    upper, lower = prepare_pairs(find_dataset(manifest), manifest).training
    masks = [media.read_image(p.region)[..., 0] > 127 for p in (upper, lower)]
    pose, size = read_pose(pair, SIZE), SIZE
    for mask, category in zip(masks, ("upper", "lower"), strict=True):
        np.testing.assert_array_equal(mask, garment_region(pose, size, category))


def test_a_mask_that_was_mended_is_looked_at_again(viton, tmp_path, no_detector):
    data = Path(shutil.copytree(viton, tmp_path / "viton"))
    pair, manifest = find_pairs(data).training[0], tmp_path / "m.jsonl"
    mask = pair.region.read_bytes()
    media.write_image(pair.region, 0 * media.read_image(pair.region)[..., 0], force=True)
    assert "black everywhere" in prepare_pairs(find_pairs(data), manifest).training[0].error
    pair.region.write_bytes(mask)
    assert prepare_pairs(find_pairs(data), manifest).training[0].error == ""


def test_a_manifest_is_of_its_own_layout(dress_code, tmp_path, no_detector):
    manifest = tmp_path / "m.jsonl"
    prepare_pairs(find_pairs(dress_code), manifest)
    with pytest.raises(UserError, match="lists pairs of dresscode, not of vitonhd: say dresscode"):
        find_pairs(manifest, "vitonhd")


def test_a_disk_that_is_full_leaves_the_old_manifest(viton, tmp_path, monkeypatch, no_detector):
    manifest = tmp_path / "m.jsonl"
    prepare_pairs(find_pairs(viton), manifest)
    before = manifest.read_bytes()

    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"m\.jsonl cannot be written: the disk is full"):
        prepare_pairs(find_pairs(viton), manifest)
    assert manifest.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]
