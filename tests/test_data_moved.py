"""What a manifest knows stays known: of moved datasets, of a split by hand, of files that were cut off."""

import json
import shutil
from pathlib import Path

import pytest
from test_data import lay, prepared
from test_data import no_detector as no_detector
from test_data_manifest import SIZE, Eyes
from test_data_manifest import clips as clips
from test_data_manifest import viton as viton

from scd.cli.data import ready
from scd.config import DataConfig
from scd.data import prepare, tryon_prepare
from scd.data.find import find_dataset
from scd.data.layouts import find_clips
from scd.data.manifest import read_manifest, read_rows, write_rows
from scd.data.pairs import read_pairs
from scd.data.prepare import find_all_poses, lacks_poses, survey
from scd.data.tryon import find_pairs
from scd.data.tryon_prepare import prepare_pairs
from scd.media.files import is_whole
from scd.pose.files import read_poses

pytestmark = pytest.mark.usefixtures("one_thread")


def by_hand(manifest: Path, number: int, **values) -> None:
    """Change a line of a manifest."""
    header, rows = read_rows(manifest)
    changed = [row | values if i == number else row for i, (_, row) in enumerate(rows)]
    write_rows(manifest, header, changed)


# ---- clips ----


def list_clips(scd, data: Path, manifest: Path) -> None:
    """Their poses lie in the folder, and move with it; the manifest lies elsewhere."""
    ready(DataConfig(kind="folder", root=str(data)))
    scd("data", "prepare", "folder", data, "-o", manifest)


@pytest.mark.parametrize("moved", [False, True], ids=["where it was", "moved"])
def test_a_split_and_captions_by_hand_outlive_a_move(clips, tmp_path, no_detector, scd, moved):
    data = Path(shutil.copytree(clips, tmp_path / "data"))
    manifest = tmp_path / "lists/mine.jsonl"
    list_clips(scd, data, manifest)
    by_hand(manifest, 0, split="test", caption="a dance")
    before = read_manifest(manifest)
    if moved:
        (tmp_path / "disk").mkdir()
        data = data.rename(tmp_path / "disk/data")
    scd("data", "prepare", "folder", data, "-o", manifest)
    after = list(read_manifest(manifest).values())
    assert [e.split for e in after] == [e.split for e in before.values()] == ["test", *["train"] * 8, "test"]
    assert after[0].others == {"caption": "a dance"}
    assert all((manifest.parent / entry.poses).resolve().is_relative_to(data) for entry in after)
    assert (manifest.parent / after[0].clip).resolve() == data / "0"
    assert "0" not in find_clips(manifest).training


def test_a_manifest_of_more_than_one_folder_loses_none(clips, tmp_path, no_detector, scd):
    for name in "ab":
        shutil.copytree(clips, tmp_path / name)
    manifest = tmp_path / "both.jsonl"
    text = "".join(
        json.dumps({"clip": f"{name}/{i}", "split": "test"}) + "\n" for name in "ab" for i in (0, 1)
    )
    manifest.write_text(text)
    code, _, err = scd("data", "prepare", tmp_path / "a", "-o", manifest)
    said = f"{manifest}: lists 2 that are not in {tmp_path}/a, as {tmp_path}/b/0, and would lose them"
    assert (code, err.startswith(f"scd: {said}")) == (2, True), err
    assert manifest.read_text() == text


def test_poses_that_were_cut_off_are_found_again(tmp_path, monkeypatch):
    _, truth = lay(tmp_path, "a", 1, num=2)
    layout, entries = prepared(tmp_path, {"a": truth})
    file = layout.poses(entries["a"])
    whole = file.read_bytes()
    assert is_whole(file)
    for damaged in (whole[:-30], whole[:100], b""):
        file.write_bytes(damaged)
        assert lacks_poses(layout, entries["a"])
    eyes = Eyes([truth[0]])
    monkeypatch.setattr("scd.pose.detect.get_detector", lambda name: eyes)
    monkeypatch.setattr(prepare, "get_detector", lambda name: eyes)
    again = find_all_poses(layout, survey(layout))
    assert (again["a"].poses, eyes.calls) == (entries["a"].poses, 2)
    assert len(read_poses(file).frames) == 2


def test_poses_by_hand_that_are_cut_off_are_named(scd, tmp_path, no_detector):
    lay(tmp_path, "a", 1, num=2)
    (tmp_path / "hand.npz").write_bytes(b"PK")
    manifest = tmp_path / "mine.jsonl"
    manifest.write_text('{"clip": "a", "poses": "hand.npz"}\n')
    code, _, err = scd("data", "prepare", manifest)
    assert code == 2
    assert "hand.npz: is named as the poses of a and is cut off; bring it back" in err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fps", "30/0"), ("fps", "abc"), ("fps", "-30"), ("fps", "0"), ("frames", -1), ("size", [128]),
        ("size", [0, 0]), ("size", [1.5, 2]), ("cuts", [0]), ("cuts", ["a"]), ("border", [300, 0, 0]),
        ("border", [1, 2, "x"]), ("border", [1, 2]),
    ],
)  # fmt: skip
def test_values_of_a_clip_that_cannot_be_are_named(scd, tmp_path, name, value):
    manifest = tmp_path / "mine.jsonl"
    manifest.write_text(f'{{"scd": 1, "layout": "folder"}}\n{{"clip": "a", "{name}": {json.dumps(value)}}}\n')
    code, _, err = scd("data", "check", manifest)
    said = f'{manifest}, line 2: "{name}" cannot be {json.dumps(value)}; mend it, or remove it'
    assert (code, err.startswith(f"scd: {said}")) == (2, True), err


# ---- pairs ----


@pytest.mark.parametrize("moved", [False, True], ids=["where it was", "moved"])
@pytest.mark.parametrize("own", [False, True], ids=["elsewhere", "beside the pictures"])
def test_pairs_by_hand_outlive_a_move(viton, tmp_path, no_detector, scd, moved, own):
    data = Path(shutil.copytree(viton, tmp_path / "viton"))
    manifest = data / "scd.jsonl" if own else tmp_path / "lists/mine.jsonl"
    said = () if own else ("-o", manifest)
    scd("data", "prepare", data, *said)
    by_hand(manifest, 1, split="test", caption="a shirt")
    before = read_pairs(manifest)
    held_out = before.paired[0]
    assert len(before.training) == 2
    if moved:
        (tmp_path / "disk").mkdir()
        data = data.rename(tmp_path / "disk/viton")
        manifest = data / "scd.jsonl" if own else manifest
    scd("data", "prepare", data, *said)
    after = read_pairs(manifest)
    assert [len(part) for part in (after.training, after.paired, after.unpaired)] == [
        len(part) for part in (before.training, before.paired, before.unpaired)
    ]
    (again,) = (pair for pair in after.paired if pair.name == held_out.name)
    assert json.loads(again.others) == {"caption": "a shirt"}
    assert again.person.is_relative_to(data)
    if own:  # the folder stands for its manifest
        assert held_out.name not in {pair.name for pair in find_pairs(data).training}


def test_a_manifest_of_pairs_of_more_than_one_folder_loses_none(viton, tmp_path, scd):
    rows = []
    for name in "ab":
        root = Path(shutil.copytree(viton, tmp_path / name))
        pair = find_pairs(root).training[0]
        rows.append({"person": str(pair.person), "garment": str(pair.garment)})
    manifest = tmp_path / "both.jsonl"
    text = "".join(json.dumps(row) + "\n" for row in rows)
    manifest.write_text(text)
    code, _, err = scd("data", "prepare", tmp_path / "a", "-o", manifest)
    assert code == 2
    assert f"{manifest}: lists 1 that are not in {tmp_path}/a" in err
    assert manifest.read_text() == text


@pytest.mark.parametrize("named", [False, True], ids=["by the folder", "by the manifest"])
def test_guides_of_pairs_that_were_cut_off_or_are_of_another_picture_are_made_again(
    viton, tmp_path, monkeypatch, named
):
    data = Path(shutil.copytree(viton, tmp_path / "viton"))
    truth = tryon_prepare.read_pose(find_pairs(data).training[0], SIZE)
    for part in ("train", "test"):
        shutil.rmtree(data / part / "openpose_json")
        shutil.rmtree(data / part / "agnostic-mask")
    eyes = Eyes([truth])
    monkeypatch.setattr(tryon_prepare.detect, "get_detector", lambda name: eyes)
    manifest = tmp_path / "m.jsonl"
    found = prepare_pairs(find_pairs(data), manifest)
    calls = eyes.calls
    pose, region = found.training[0].pose, found.training[1].region
    kept = region.read_bytes()
    pose.write_bytes(pose.read_bytes()[:-20])
    region.write_bytes(kept[:-20])
    again = prepare_pairs(find_pairs(data), manifest)
    assert again == found
    assert eyes.calls == calls + 1
    assert (is_whole(pose), region.read_bytes()) == (True, kept)
    person = found.training[0].person
    person.write_bytes(found.training[1].person.read_bytes() + b" ")  # another's picture under this name
    changed = prepare_pairs(find_pairs(manifest if named else data), manifest).training[0]
    assert eyes.calls == calls + 2
    assert changed.pose != pose
    assert not changed.error


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", [128]), ("garment_size", [0, 1]), ("content", ["a"]), ("stamp", [1, 2])],
)
def test_values_of_a_pair_that_cannot_be_are_named(scd, tmp_path, name, value):
    manifest = tmp_path / "mine.jsonl"
    manifest.write_text(json.dumps({"person": "a.png", "garment": "b.png", name: value}) + "\n")
    code, _, err = scd("data", "check", manifest)
    assert code == 2
    assert f'{manifest}, line 1: "{name}" cannot be {json.dumps(value)}' in err


# ---- presets ----


def test_a_manifest_of_the_other_kind_is_refused(viton, clips, tmp_path, no_detector, scd):
    data = Path(shutil.copytree(clips, tmp_path / "data"))
    ready(DataConfig(kind="folder", root=str(data)))
    for name, source in (("pairs", viton), ("clips", data)):
        scd("data", "prepare", source, "-o", tmp_path / f"{name}.jsonl")
    assert find_dataset(tmp_path / "clips.jsonl").kind == "folder"
    for preset, name, said in (
        ("tiktok-stage1", "pairs", "lists pairs, the preset vitonhd is for them"),
        ("vitonhd", "clips", "lists clips, the preset folder-stage1 is for them"),
    ):
        path = tmp_path / f"{name}.jsonl"
        code, _, err = scd("train", preset, "--data", path, "--init", "embedded", "--run", tmp_path / "run")
        assert (code, err.count("\n")) == (2, 1), err
        assert said in err


def test_pairs_without_masks_and_poses_are_told_what_finds_them(viton, tmp_path, scd):
    data = Path(shutil.copytree(viton, tmp_path / "viton"))
    for part in ("train", "test"):
        shutil.rmtree(data / part / "openpose_json")
        shutil.rmtree(data / part / "agnostic-mask")
    for command in (("data", "check", data), ("train", "vitonhd", "--data", data, "--init", "embedded")):
        code, _, err = scd(*command)
        assert code == 2
        assert f"scd data prepare {data}" in err


def hold_out(manifest: Path) -> str:
    """Hold out the second pair by hand; its name."""
    by_hand(manifest, 1, split="test", caption="a shirt")
    return read_pairs(manifest).paired[0].name


def assert_held_out(name: str, layout, caption: bool = True) -> None:
    assert name not in {pair.name for pair in layout.training}
    (pair,) = (pair for pair in layout.paired if pair.name == name)
    assert pair.person.exists()
    assert not caption or json.loads(pair.others) == {"caption": "a shirt"}


def test_pairs_by_hand_without_a_header_stay_held_out(viton, tmp_path, no_detector, scd):
    """Whether the folder or the manifest is named; the header's `root` is another folder then."""
    data = Path(shutil.copytree(viton, tmp_path / "viton"))
    manifest = tmp_path / "mine.jsonl"
    pairs = find_pairs(data).training
    names = ("person", "garment", "region", "pose")
    rows = [{name: str(getattr(pair, name)) for name in names} for pair in pairs]
    rows[1] |= {"split": "test", "caption": "a shirt"}
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scd("data", "prepare", manifest)
    scd("data", "prepare", data, "-o", manifest)
    assert_held_out(pairs[1].name, read_pairs(manifest))


@pytest.mark.parametrize("gone", [False, True], ids=["copied", "moved"])
def test_pairs_behind_a_link_stay_held_out(viton, tmp_path, no_detector, scd, gone):
    """The link is pointed to another disk."""
    (tmp_path / "one").mkdir()
    disk = Path(shutil.copytree(viton, tmp_path / "one/viton"))
    link = tmp_path / "data"
    link.symlink_to(disk)
    manifest = tmp_path / "lists/mine.jsonl"
    scd("data", "prepare", link, "-o", manifest)
    name = hold_out(manifest)
    other = Path(shutil.copytree(disk, tmp_path / "two"))
    if gone:
        shutil.rmtree(disk)
    link.unlink()
    link.symlink_to(other)
    scd("data", "prepare", link, "-o", manifest)
    assert_held_out(name, read_pairs(manifest))
    assert read_pairs(manifest).training[0].person.is_relative_to(other)


def test_a_manifest_beside_pairs_outlives_the_link_it_was_written_through(viton, tmp_path, no_detector, scd):
    data = Path(shutil.copytree(viton, tmp_path / "viton"))
    link = tmp_path / "link"
    link.symlink_to(data)
    scd("data", "prepare", link)
    name = hold_out(data / "scd.jsonl")
    link.unlink()
    assert_held_out(name, find_pairs(data), caption=False)


def test_pairs_of_pictures_behind_a_link_stay_held_out(viton, tmp_path, no_detector, scd):
    data = Path(shutil.copytree(viton, tmp_path / "viton"))
    (data / "train/image").rename(tmp_path / "image")
    (data / "train/image").symlink_to(tmp_path / "image")
    manifest = tmp_path / "mine.jsonl"
    scd("data", "prepare", data, "-o", manifest)
    name = hold_out(manifest)
    data = data.rename(tmp_path / "moved")
    _, _, err = scd("data", "prepare", data, "-o", manifest)
    assert "lists" not in err, err
    assert_held_out(name, read_pairs(manifest))


def test_masks_by_hand_in_the_dataset_move_with_it(viton, tmp_path, no_detector, scd):
    data = Path(shutil.copytree(viton, tmp_path / "viton"))
    for part in ("train", "test"):
        (data / part / "agnostic-mask").rename(data / part / "hand")
    manifest = tmp_path / "mine.jsonl"
    scd("data", "prepare", data, "-o", manifest)
    for number, (_, row) in enumerate(read_rows(manifest)[1]):
        part, stem = ("train" if "train/" in row["person"] else "test"), Path(row["person"]).stem
        by_hand(manifest, number, region=f"viton/{part}/hand/{stem}_mask.png")
    scd("data", "prepare", data, "-o", manifest)
    (tmp_path / "disk").mkdir()
    data = data.rename(tmp_path / "disk/viton")
    scd("data", "prepare", data, "-o", manifest)
    for pair in read_pairs(manifest).training:
        assert not pair.error
        assert pair.region.is_relative_to(data)


def test_clips_of_a_disk_that_is_away_are_not_lost(clips, tmp_path, no_detector, scd):
    data = Path(shutil.copytree(clips, tmp_path / "a"))
    manifest = tmp_path / "both.jsonl"
    text = '{"clip": "a/0"}\n{"clip": "b/0", "split": "test"}\n'
    manifest.write_text(text)
    code, _, err = scd("data", "prepare", data, "-o", manifest)
    assert (code, manifest.read_text()) == (2, text)
    assert f"lists 1 that are not in {data}, as {tmp_path}/b/0" in err


def test_copied_clips_stay_held_out(clips, tmp_path, no_detector, scd):
    """Training goes on from a faster disk; the first copy stays where it was."""
    data = Path(shutil.copytree(clips, tmp_path / "data"))
    manifest = tmp_path / "mine.jsonl"
    list_clips(scd, data, manifest)
    by_hand(manifest, 0, split="test")
    copy = Path(shutil.copytree(data, tmp_path / "fast"))
    scd("data", "prepare", copy, "-o", manifest)
    layout = find_clips(manifest)
    assert layout.root == copy
    assert "0" not in layout.training
    assert all(layout.poses(entry).is_relative_to(copy) for entry in layout.entries().values())


def test_a_manifest_in_a_linked_folder_keeps_its_root(clips, tmp_path, no_detector, scd):
    Path(shutil.copytree(clips, tmp_path / "real/data"))
    (tmp_path / "real/lists").mkdir()
    (tmp_path / "x").mkdir()
    (tmp_path / "x/link").symlink_to(tmp_path / "real/lists")
    manifest = tmp_path / "real/lists/m.jsonl"
    list_clips(scd, tmp_path / "real/data", manifest)
    before = manifest.read_text()
    scd("data", "check", tmp_path / "x/link/m.jsonl")
    assert manifest.read_text() == before
    layout = find_clips(tmp_path / "x/link/m.jsonl")
    assert all(layout.path(clip).is_dir() for clip in layout.clips)


# ---- what only looks moved ----


def test_a_folder_around_a_dataset_is_not_its_new_place(clips, tmp_path, no_detector, scd):
    """part/0 stays held out, and the clip of its name beside part is another one."""
    data = Path(shutil.copytree(clips, tmp_path / "all/part"))
    manifest = tmp_path / "m.jsonl"
    list_clips(scd, data, manifest)
    by_hand(manifest, 0, split="test", caption="a dance")
    shutil.copytree(data / "0", tmp_path / "all/0")
    layout = find_clips(tmp_path / "all", "folder", manifest)
    assert "part/0" in layout.held_out
    assert "0" not in layout.held_out
    assert layout.entries()["part/0"].others == {"caption": "a dance"}
    assert "0" not in layout.entries()


def test_a_folder_in_a_dataset_is_not_its_new_place(clips, tmp_path, no_detector):
    data = Path(shutil.copytree(clips, tmp_path / "a"))
    shutil.copytree(data / "0", data / "a/0")
    manifest = tmp_path / "mine.jsonl"
    manifest.write_text('{"clip": "a/0", "split": "test"}\n')
    layout = find_clips(data, "folder", manifest)
    assert "0" in layout.held_out
    assert layout.entries().keys() == {"0"}, "a/a/0 is another"


def test_another_dataset_with_the_same_names_is_another(clips, viton, tmp_path, no_detector, scd):
    """Its clips have not the size of those that are listed, and nobody's split, captions or masks."""
    one, two = tmp_path / "cam1", tmp_path / "cam2"
    shutil.copytree(clips, one)
    for number in range(10):
        lay(two, f"{number}", number % 3 + 4, num=20)
    manifest = tmp_path / "all.jsonl"
    list_clips(scd, one, manifest)
    text = manifest.read_text()
    code, _, err = scd("data", "prepare", "folder", two, "-o", manifest)
    assert (code, manifest.read_text()) == (2, text)
    assert f"lists 10 that are not in {two}, as {one}/0, and would lose them" in err

    first, second = (
        Path(shutil.copytree(viton, tmp_path / "one")),
        Path(shutil.copytree(viton, tmp_path / "two")),
    )
    for file in second.glob("*/image/*"):
        file.write_bytes(file.read_bytes() + b" ")
    manifest = tmp_path / "pairs.jsonl"
    scd("data", "prepare", first, "-o", manifest)
    text = manifest.read_text()
    code, _, err = scd("data", "prepare", second, "-o", manifest)
    assert (code, manifest.read_text()) == (2, text)
    assert f"that are not in {second}, as {first}/train/image/" in err


def test_a_mount_point_that_stays_is_no_dataset(clips, tmp_path, no_detector, scd):
    """And a bad clip was removed in the new place."""
    data = Path(shutil.copytree(clips, tmp_path / "mnt"))
    manifest = tmp_path / "m.jsonl"
    list_clips(scd, data, manifest)
    by_hand(manifest, 0, split="test")
    new = data.rename(tmp_path / "new")
    data.mkdir()
    shutil.rmtree(new / "5")
    scd("data", "prepare", new, "-o", manifest)
    layout = find_clips(manifest)
    assert layout.root == new
    assert len(layout.clips) == 9
    assert "0" in layout.held_out
    assert not any(entry.error for entry in layout.entries().values())


def test_a_pair_is_held_out_under_any_name_and_category(viton, tmp_path, no_detector, scd):
    """By hand, with the category left out, and a picture that is a link to its store."""
    data = Path(shutil.copytree(viton, tmp_path / "viton"))
    pairs = find_pairs(data).training
    store = data / "store"
    store.mkdir()
    kept = pairs[1].person.rename(store / "p.jpg")
    pairs[1].person.symlink_to(kept)
    rows = [
        {"person": str(pairs[0].person), "garment": str(pairs[0].garment), "category": "lower"},
        {"person": str(kept), "garment": str(pairs[1].garment)},
    ]
    manifest = tmp_path / "mine.jsonl"
    manifest.write_text("".join(json.dumps(row | {"split": "test"}) + "\n" for row in rows))
    scd("data", "prepare", data, "-o", manifest)
    training = {pair.name for pair in read_pairs(manifest).training}
    assert training == {pair.name for pair in pairs[2:]}


def test_a_manifest_that_is_named_by_a_link_is_read_where_it_lies(clips, viton, tmp_path, no_detector, scd):
    for name, source in (("clips", clips), ("pairs", viton)):
        data = Path(shutil.copytree(source, tmp_path / name / "data"))
        manifest = tmp_path / name / "lists/m.jsonl"
        if name == "clips":
            ready(DataConfig(kind="folder", root=str(data)))
        scd("data", "prepare", data, "-o", manifest)
        before = manifest.read_text()
        link = tmp_path / f"{name}.jsonl"
        link.symlink_to(manifest)
        for what in ("check", "prepare"):
            scd("data", what, link)
            assert manifest.read_text() == before
        assert link.is_symlink()


@pytest.mark.parametrize("name", ["./1", "a/../1", ".//1", "../data/1", "{data}/1"])
def test_a_name_by_hand_may_be_spelled_in_any_way(clips, tmp_path, no_detector, name):
    data = Path(shutil.copytree(clips, tmp_path / "data"))
    name = name.format(data=data)
    (data / "scd.jsonl").write_text(json.dumps({"clip": name, "split": "test", "caption": "a dance"}) + "\n")
    layout = find_clips(data)
    assert layout.held_out >= {"1"}
    survey(layout)
    entries = find_clips(data).entries()
    assert (entries["1"].split, entries["1"].others) == ("test", {"caption": "a dance"})
    assert len(entries) == 10


def test_a_link_that_is_left_behind_leads_to_the_same_clips(clips, tmp_path, no_detector, scd):
    data = Path(shutil.copytree(clips, tmp_path / "a/data"))
    manifest = tmp_path / "lists/m.jsonl"
    list_clips(scd, data, manifest)
    by_hand(manifest, 0, split="test")
    new = data.rename(tmp_path / "b")
    data.symlink_to(new)
    for root in (data, new):
        scd("data", "prepare", root, "-o", manifest)
        assert "0" in find_clips(manifest).held_out
        assert len(find_clips(manifest).clips) == 10


def test_another_dataset_does_not_take_the_place_of_one_that_is_away(clips, tmp_path, no_detector, scd):
    data = Path(shutil.copytree(clips, tmp_path / "mnt/data"))
    manifest = tmp_path / "m.jsonl"
    list_clips(scd, data, manifest)
    text = manifest.read_text()
    shutil.rmtree(tmp_path / "mnt")
    lay(tmp_path / "other", "x/0.mp4", 1, num=4)
    code, _, err = scd("data", "prepare", tmp_path / "other", "-o", manifest)
    assert (code, manifest.read_text()) == (2, text)
    assert "lists 10 that are not in" in err


def test_a_datasets_own_manifest_may_be_a_link(clips, tmp_path, no_detector):
    data = Path(shutil.copytree(clips, tmp_path / "data"))
    (tmp_path / "m").mkdir()
    (data / "scd.jsonl").symlink_to(tmp_path / "m/m.jsonl")
    (tmp_path / "m/m.jsonl").write_text('{"clip": "../data/1", "split": "test"}\n')
    survey(find_clips(data))
    for layout in (find_clips(data), find_clips(tmp_path / "m/m.jsonl")):
        assert "1" in layout.held_out
        assert all(layout.path(clip).is_dir() for clip in layout.clips)


def test_a_held_out_picture_that_was_repaired_in_a_copy_stays_held_out(viton, tmp_path, no_detector, scd):
    one, two = (Path(shutil.copytree(viton, tmp_path / name / "viton")) for name in ("one", "two"))
    scd("data", "prepare", one, "-o", two / "scd.jsonl")  # beside the copy, but of the first
    name = hold_out(two / "scd.jsonl")
    (changed,) = two.glob(f"train/image/{name}.*")
    changed.write_bytes(changed.read_bytes() + b" ")
    assert name not in {pair.name for pair in find_pairs(two).training}
