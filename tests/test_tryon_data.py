"""Try-on datasets, against exact truth: the world laid out as VITON-HD and DressCode lie on a disk."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scd import media, world
from scd.cli import main
from scd.config import DRESSED, PICTURES, TRYON, DataConfig
from scd.data.augment import as_detected
from scd.data.collate import collate
from scd.data.fitting import picture_size, read_fitting, read_pose
from scd.data.tryon import _words, find_pairs, guess_tryon
from scd.data.tryon_check import check_pairs, preview_pairs
from scd.data.tryon_pictures import TryOnPictures, open_tryon
from scd.data.world import FIRST_HELD_OUT_SEED, FIRST_TRAINING_SEED, WorldPictures
from scd.data.world_tryon import WorldTryOn, facing, other_garment, true_region
from scd.data.write_viton_hd import FRONTAL, write_viton_hd
from scd.pose.files import write_poses
from scd.types import BODY, FACE, UserError
from scd.world import LABELS, flat_garment

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (128, 96)  # (height, width): VITON-HD's shape


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Three people to train with, three to test with."""
    root = tmp_path_factory.mktemp("tryon") / "world"
    write_viton_hd(root, 3, 3, SIZE)
    (root / "world.json").write_text("{}")
    return root


@pytest.fixture
def viton(written, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(written, tmp_path / "viton"))


def view_of(pair):
    """The world's truth behind a picture."""
    scene = world.Scene.from_seed(int(pair.person.stem.split("_")[0]))
    return scene.view(facing(scene, 1, FRONTAL)[0], SIZE)


def label(view, *names):
    return np.isin(view.labels, [LABELS.index(name) for name in names])


def difference(a, b):
    return np.abs(a.astype(int) - b).max(-1)


# ---- the world as a VITON-HD folder ----


def test_a_written_folder_reads_back_as_what_was_drawn(written):
    layout = find_pairs(written)
    assert (layout.kind, layout.problems, layout.note) == ("vitonhd", (), "")
    assert [len(pairs) for pairs in (layout.training, layout.paired, layout.unpaired)] == [3, 3, 3]
    for pair in (*layout.training, *layout.paired):
        view = view_of(pair)
        assert pair.paired
        assert pair.category == "upper"
        assert pair.truth == pair.person
        assert abs(view.yaw) <= FRONTAL
        fitting = read_fitting(pair, SIZE)
        assert difference(fitting.person, view.image).mean() < 6  # JPEG
        assert difference(fitting.garment, flat_garment(view.outfit.upper, SIZE)).mean() < 6
        expected = as_detected(view.pose)
        np.testing.assert_array_equal(fitting.pose.scores, expected.scores)
        there = expected.scores > 0
        np.testing.assert_allclose(fitting.pose.joints[there], expected.joints[there], atol=1e-4)
        assert not fitting.pose.joints[~there].any()
        np.testing.assert_array_equal(media.read_image(pair.labels)[..., 0], view.labels)


def test_the_truth_of_an_unpaired_pair_is_the_person_in_the_other_garment(written):
    layout = find_pairs(written)
    views = {pair.person.stem: view_of(pair) for pair in layout.paired}
    assert len(layout.unpaired) == 3
    for pair in layout.unpaired:
        assert pair.garment.stem != pair.person.stem
        assert not pair.paired
        other = views[pair.garment.stem].outfit.upper
        truth = views[pair.person.stem].dressed(other)
        np.testing.assert_array_equal(media.read_image(pair.truth), truth.image)
        np.testing.assert_array_equal(media.read_image(pair.labels)[..., 0], truth.labels)
        region = read_fitting(pair, SIZE).region
        for view in (views[pair.person.stem], truth):
            assert region[label(view, "upper", "left_arm", "right_arm")].all()
        # What the garment changes is inside: outside, the truth is the person as it was
        assert difference(views[pair.person.stem].image, truth.image)[~region].max() <= 3


def test_people_to_train_with_and_to_test_with_are_of_their_own_seeds(written):
    layout = find_pairs(written)
    train = [int(pair.person.stem[:8]) for pair in layout.training]
    test = [int(pair.person.stem[:8]) for pair in layout.paired]
    assert min(train) >= FIRST_TRAINING_SEED
    assert FIRST_HELD_OUT_SEED <= min(test) <= max(test) < FIRST_TRAINING_SEED
    assert [pair.person for pair in layout.unpaired] == [pair.person for pair in layout.paired]


def test_the_same_command_writes_the_same_bytes(tmp_path):
    def hashes(name, *options):
        out = str(tmp_path / name)
        assert main(["world", out, "--tryon", "1", "--tryon-test", "2", "--size", "64", *options]) == 0
        files = sorted(path for path in Path(out).rglob("*") if path.is_file())
        return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    first = hashes("a")
    assert len(first) == 3 * 6 + 2 * 2 + 3
    assert hashes("b") == first
    assert hashes("c", "--seed", "5") != first
    assert hashes("c", "--seed", "0", "--force") == first


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["out", "--tryon", "2", "--tryon-test", "1"], "none, or of people 2 and more"),
        (["out", "--tryon", "-1"], "1 to train with at least"),
        (["out.png", "--tryon", "2"], "without an ending"),
        (["out", "--tryon", "2", "--seed", "990000"], "too large"),
    ],
)
def test_folders_that_cannot_be_written(options, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["world", *options]) == 2
    assert text in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["upper", "lower", "dress"])
def test_a_region_tells_neither_garment(kind):
    """It is the same whichever of the two is worn, and wider than both."""
    seeds = (s for s in range(20, 80) if any(g.kind == kind for g in outfit(s).garments))
    for seed in [next(seeds) for _ in range(3)]:
        scene = world.Scene.from_seed(seed)
        (own,) = (g for g in scene.person.outfit.garments if g.kind == kind)
        view = scene.view(facing(scene, 1)[0], SIZE)
        other = view.dressed(other_garment(seed, own))
        region = true_region([view, other], kind)
        np.testing.assert_array_equal(region, true_region([other, view], kind))
        covered = label(view, kind) | label(other, kind)
        assert region[covered].all()
        assert region.sum() > 1.3 * covered.sum()
        kept = label(view, "face", "hair") & label(other, "face", "hair")
        assert region[kept].mean() < 0.35 if kept.any() else True
        if kind != "upper":
            limbs = label(view, "left_leg", "right_leg") | label(other, "left_leg", "right_leg")
            assert region[limbs].all()


def outfit(seed):
    return world.Scene.from_seed(seed).person.outfit


# ---- layouts as they are met ----


def names(layout):
    return [
        (pair.name, pair.garment.stem, pair.paired, bool(pair.region), bool(pair.pose))
        for pair in layout.pairs
    ]


@pytest.mark.parametrize("mask", ["agnostic_mask", "agnostic-masks", "Agnostic_Masks"])
@pytest.mark.parametrize("pose", ["openpose-json", "openpose_json"])
@pytest.mark.parametrize("unpaired", ["test_pairs_unpaired.txt", "test/test_pairs.txt"])
def test_every_spelling_gives_the_same_pairs(viton, written, mask, pose, unpaired):
    expected = names(find_pairs(written))
    assert all(row[3:] == (True, True) for row in expected)
    for part in ("train", "test"):
        (viton / part / "agnostic-mask").rename(viton / part / "other")
        (viton / part / "other").rename(viton / part / mask)
        (viton / part / "openpose_json").rename(viton / part / "other")
        (viton / part / "other").rename(viton / part / pose)
        (viton / part / "image-densepose").mkdir()  # beside the others, not used
    shutil.move(viton / "test_pairs.txt", viton / unpaired)
    if "unpaired" in unpaired:  # a mirror's test_pairs.txt is then the paired one
        rows = [name.split("_")[0] for name, *_ in expected[3:6]]
        (viton / "test_pairs.txt").write_text("".join(f"{r}_00.jpg {r}_00.jpg\n" for r in rows))
    assert names(find_pairs(viton)) == expected
    shutil.move(viton, viton.parent / "VITON-HD")
    assert names(find_pairs(viton.parent)) == expected


def test_masks_without_an_end_and_other_formats_are_found(viton, written):
    for path in (viton / "train" / "agnostic-mask").iterdir():
        path.rename(path.with_name(path.name.replace("_mask", "")))
    for path in (viton / "train" / "image").iterdir():
        media.write_image(path.with_suffix(".png"), media.read_image(path))
        path.unlink()
    assert names(find_pairs(viton)) == names(find_pairs(written))


def test_without_lists_everybody_wears_the_own_garment(viton):
    for path in viton.glob("*.txt"):
        path.unlink()
    layout = find_pairs(viton)
    assert len(layout.training) == len(layout.paired) == 3
    assert layout.unpaired == ()


def test_a_line_that_is_there_twice_is_one_pair(viton, written):
    """In one list, or in the folder's and the part's."""
    for name in ("test_pairs.txt", "train_pairs.txt"):
        text = (viton / name).read_text()
        (viton / name).write_text("\ufeff" + text + text)  # and Windows' mark before the first name
        (viton / name.split("_")[0] / name).write_text(text)
    layout = find_pairs(viton)
    assert layout.problems == ()
    assert names(layout) == names(find_pairs(written))


def test_a_paired_list_alone_makes_no_unpaired_pairs(viton):
    people = [pair.person.name for pair in find_pairs(viton).paired]
    (viton / "test_pairs.txt").write_text(f"{people[0]} {people[0]}\n{people[1]} {people[2]}\n")
    layout = find_pairs(viton)
    assert [pair.person.name for pair in layout.paired] == people[:2]
    assert [(pair.person.name, pair.garment.name) for pair in layout.unpaired] == [(people[1], people[2])]


def test_a_training_list_of_other_garments_still_trains_on_the_own(viton):
    people = [pair.person.name for pair in find_pairs(viton).training]
    (viton / "train_pairs.txt").write_text(f"{people[0]} {people[1]}\n{people[2]}\t{people[0]}\n\n")
    training = find_pairs(viton).training
    assert [(pair.person.name, pair.garment.name) for pair in training] == [
        (people[0], people[0]), (people[2], people[2]),
    ]  # fmt: skip
    assert all(pair.paired for pair in training)


@pytest.fixture(scope="module")
def dress_code(tmp_path_factory):
    """Three people of each category, two of them to test with, and what is drawn of them by name. The first
    has a mask."""
    root, truth = tmp_path_factory.mktemp("dress") / "DressCode", {}
    wanted = {"upper_body": "upper", "lower_body": "lower", "dresses": "dress"}
    for folder, kind in wanted.items():
        place, found = root / folder, 0
        for seed in range(100, 200):
            garments = [g for g in outfit(seed).garments if g.kind == kind]
            scene = world.Scene.from_seed(seed)
            if not garments or scene.fill > 1 or found == 3:
                continue
            view, number = scene.view(facing(scene, 1)[0], SIZE), f"{seed:06d}"
            truth[f"{folder}/{number}_0"] = view, garments[0]
            media.write_image(place / "images" / f"{number}_0.jpg", view.image)
            media.write_image(place / "images" / f"{number}_1.jpg", flat_garment(garments[0], SIZE))
            media.write_image(place / "label_maps" / f"{number}_4.png", view.labels)
            if not found:
                region = true_region([view], kind).astype(np.uint8) * 255
                media.write_image(place / "agnostic_masks" / f"{number}_0.png", region)
            points = np.full((18, 4), -1.0)
            there = view.pose.scores[BODY] > 0
            points[there, :2] = view.pose.joints[BODY][there] * (384, 512)
            points[there, 2:] = 0.9, 1
            (place / "keypoints").mkdir(exist_ok=True)
            (place / "keypoints" / f"{number}_2.json").write_text(json.dumps({"keypoints": points.tolist()}))
            found += 1
        people = [name.split("/")[1][:-2] for name in truth if name.startswith(folder)]
        own = [f"{number}_0.jpg {number}_1.jpg\n" for number in people]
        crossed = f"{people[0]}_0.jpg\t{people[1]}_1.jpg\n{people[1]}_0.jpg\t{people[0]}_1.jpg\n"
        (place / "train_pairs.txt").write_text(own[2])
        (place / "test_pairs_paired.txt").write_text("".join(own[:2]))
        (place / "test_pairs_unpaired.txt").write_text(crossed)
    return root, truth


def test_dress_code_reads_back_as_what_was_drawn(dress_code):
    root, truth = dress_code
    layout = find_pairs(root)
    assert (layout.kind, layout.problems) == ("dresscode", ())
    assert [len(pairs) for pairs in (layout.training, layout.paired, layout.unpaired)] == [3, 6, 6]
    assert {pair.name for pair in (*layout.training, *layout.paired)} == set(truth)
    assert names(find_pairs(root.parent)) == names(layout)
    for pair in layout.pairs:
        view, garment = truth[pair.name]
        assert pair.category == garment.kind
        assert pair.person.stem.endswith("_0")
        assert pair.garment.stem.endswith("_1")
        assert pair.paired == (pair.garment.stem[:-2] == pair.person.stem[:-2])
        fitting = read_fitting(pair, SIZE)
        if pair.paired:
            assert difference(fitting.garment, flat_garment(garment, SIZE)).mean() < 6
        assert difference(fitting.person, view.image).mean() < 6
        np.testing.assert_allclose(fitting.pose.joints[BODY], view.pose.joints[BODY], atol=1e-4)
        there = view.pose.scores[BODY] > 0
        np.testing.assert_allclose(fitting.pose.scores[BODY], np.where(there, 0.9, 0), atol=1e-6)
        assert not fitting.pose.scores[FACE].any()
        if pair.region:
            np.testing.assert_array_equal(fitting.region, true_region([view], garment.kind))
        else:  # from the pose
            assert fitting.region[label(view, garment.kind)].mean() > 0.95
    assert sum(pair.region is None for pair in layout.paired) == 3


@pytest.fixture
def broken_dress(dress_code, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(dress_code[0], tmp_path / "DressCode"))


def test_who_is_to_test_with_never_trains(broken_dress):
    """Copies with the test lists alone are about: without a list everybody trained, these people too."""
    for folder in ("upper_body", "lower_body", "dresses"):
        (broken_dress / folder / "train_pairs.txt").unlink()
        for end in ("paired", "unpaired"):
            path = broken_dress / folder / f"test_pairs_{end}.txt"
            path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
    layout = find_pairs(broken_dress)
    tested = {pair.person for pair in (*layout.paired, *layout.unpaired)}
    assert (len(tested), len(layout.training)) == (3, 6)
    assert not tested & {pair.person for pair in layout.training}
    assert [line.split(":")[0] for line in layout.problems] == ["upper_body", "lower_body", "dresses"]
    assert "none to train with: 2 people whom no list names are to train with" in layout.problems[0]


def test_lists_that_overlap_train_with_nobody_who_is_tested(broken_dress, tmp_path, caplog):
    upper = broken_dress / "upper_body"
    with (upper / "train_pairs.txt").open("a") as file:
        file.write((upper / "test_pairs_paired.txt").read_text())
    layout = find_pairs(broken_dress)
    tested = {pair.person for pair in (*layout.paired, *layout.unpaired)}
    assert layout.training
    assert not tested & {pair.person for pair in layout.training}
    assert "2 pairs to train with are left out, since lists to test with name their people too" in caplog.text
    assert find_pairs(broken_dress).problems == (), "told, and kept nowhere"
    path = tmp_path / "mine.jsonl"
    person, garment = layout.paired[0].person, layout.paired[0].garment
    row = {"person": str(person), "garment": str(garment)}
    path.write_text("".join(json.dumps({**row, "split": split}) + "\n" for split in ("train", "test")))
    with pytest.raises(UserError, match=r"mine.jsonl: has people both to train and to test with"):
        find_pairs(path)


def test_names_with_spaces_in_a_list(viton):
    """Not two files, and not two words of one."""
    for part in ("image", "cloth", "agnostic-mask", "openpose_json"):
        for path in list((viton / "test" / part).iterdir()):
            path.rename(path.with_name("anna " + path.name))
    path = viton / "test_pairs.txt"
    path.write_text("".join(
        " ".join(f"anna {name}" for name in line.split()) + "\n" for line in path.read_text().splitlines()
    ))  # fmt: skip
    layout = find_pairs(viton)
    assert layout.problems == ()
    assert [pair.person.name[:5] for pair in layout.unpaired] == ["anna "] * 3
    path.write_text(path.read_text().replace(".jpg anna", ".jpg\tanna"))
    assert find_pairs(viton).unpaired == layout.unpaired
    for line in ("00001 00002_00.jpg", "00001 00002_00.jpg 0", "a.tif b.jpg", "a b"):
        assert _words(line) == line.split()
    assert _words("anna 1.tif anna 2.jpg 0") == ["anna 1.tif", "anna 2.jpg", "0"]


@pytest.mark.parametrize("third", [True, False])
def test_lists_for_all_categories_lie_in_the_folder(broken_dress, dress_code, third):
    """DressCode's third word is the category's number; without it the person says whose line it is."""
    for name in ("train_pairs.txt", "test_pairs_paired.txt", "test_pairs_unpaired.txt"):
        lines = []
        for number, folder in enumerate(("upper_body", "lower_body", "dresses")):
            own = (broken_dress / folder / name).read_text().splitlines()
            lines += [f"{line}\t{number}" if third else line for line in own]
            (broken_dress / folder / name).unlink()
        (broken_dress / name).write_text("\n".join(lines))
    layout = find_pairs(broken_dress)
    if third:  # the same numbers lie in two folders of this one
        assert names(layout) == names(find_pairs(dress_code[0]))
    assert layout.training
    assert layout.unpaired
    assert layout.problems == ()


def test_poses_of_larger_pictures_still_fit(viton):
    """OpenPose's own files do not say how large the picture was; mirrors shrink the pictures only."""
    pair = find_pairs(viton).training[0]
    expected = read_pose(pair, SIZE)
    content = json.loads(pair.pose.read_text())
    del content["canvas_width"], content["canvas_height"]
    pair.pose.write_text(json.dumps(content))
    np.testing.assert_allclose(read_pose(pair, SIZE).joints, expected.joints, atol=1e-5)
    for values in content["people"][0].values():
        values[::3] = [8 * x for x in values[::3]]
        values[1::3] = [8 * y for y in values[1::3]]
    pair.pose.write_text(json.dumps(content))
    np.testing.assert_allclose(read_pose(pair, SIZE).joints, expected.joints, atol=1e-5)
    content["people"] = [{"pose_keypoints_2d": [0.0] * 75}, *content["people"]]  # somebody not there before
    pair.pose.write_text(json.dumps(content))
    np.testing.assert_allclose(read_pose(pair, SIZE).joints, expected.joints, atol=1e-5)
    pair.pose.write_text('{"people": []}')
    assert not read_pose(pair, SIZE).scores.any()
    write_poses(pair.pose.with_suffix(".npz"), [], size=SIZE)
    assert not read_pose(replace(pair, pose=pair.pose.with_suffix(".npz")), SIZE).scores.any()


# ---- what is missing or broken ----


def test_pairs_without_their_pictures_are_named_and_left_out(viton):
    people = [pair.person.name for pair in find_pairs(viton).training]
    (viton / "train" / "cloth" / people[1]).unlink()
    (viton / "test_pairs.txt").write_text(
        "00010001_00.jpg 00099999_00.jpg\n00088888_00.jpg 00010001_00.jpg\n"
    )
    layout = find_pairs(viton)
    assert [pair.person.name for pair in layout.training] == [people[0], people[2]]
    assert [pair.person.name for pair in layout.paired] == ["00010001_00.jpg"]
    assert layout.unpaired == ()
    assert layout.problems == (
        f"train_pairs.txt, line 2: the picture train/cloth/{people[1][:-4]} is missing",
        "test_pairs.txt, line 2: the picture test/image/00088888_00 and test/cloth/00088888_00 is missing",
        "test_pairs.txt, line 1: the picture test/cloth/00099999_00 is missing",
        "test_pairs.txt, line 2: the picture test/image/00088888_00 is missing",
    )


@pytest.mark.parametrize(
    ("gone", "text"),
    [
        ("train/cloth", "train/cloth is missing: garments lie there"),
        ("test/image", "test/image is missing: people lie there"),
    ],
)
def test_a_folder_half_there_is_one_line(viton, gone, text, capsys):
    shutil.rmtree(viton / gone)
    with pytest.raises(UserError, match=text):
        find_pairs(viton)
    assert main(["data", "check", str(viton)]) == 2
    assert text in capsys.readouterr().err


def test_a_part_that_is_gone_leaves_the_other(viton, capsys):
    shutil.rmtree(viton / "train")
    layout = find_pairs(viton)
    assert layout.problems == ("train: the folder is missing, though train_pairs.txt is there",)
    assert len(layout.paired) == 3
    assert main(["data", "check", str(viton)]) == 2
    assert "no pairs to train with; those of its test part can be evaluated" in capsys.readouterr().err
    with pytest.raises(UserError, match="no pair can train"):
        open_tryon(DataConfig(kind="vitonhd", root=str(viton)), 4)


def test_dress_code_names_what_is_missing(dress_code, tmp_path):
    root = Path(shutil.copytree(dress_code[0], tmp_path / "d"))
    shutil.rmtree(root / "dresses")
    number = next((root / "upper_body" / "images").glob("*_1.jpg"))
    number.unlink()
    problems = find_pairs(root).problems
    assert problems[0] == "dresses: the folder is missing"
    assert any(p.endswith(f"the picture upper_body/images/{number.stem} is missing") for p in problems)


def test_lists_and_folders_that_are_none(viton, tmp_path):
    (viton / "train_pairs.txt").write_text("a.jpg b.jpg\nonly_one.jpg\n")
    with pytest.raises(UserError, match=r"train_pairs\.txt, line 2: needs two names"):
        find_pairs(viton)
    (tmp_path / "empty").mkdir()
    assert guess_tryon(tmp_path / "empty") is None
    (tmp_path / "clips" / "dresses").mkdir(parents=True)  # somebody's videos of dresses
    (tmp_path / "clips" / "train").mkdir()
    assert guess_tryon(tmp_path / "clips") is None
    with pytest.raises(UserError, match="neither VITON-HD's layout"):
        find_pairs(tmp_path / "empty")
    for kind, text in (("vitonhd", "not VITON-HD's layout"), ("dresscode", "not DressCode's layout")):
        with pytest.raises(UserError, match=text):
            find_pairs(tmp_path / "empty", kind)
    with pytest.raises(UserError, match="no such folder"):
        find_pairs(tmp_path / "nowhere")


def test_masks_that_cannot_be_used(viton):
    pair = find_pairs(viton).training[0]
    mask = media.read_image(pair.region)[..., 0]
    media.write_image(pair.region, np.repeat(np.repeat(mask, 2, 0), 2, 1), force=True)
    np.testing.assert_array_equal(read_fitting(pair, SIZE).region, mask > 0)  # same shape, other size
    media.write_image(pair.region, mask[:60], force=True)
    with pytest.raises(UserError, match=r"_mask\.png: is 96x60, its picture 96x128"):
        read_fitting(pair, SIZE)
    shape = np.stack([np.full_like(mask, 255)] * 3 + [mask], -1)
    media.write_image(pair.region, shape, force=True)
    np.testing.assert_array_equal(read_fitting(pair, SIZE).region, mask > 127)  # white on nothing
    media.write_image(pair.region, 0 * mask, force=True)
    with pytest.raises(UserError, match=r"_mask\.png: is black everywhere"):
        read_fitting(pair, SIZE)


def test_a_pose_beside_the_picture_is_no_region(viton):
    pair = find_pairs(viton).training[0]
    pose = read_pose(pair, SIZE)
    write_poses(viton / "low.npz", [[replace(pose, joints=pose.joints + np.float32([0, 3]))]])
    with pytest.raises(UserError, match="has no agnostic mask, and no pose that shows where"):
        read_fitting(replace(pair, region=None, pose=viton / "low.npz"), SIZE)


# ---- check and preview ----


def test_check_counts_and_names(viton, capsys):
    layout = find_pairs(viton)
    people = layout.training
    people[0].region.unlink()
    people[1].pose.unlink()
    people[2].pose.write_text("{")
    assert main(["data", "check", str(viton), "--size", "128"]) == 0
    said = capsys.readouterr().out
    figures = json.loads(said.splitlines()[-1])
    assert figures == {
        "layout": "vitonhd", "training_pairs": 2, "test_paired": 3, "test_unpaired": 3, "with_truth": 3,
        "categories": {"upper": 9}, "missing": 0, "unusable": 1, "sizes": {"96x128": 5},
        "garment_sizes": {"96x128": 6}, "without_mask": 1, "without_pose": 1,
        "without_person": 0, "copies": 0, "small": 0, "buckets": {"112x144": 2}, "problems": 3,
    }  # fmt: skip
    assert f"no agnostic mask, the region is made from the pose: {people[0].name}" in said
    assert f"1 of 5 people have no pose file, training sees no pose: {people[1].name}" in said
    assert f"train/openpose_json/{people[2].name}_keypoints.json is not a usable pose file" in said
    assert str(viton / "train") not in said


def test_check_reports_what_broke_after_it_was_prepared(viton, capsys):
    """Pictures are known by then, poses and masks are read anew."""
    assert main(["data", "check", str(viton), "--size", "128"]) == 0
    first, second, _ = find_pairs(viton).training
    first.pose.write_text(first.pose.read_text()[:40])
    media.write_image(second.region, np.zeros((*SIZE, 3), np.uint8), force=True)
    capsys.readouterr()
    assert main(["data", "check", str(viton), "--size", "128"]) == 0
    said = capsys.readouterr().out
    assert f"{first.pose.name} is not a usable pose file" in said
    assert "18 rows" not in said, "that is DressCode's own format"
    assert f"{second.region.name} is empty" in said or f"{second.region.name}: " in said


def test_check_refuses_what_cannot_train(viton, capsys):
    shutil.rmtree(viton / "train" / "agnostic-mask")
    shutil.rmtree(viton / "train" / "openpose_json")
    assert main(["data", "check", str(viton)]) == 2
    assert "cannot train: no pair to train with has its pictures, and a mask or a pose" in (
        capsys.readouterr().err
    )
    with pytest.raises(UserError, match="no pair can train"):
        TryOnPictures(find_pairs(viton).training, 4)


def test_check_warns_of_inverted_masks(viton):
    assert check_pairs(find_pairs(viton), 128).problems == []
    for part in ("train", "test"):
        for path in (viton / part / "agnostic-mask").iterdir():
            media.write_image(path, 255 - media.read_image(path), force=True)
    (line,) = check_pairs(find_pairs(viton), 128).problems
    assert line.endswith("are they inverted? white = generate")


def test_preview_shows_garment_person_region_and_pose(written, dress_code, tmp_path):
    pair = find_pairs(written).training[0]
    sheet = preview_pairs(find_pairs(written), 128, 1)
    fitting = read_fitting(pair, (144, 112))
    top, cells = 14 + 4 + 14, [4 + column * (112 + 4) for column in range(4)]
    garment, person, painted, pose = (sheet[top : top + 144, x : x + 112] for x in cells)
    np.testing.assert_array_equal(garment, fitting.garment)
    np.testing.assert_array_equal(person, fitting.person)
    changed = difference(painted, person) > 2
    assert not changed[~fitting.region].any()
    assert changed[fitting.region].mean() > 0.95
    assert difference(pose, person).any()
    for root in (written, dress_code[0]):
        out = tmp_path / f"{root.name}.png"
        assert main(["data", "preview", str(root), "--size", "128", "-o", str(out)]) == 0
        assert out.is_file()


def test_a_preview_passes_over_what_cannot_be_read(viton, caplog):
    layout = find_pairs(viton)
    whole = preview_pairs(layout, 128, 9)
    layout.training[0].region.write_bytes(b"")
    with caplog.at_level("WARNING", "scd"):
        sheet = preview_pairs(layout, 128, 9)
    assert sheet.shape[0] < whole.shape[0]
    assert f"left out: {layout.training[0].region}" in caplog.text
    for pair in layout.pairs:
        pair.region.write_bytes(b"")
    with pytest.raises(UserError, match="no pair can be shown; scd data prepare finds poses and masks"):
        preview_pairs(layout, 128, 2)


# ---- what training sees ----


def test_pairs_as_samples(written):
    data = open_tryon(DataConfig(kind="vitonhd", root=str(written), size=128, groups=2, augment=False), 40)
    for index in range(4):
        sample, pair = data[index], data.pair_of(index)
        assert sample.references.shape == sample.targets.shape == (1, 144, 112, 3)
        assert not sample.reference_drawings.any()
        assert sample.target_drawings.any()
        fitting = read_fitting(pair, (144, 112))
        np.testing.assert_array_equal(sample.regions[0, ..., 0], fitting.region)
        np.testing.assert_array_equal(sample.targets[0], fitting.person)
        np.testing.assert_array_equal(sample.references[0], fitting.garment)
        np.testing.assert_array_equal(data[index].targets, sample.targets)
    batch = collate([data[0], data[1]])
    assert batch.regions.shape == (2, 1, 1, 144, 112)
    epoch = [data.pair_of(i).name for i in range(4)]
    assert set(epoch) == {pair.name for pair in find_pairs(written).training}
    held_out = open_tryon(DataConfig(kind="vitonhd", root=str(written), size=128), 3, held_out=True)
    assert {pair.name for pair in held_out.pairs} == {pair.name for pair in find_pairs(written).paired}
    assert len(open_tryon(DataConfig(kind="vitonhd", root=str(written), size=128), 3, overfit=1).pairs) == 1


def test_one_frame_for_all_and_no_region_in_the_padding(written):
    pairs = find_pairs(written).training
    data = TryOnPictures(pairs, 3, size=(128, 128))
    for index in range(3):
        sample, pair = data[index], data.pair_of(index)
        mask = media.read_image(pair.region)[..., 0] > 0
        assert not sample.regions[0, :, :16].any()
        assert not sample.regions[0, :, -16:].any()
        np.testing.assert_array_equal(sample.regions[0, :, 16:-16, 0], mask)


def test_a_batch_shares_one_bucket(viton):
    pair = find_pairs(viton).training[0]
    media.write_image(pair.person, np.ascontiguousarray(media.read_image(pair.person)[:64]), force=True)
    media.write_image(pair.region, media.read_image(pair.region)[:64, :, 0], force=True)
    data = TryOnPictures(find_pairs(viton).training, 40, 128, group=2)
    assert len(set(data.frames)) == 2
    for block in range(10):
        shapes = {data.frames[data.blocks.item(i)] for i in (2 * block, 2 * block + 1)}
        assert len(shapes) == 1


def test_size_from_the_head_is_the_size_that_is_read(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    path = tmp_path / "phone.jpg"
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    assert picture_size(path) == media.read_image(path).shape[:2] == (40, 30)
    with pytest.raises(UserError, match=r"none\.jpg does not exist"):
        picture_size(tmp_path / "none.jpg")
    path.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"phone\.jpg is not a picture"):
        picture_size(path)


# ---- the world without a disk ----


def test_world_samples_are_garments_and_their_wearer():
    data = WorldTryOn(30, 64, num_targets=2, garments=(0.5, 0.5), group=2, augment=False)
    counts = set()
    for index in range(0, 12, 2):
        first, second = data[index], data[index + 1]
        assert first.references.shape == second.references.shape
        for place, sample in enumerate((first, second)):
            seed = data.seed_of(index // 2, place)
            num = len(sample.references)
            clothes = data.outfit(seed, num).garments
            flats = [flat_garment(garment, 64) for garment in clothes]
            chosen = [next(i for i, f in enumerate(flats) if (f == r).all()) for r in sample.references]
            counts.add((num, clothes[chosen[0]].kind))
            assert not sample.reference_drawings.any()
            assert sample.regions.shape == (2, 64, 64, 1)
            scene = world.Scene.from_seed(seed)
            for number, (target, region) in zip(
                facing(scene, 3)[1:], zip(sample.targets, sample.regions, strict=True), strict=True
            ):
                view = scene.view(number, 64).dressed(data.outfit(seed, num))
                np.testing.assert_array_equal(target, view.image)
                garment = label(view, *(clothes[i].kind for i in chosen))
                assert region[garment].mean() > 0.9
                assert region.mean() < 0.8
    assert {num for num, _ in counts} == {1, 2}
    again = WorldTryOn(1, 64, 2, (0.5, 0.5), group=2, augment=False)
    np.testing.assert_array_equal(again[0].targets, data[0].targets)
    with pytest.raises(ValueError, match="two garments at most"):
        WorldTryOn(1, garments=(0.5, 0.3, 0.2))


def test_two_garments_are_a_top_and_a_lower_even_of_who_wears_a_dress():
    data = WorldTryOn(9, 64, 1, (0.0, 1.0))
    (seed,) = [s for s in range(200) if outfit(s).dress is not None][:1]
    clothes = data.outfit(seed, 2)
    assert [garment.kind for garment in clothes.garments] == ["upper", "lower"]
    assert data.outfit(seed, 2) == clothes
    assert data.outfit(seed, 1) == outfit(seed)


def test_dressed_samples_show_the_person_in_other_clothes_and_paint_everything():
    data = WorldTryOn(8, 64, 2, tasks=(0.0, 0.0, 1.0), augment=False, heads=True)
    for index in range(4):
        sample = data[index]
        assert sample.references.shape == (2, 64, 64, 3)
        assert sample.reference_drawings[0].any()
        assert not sample.reference_drawings[1].any()
        assert (sample.regions == 1).all()
        assert sample.heads.any((1, 2, 3)).all()
        seed = data.seed_of(index, 0)
        scene = world.Scene.from_seed(seed)
        own = scene.view(facing(scene, 1)[0], 64)
        (kind,) = {g.kind for g in own.outfit.garments if (flat_garment(g, 64) == sample.references[1]).all()}
        changed = difference(sample.references[0], own.image) > 20
        assert changed[label(own, kind)].mean() > 0.5  # another garment
        assert not changed[label(own, "face")].any()  # on the same person


def test_blocks_of_three_tasks_and_pictures_are_those_of_the_world():
    options = {"group": 2, "reuse": 3, "heads": True}
    data = WorldTryOn(40, 64, 2, tasks=(0.4, 0.3, 0.3), references=(0.5, 0.5), **options)
    pictures = WorldPictures(40, 64, 2, references=(0.5, 0.5), **options)
    tasks = [data.task(block) for block in range(20)]
    assert set(tasks) == {PICTURES, TRYON, DRESSED}
    for task in (PICTURES, TRYON, DRESSED):
        block = tasks.index(task)
        for sample in (data[2 * block], data[2 * block + 1]):
            assert (sample.heads is None) == (task == TRYON)
            assert (sample.regions is None) == (task == PICTURES)
            assert sample.reference_drawings[0].any() == (task != TRYON)
    same = data[2 * tasks.index(PICTURES)], pictures[2 * tasks.index(PICTURES)]
    np.testing.assert_array_equal(same[0].targets, same[1].targets)
    np.testing.assert_array_equal(same[0].target_drawings, same[1].target_drawings)


def test_scenes_used_again_change_the_roles_of_their_pictures():
    data = WorldTryOn(8, 64, 2, group=1, reuse=2)
    assert data.seed_of(0, 0) == data.seed_of(1, 0) >= FIRST_TRAINING_SEED
    assert not np.array_equal(data[0].targets, data[1].targets)
    np.testing.assert_array_equal(WorldTryOn(8, 64, 2, group=1, reuse=2)[1].regions, data[1].regions)
