"""Datasets of real clips, against exact truth: the world's clips, laid out as people have theirs."""

import json
import os
import shutil
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from scd import media, world
from scd.config import DataConfig
from scd.data import prepare
from scd.data.augment import as_detected
from scd.data.buckets import Buckets, bucket_sizes, multiple_of, nearest_bucket, person_box, place_around
from scd.data.check import check, num_pairs, preview
from scd.data.heads import head_mask
from scd.data.layouts import find_clips
from scd.data.manifest import Entry, Header, read_manifest, read_rows, write_manifest
from scd.data.prepare import find_all_poses, survey
from scd.data.real import RealClips, RealPictures, open_real
from scd.data.shots import all_shots
from scd.media.placement import border_colour
from scd.pose.draw import draw_pose
from scd.pose.files import write_poses
from scd.pose.find import pose_path
from scd.pose.skeleton import empty_pose, to_crop
from scd.types import Pose, UserError

pytestmark = pytest.mark.usefixtures("one_thread")
PORTRAIT, WIDE = (80, 44), (54, 96)  # (height, width)


@lru_cache
def clip(seed, num=36, size=PORTRAIT, kind="dance", fps=30):
    """Frames and poses of one person of the world."""
    views = world.Scene.from_seed(seed).clip(kind, num, fps, size)
    return [view.image for view in views], [as_detected(view.pose) for view in views]


def lay(root, name, seed, fps=30, **options):
    """Write a clip, as a video or a folder of frames by the name."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    media.write_clip(path, clip(seed, fps=fps, **options)[0], fps)
    return clip(seed, fps=fps, **options)


def know_poses(layout, name, poses):
    """Put poses (None: nobody there) where a search would have kept them."""
    reader = media.open_clip(layout.path(name))
    frames = [[] if pose is None else [pose] for pose in poses]
    write_poses(pose_path(reader, cache=layout.kept), frames, reader.fps, reader.size, force=True)


def prepared(root, truth, kind=None):
    """The layout and the entries of a dataset whose clips have these poses."""
    layout = find_clips(root, kind)
    for name in layout.clips:
        know_poses(layout, name, truth[name])
    return layout, find_all_poses(layout, survey(layout))


@pytest.fixture
def no_detector(monkeypatch):
    """Whoever looks for a pose fails."""

    class Nobody:
        def detect(self, image):
            raise AssertionError("poses that are known were looked for")

    monkeypatch.setattr("scd.pose.detect.get_detector", lambda name="mediapipe": Nobody())
    monkeypatch.setattr(prepare, "get_detector", lambda name: Nobody())


@pytest.fixture
def tiktok(tmp_path, no_detector):
    """Three clips in TikTok's layout: the layout, its entries, and frames and poses by clip."""
    truth = {}
    for number, size in ((1, PORTRAIT), (2, PORTRAIT), (3, WIDE)):
        name = f"{number:05d}/images"
        truth[name] = lay(tmp_path / "TikTok_dataset", name, number, size=size)
        for other in ("masks", "densepose"):
            media.write_image(tmp_path / "TikTok_dataset" / f"{number:05d}" / other / "0001.png",
                              np.zeros((16, 16), np.uint8))  # fmt: skip
    layout, entries = prepared(tmp_path, {name: poses for name, (_, poses) in truth.items()})
    return layout, entries, truth


# ---- layouts ----


def test_the_three_layouts_are_told_apart(tmp_path, tiktok):
    layout = tiktok[0]
    assert (layout.kind, layout.clips) == ("tiktok", ("00001/images", "00002/images", "00003/images"))
    assert find_clips(layout.root).clips == layout.clips, "its own folder may be named too"
    (tmp_path / "twice").mkdir()
    shutil.copytree(layout.root, tmp_path / "twice" / "TikTok_dataset" / "TikTok_dataset")
    assert find_clips(tmp_path / "twice").clips == layout.clips, "archives that hold the folder twice"

    ubc = tmp_path / "ubc"
    for name in ("train/b.mp4", "train/a.mp4", "test/c.mp4"):
        (ubc / name).parent.mkdir(parents=True, exist_ok=True)
        (ubc / name).touch()
    found = find_clips(ubc)
    assert (found.kind, found.clips) == ("ubc", ("train/a.mp4", "train/b.mp4", "test/c.mp4"))
    assert (found.training, found.held_out) == (("train/a.mp4", "train/b.mp4"), {"test/c.mp4"})

    plain = tmp_path / "plain"
    for name in ("b.MOV", "deep/er/a.webm", "frames/1.png", "frames/2.png", "notes.txt", ".x/a.mp4",
                 "alone/1.png", "scd/poses/a.mp4"):  # fmt: skip
        (plain / name).parent.mkdir(parents=True, exist_ok=True)
        (plain / name).touch()
    found = find_clips(plain)
    assert (found.kind, found.clips) == ("folder", ("b.MOV", "deep/er/a.webm", "frames"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.mp4").touch()
    (plain / "linked").symlink_to(tmp_path / "elsewhere")
    (plain / "deep" / "back").symlink_to(plain)
    (plain / "above").symlink_to(tmp_path)
    (plain / "again").symlink_to(plain / "frames")  # sorts before it
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    (plain / "more").symlink_to(tmp_path / "elsewhere")
    assert find_clips(plain).clips == ("b.MOV", "deep/er/a.webm", "frames", "linked/c.mp4")
    (plain / "hidden").symlink_to(plain / ".x")
    assert find_clips(plain).clips == ("b.MOV", "deep/er/a.webm", "frames", "hidden/a.mp4", "linked/c.mp4")


def test_a_tenth_is_held_out_ten_clips_at_most(tmp_path):
    for number in range(125):
        (tmp_path / f"{number:05d}" / "images").mkdir(parents=True)
    assert sorted(find_clips(tmp_path).held_out) == [f"{n:05d}/images" for n in range(115, 125)]
    (tmp_path / "few").mkdir()
    for number in range(9):
        (tmp_path / "few" / f"{number}.mp4").touch()
    assert not find_clips(tmp_path / "few").held_out


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("", None, r"--data\.root: name the folder of the dataset, or its manifest"),
        ("missing", None, r"missing: there is no such folder; check the name"),
        ("empty", "tiktok", r"empty: not TikTok's layout, which is 00001/images/0001\.png"),
        ("empty", "ubc", r"empty: not UBCFashion's layout, which is train/\*\.mp4 and test/\*\.mp4"),
        ("empty", None, r"empty: holds neither videos \(\.mp4, .*\) nor folders of frames"),
        ("file.mp4", None, r"file\.mp4: is a file; name the folder it lies in"),
    ],
)
def test_what_is_no_dataset_is_one_line(tmp_path, name, kind, text):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.mp4").touch()
    with pytest.raises(UserError, match=text):
        find_clips(str(tmp_path / name) if name else "", kind)


# ---- manifest and preparation ----


def test_manifest_round_trip_and_damage(tmp_path):
    path = tmp_path / "scd.jsonl"
    entries = [
        Entry("a b.mp4", 3, "30000/1001", (80, 45), "test", (2,), (1, 2, 3), "c", "s", "p.npz"), Entry("ü")
    ]  # fmt: skip
    write_manifest(path, entries, Header("ubc", "../data"))
    assert list(read_manifest(path).values()) == entries
    assert read_rows(path)[0] == Header("ubc", "../data")
    assert json.loads(path.read_text().splitlines()[2]) == {"clip": "ü"}
    for wrong in ('{"frames": 3}', '{"clip": ', "[1]", '{"clip": "b", "frames": "3"}', '{"clip": ""}'):
        path.write_text('{"clip": "a.mp4"}\n\n' + wrong)
        with pytest.raises(UserError, match=r"scd\.jsonl, line 3: not .* mend the line or remove it"):
            read_manifest(path)


def test_survey_finds_out_what_lies_there(tmp_path):
    lay(tmp_path, "a.mp4", 1, num=5)
    lay(tmp_path, "b", 2, num=4, size=WIDE, fps=15)
    (tmp_path / "broken.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:600])
    entries = survey(find_clips(tmp_path))
    a, b, broken = (entries[name] for name in ("a.mp4", "b", "broken.mp4"))
    assert (a.frames, a.fps, a.size) == (5, "30", PORTRAIT)
    assert (b.frames, b.fps, b.size, b.cuts) == (4, "15", WIDE, ())
    edge = clip(2, 4, WIDE, fps=15)[0][0]
    edge = np.concatenate([edge[0], edge[-1], edge[:, 0], edge[:, -1]])
    assert b.border == tuple(np.median(edge, 0).astype(int))
    assert broken.error == "broken.mp4 is cut off or damaged: copy or record it again"
    assert read_manifest(tmp_path / "scd.jsonl") == entries


def test_survey_goes_on_and_notices_changes(tmp_path, monkeypatch):
    for seed in (1, 2):
        lay(tmp_path, f"{seed}.mp4", seed, num=3)
    layout = find_clips(tmp_path)
    opened = []
    honest = prepare.open_clip
    monkeypatch.setattr(prepare, "open_clip", lambda path: opened.append(path.name) or honest(path))

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        survey(layout, stop)
    assert survey(layout)["2.mp4"].frames == 3
    assert opened == ["1.mp4", "2.mp4"], "each is read once"
    before = survey(layout)
    lay(tmp_path, "new", 3, num=2)
    (tmp_path / "1.mp4").write_bytes((tmp_path / "2.mp4").read_bytes())
    after = survey(find_clips(tmp_path))
    assert opened == ["1.mp4", "2.mp4", "1.mp4", "new"]
    assert after["1.mp4"].content == before["2.mp4"].content != before["1.mp4"].content


class Finder:
    """Finds the given poses, one a call, and then nobody."""

    def __init__(self, poses):
        self.left, self.calls = list(poses), 0

    def detect(self, image):
        self.calls += 1
        return [self.left.pop(0)] if self.left else []


def test_poses_are_found_once(tmp_path, monkeypatch):
    _, poses = lay(tmp_path, "a", 1, num=3)
    lay(tmp_path, "b", 2, num=2)
    layout = find_clips(tmp_path)
    finder = Finder([poses[0]])
    monkeypatch.setattr("scd.pose.detect.get_detector", lambda name: finder)
    monkeypatch.setattr(prepare, "get_detector", lambda name: finder)
    advanced = []
    entries = find_all_poses(layout, survey(layout), advance=lambda: advanced.append(1))
    assert len(advanced) == 5
    assert (tmp_path / entries["a"].poses).is_file()
    assert entries["b"].error.startswith("no person found in any of the 2 frame(s) of b: ")
    (shot,) = all_shots(layout, entries, layout.clips, Buckets(32))
    assert shot.usable.tolist() == [0]
    calls = finder.calls
    assert find_all_poses(layout, survey(layout)) == entries
    assert finder.calls == calls
    (tmp_path / entries["a"].poses).unlink()
    finder.left = [poses[1]] * 9
    find_all_poses(layout, survey(layout))
    assert finder.calls > calls, "a pose file that is gone is made again"


def test_a_detector_that_is_missing_is_no_fault_of_a_clip(tmp_path):
    lay(tmp_path, "a", 1, num=2)
    layout = find_clips(tmp_path)
    with pytest.raises(UserError, match="there is no pose detector 'magic'"):
        find_all_poses(layout, survey(layout), "magic")
    assert not survey(layout)["a"].error


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch, no_detector):
    _, poses = lay(tmp_path / "data", "a", 1, num=2)
    monkeypatch.setenv("SCD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    before = sorted((tmp_path / "data").rglob("*"))
    layout, entries = prepared(tmp_path / "data", {"a": poses})
    assert sorted((tmp_path / "data").rglob("*")) == before
    assert layout.manifest.is_relative_to(tmp_path / "cache" / "data")
    assert len(all_shots(layout, entries, ["a"], Buckets(32))) == 1


@pytest.mark.parametrize("done", [False, True], ids=["checked", "prepared"])
def test_a_folder_that_can_be_written_to_no_more(tmp_path, monkeypatch, no_detector, done):
    """What was found out while it could be still counts; what is new goes to the cache folder."""
    data = tmp_path / "data"
    _, poses = lay(data, "a", 1, num=6)
    lay(data, "b", 2, num=6)
    monkeypatch.setenv("SCD_CACHE", str(tmp_path / "cache"))
    survey(find_clips(data))
    if done:
        prepared(data, {"a": poses, "b": clip(2, 6)[1]})
    before = {file: file.read_bytes() for file in data.rglob("*") if file.is_file()}
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr(prepare, "open_clip", None if done else prepare.open_clip)
    layout = find_clips(data)
    if not done:
        for name, found in (("a", poses), ("b", clip(2, 6)[1])):
            know_poses(layout, name, found)
    entries = find_all_poses(layout, survey(layout))
    assert len(all_shots(layout, entries, ["a", "b"], Buckets(32))) == 2
    assert {file: file.read_bytes() for file in data.rglob("*") if file.is_file()} == before
    assert (tmp_path / "cache").exists() is not done
    config = DataConfig(kind="folder", root=str(data), size=32, gap=3, augment=False)
    assert len(open_real(config, 4).shots) == 2


def test_a_manifest_by_hand_with_poses_of_others(tmp_path, no_detector):
    """A line with a clip and an OpenPose file is enough; poses of another length are named."""
    lay(tmp_path, "media/a", 1, num=2)
    lay(tmp_path, "media/not-listed", 2, num=2)
    person = {"pose_keypoints_2d": [20.0, 40.0, 1.0] * 9 + [30.0, 70.0, 1.0] * 9}
    frame = {"people": [person], "canvas_height": 80, "canvas_width": 44}
    path = tmp_path / "mine.jsonl"
    path.write_text('{"clip": "media/a", "poses": "a.json"}\n')
    layout = find_clips(path)
    (tmp_path / "a.json").write_text(json.dumps([frame]))
    with pytest.raises(UserError, match=rf"{path}: 1 of 1 clips were .* run scd data prepare {path}"):
        all_shots(layout, layout.entries(), layout.clips, Buckets(32))
    entries = find_all_poses(layout, survey(layout))
    text = rf"a\.json: has poses of 1 frames, media/a has 2; mend the file, or remove its name from {path} to"
    with pytest.raises(UserError, match=text):
        all_shots(layout, entries, layout.clips, Buckets(32))
    (tmp_path / "b.json").write_text(json.dumps([frame, frame]))
    path.write_text(path.read_text().replace("a.json", "b.json"))
    entries = find_all_poses(layout, survey(layout))
    (shot,) = all_shots(layout, entries, layout.clips, Buckets(32))
    assert shot.usable.tolist() == [0, 1]
    left, top = shot.placement.box[:2]
    assert shot.pose(0).joints[0] == pytest.approx(
        to_crop(Pose(np.full((128, 2), (20 / 44, 40 / 80), np.float32), np.ones(128, np.float32), PORTRAIT),
                shot.placement.box, shot.bucket).joints[0]
    )  # fmt: skip
    assert (left, top) != (0, 0)


def test_poses_stay_with_the_pictures_they_are_of(tmp_path, no_detector):
    """A copied or touched clip, and one that was away for a while, keeps its poses; another loses them."""
    _, poses = lay(tmp_path, "a", 1, num=2)
    lay(tmp_path / "other", "b", 2, num=2)
    write_poses(tmp_path / "hand.npz", [[pose] for pose in poses], 30, PORTRAIT)
    path = tmp_path / "mine.jsonl"
    path.write_text('{"clip": "a", "poses": "hand.npz"}\n')
    layout = find_clips(path)
    before = survey(layout)["a"]
    for frame in (tmp_path / "a").iterdir():
        os.utime(frame, (1, 1))
    touched = survey(layout)["a"]
    assert touched == replace(before, stamp=touched.stamp)
    assert (touched.poses, touched.stamp == before.stamp) == ("hand.npz", False)
    (tmp_path / "a").rename(tmp_path / "away")
    assert survey(layout)["a"].error.startswith("a does not exist")
    (tmp_path / "away").rename(tmp_path / "a")
    assert survey(layout)["a"] == touched
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "other" / "b").rename(tmp_path / "a")
    assert survey(layout)["a"].poses == ""


def test_a_manifest_by_hand_loses_nothing(tmp_path, no_detector):
    """What a line says beyond our fields stays; poses that were named are never replaced by found ones."""
    _, poses = lay(tmp_path, "a", 1, num=2)
    path = tmp_path / "mine.jsonl"
    mine = {"caption": "a\u2028dance", "tags": ["x", {"y": 1.5}], "others": None, "poses": "hand.npz"}
    path.write_text(json.dumps({"clip": "a", **mine}) + "\n")
    layout = find_clips(path)
    entries = survey(layout)
    text = (
        rf"^{tmp_path}/hand\.npz: is named as the poses of a and does not exist; bring it back, or remove "
        rf"its name from {path} to look for poses anew$"
    )
    with pytest.raises(UserError, match=text):
        find_all_poses(layout, entries)
    write_poses(tmp_path / "hand.npz", [[pose] for pose in poses], 30, PORTRAIT)
    assert find_all_poses(layout, survey(layout)) == entries
    header, row = map(json.loads, path.read_text().strip().split("\n"))
    assert header == {"scd": 1, "layout": "folder", "root": "."}
    assert row["frames"] == 2
    assert mine.items() <= row.items()


# ---- buckets ----


@pytest.mark.parametrize("size", [32, 64, 128, 512, 768])
def test_buckets_have_one_area_and_sides_that_halve(size):
    sizes = bucket_sizes(size)
    assert (size, size) in sizes
    for height, width in sizes:
        assert height % multiple_of(size) == width % multiple_of(size) == 0
        assert 0.7 * size**2 <= height * width <= size**2 or size < 128
        assert (width, height) in sizes
    assert multiple_of(512) == 64
    assert nearest_bucket(1920, 1080, 512) == (640, 384)


def test_photographs_are_painted_in_buckets_as_they_are_learnt_and_drawn_people_in_squares():
    photographs = Buckets.of(SimpleNamespace(default_size=512, world_version=None))
    assert [photographs.nearest(*hw) for hw in ((1920, 1080), (720, 1280), (800, 800))] == [
        (640, 384), (384, 640), (512, 512),
    ]  # fmt: skip
    drawn = Buckets.of(SimpleNamespace(default_size=128, world_version=world.VERSION))
    assert drawn.nearest(1920, 1080) == (128, 128)
    person, picture = (0.45, 0.1, 0.55, 0.95), (720, 1280)
    tall = place_around(person, picture, photographs).size
    assert tall[0] > tall[1], "a standing person, whatever the picture"
    assert place_around(person, picture, drawn).size == (128, 128)


@pytest.mark.parametrize("size", [PORTRAIT, WIDE, (64, 64), (48, 160)])
@pytest.mark.parametrize("bucket", [64, 128])
def test_head_and_feet_stay_in_every_bucket(size, bucket):
    """Every pixel of the drawn person, hair and soles and hands, in every frame of the clip."""
    for seed in range(4):
        views = world.Scene.from_seed(seed).clip("dance", 12, 5, size)
        poses = [as_detected(view.pose) for view in views]
        place = place_around(person_box(poses), size, Buckets(bucket))
        left, top, right, bottom = place.source
        for view, pose in zip(views, poses, strict=True):
            assert not np.delete(view.mask, np.s_[left:right], 1).any(), (seed, place)
            assert not np.delete(view.mask, np.s_[top:bottom], 0).any(), (seed, place)
            joints = place.apply_to_pose(pose).joints[pose.scores > 0]
            assert joints.min() >= 0
            assert joints.max() <= 1


def test_nothing_is_stretched_or_cut():
    """A square mark stays square, and all joints are in, whatever the frame, the person and the bucket."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = (int(n) for n in rng.integers(150, 900, 2))
        x, y = np.sort(rng.random(2)), np.sort(rng.random(2))
        place = place_around((x[0], y[0], x[1], y[1]), (height, width), Buckets(int(rng.choice([128, 512]))))
        shown = np.array(place.box) * (width, height, width, height)
        person = np.array((x[0], y[0], x[1], y[1])) * (width, height, width, height)
        assert (shown[:2] <= person[:2] + 1).all(), "nothing of the person is cut"
        assert (shown[2:] >= person[2:] - 1).all()
        left, top, right, bottom = place.source
        side = min(right - left, bottom - top) // 2
        mark = np.zeros((height, width, 3), np.uint8)
        mark[top + side // 2 : top + side // 2 + side, left + side // 2 : left + side // 2 + side] = 255
        shown = place.apply(mark, 0)[..., 0] / 255
        tall, wide = shown.sum(0).max(), shown.sum(1).max()
        assert abs(tall - wide) <= max(1.5, 0.02 * tall), (place, tall, wide)


def test_a_person_in_a_wide_frame_fills_the_bucket():
    place = place_around((0.45, 0.1, 0.55, 0.95), (720, 1280), Buckets(512))
    assert place.target == (0, 0, place.size[1], place.size[0]), "no padding"
    assert place.size[0] > place.size[1]
    far = place_around((0.5, 0.5, 0.51, 0.52), (720, 1280), Buckets(512))
    assert far.source[3] - far.source[1] >= far.size[0] // 2, "a distant person is not blown up"


def test_a_person_outside_the_frame_is_no_crash():
    """Guessed joints beyond the edge: the frame itself is what can be shown."""
    for x, y in ((1.5, 0.5), (-0.5, -2.0), (0.5, 3.0)):
        joints = np.full((128, 2), (x, y), np.float32) + np.linspace(0, 0.3, 128, dtype=np.float32)[:, None]
        person = person_box([Pose(joints, np.ones(128, np.float32), PORTRAIT)])
        assert 0 <= min(person) <= max(person) <= 1
        place = place_around(person, PORTRAIT, Buckets(64))
        left, top, right, bottom = place.source
        assert 0 <= left < right <= PORTRAIT[1]
        assert 0 <= top < bottom <= PORTRAIT[0]


def test_padding_has_the_edge_s_colour(tiktok):
    layout, entries, truth = tiktok
    shot = all_shots(layout, entries, layout.clips, Buckets(64))[0]
    shot = replace(shot, placement=place_around((0.05, 0.02, 0.95, 0.98), PORTRAIT, Buckets(64)))
    outside = np.ones(shot.bucket, bool)
    left, top, right, bottom = shot.placement.target
    outside[top:bottom, left:right] = False
    assert outside.any()
    assert (shot.pictures([5])[0][outside] == border_colour(truth[shot.name][0][0])).all()


# ---- samples ----


@pytest.mark.parametrize("name", ["a.mp4", "a"])
def test_single_frames_are_those_of_the_whole_clip(tmp_path, name, no_detector):
    _, poses = lay(tmp_path, name, 1, num=40, size=WIDE)
    layout, entries = prepared(tmp_path, {name: poses})
    (shot,) = all_shots(layout, entries, layout.clips, Buckets(64))
    whole = [shot.placement.apply(frame, shot.border) for frame in media.open_clip(tmp_path / name)]
    frames = [39, 0, 17, 16, 17]
    assert all(np.array_equal(a, whole[t]) for a, t in zip(shot.pictures(frames), frames, strict=True))


def test_samples_are_the_truth_and_functions_of_their_index(tiktok):
    layout, entries, truth = tiktok
    shots = all_shots(layout, entries, layout.clips, Buckets(64))
    make = lambda: RealPictures(shots, 40, 3, (0.5, 0.5), group=2, gap=20)  # noqa: E731
    data, again = make(), make()
    again[11]
    for index in (7, 0, 23):
        sample, other = data[index], again[index]
        for x, y in zip(sample.__dict__.values(), other.__dict__.values(), strict=True):
            assert np.array_equal(x, y)
        shot = data.shot_of(index)
        images, poses = truth[shot.name]
        placed = [shot.placement.apply(image, shot.border) for image in images]
        drawn = [draw_pose(shot.placement.apply_to_pose(pose), shot.bucket) for pose in poses]
        numbers = []
        for pictures, drawings in (
            (sample.references, sample.reference_drawings), (sample.targets, sample.target_drawings)
        ):  # fmt: skip
            found = [[t for t in range(36) if np.array_equal(placed[t], picture)] for picture in pictures]
            assert all(len(one) == 1 for one in found), "each picture is one true frame"
            assert all(np.array_equal(drawn[t], d) for (t,), d in zip(found, drawings, strict=True))
            numbers.append([t for (t,) in found])
        assert min(abs(r - t) for r in numbers[0] for t in numbers[1]) >= 20
        assert len(set(numbers[1])) == 3
    assert not np.array_equal(data[0].targets, data[6].targets)


def test_heads_are_where_the_targets_show_them(tiktok):
    """Of real clips, in the bucket, for a loss that looks at them more."""
    layout, entries, truth = tiktok
    shots = all_shots(layout, entries, layout.clips, Buckets(64))
    assert RealPictures(shots, 8, 2, (1.0,), gap=20)[0].heads is None, "nobody asks for them"
    data = RealPictures(shots, 8, 2, (1.0,), gap=20, heads=True)
    for index in range(3):
        sample, shot = data[index], data.shot_of(index)
        images, poses = truth[shot.name]
        placed = [shot.placement.apply(image, shot.border) for image in images]
        for picture, head in zip(sample.targets, sample.heads, strict=True):
            (t,) = (t for t in range(36) if np.array_equal(placed[t], picture))
            assert np.array_equal(head, head_mask(shot.placement.apply_to_pose(poses[t]), shot.bucket))
            assert 0 < head.mean() < 0.2


def test_a_batch_has_one_bucket_and_one_number_of_references(tiktok):
    layout, entries, _ = tiktok
    shots = all_shots(layout, entries, layout.clips, Buckets(64))
    assert len({shot.bucket for shot in shots}) == 2
    data = RealPictures(shots, 400, 2, (0.5, 0.5), group=2, gap=20)
    blocks = [[data[2 * b], data[2 * b + 1]] for b in range(8)]
    assert all(a.references.shape == b.references.shape for a, b in blocks)
    assert {len(a.references) for a, _ in blocks} == {1, 2}
    num = len(data.blocks(0))
    for epoch in (0, 1):
        seen = {data.shot_of(i).name for i in range(2 * num * epoch, 2 * num * (epoch + 1))}
        assert seen == {shot.name for shot in shots}, "every shot once an epoch"
    assert [data.shot_of(i).name for i in range(20)] != [data.shot_of(i).name for i in range(20, 40)]


def test_frames_without_the_person_are_never_used(tmp_path, no_detector):
    _, poses = lay(tmp_path, "a", 1)
    gone = {0, 3, 4, 5, 20, 35}
    layout, entries = prepared(tmp_path, {"a": [None if t in gone else p for t, p in enumerate(poses)]})
    shots = all_shots(layout, entries, ["a"], Buckets(64))
    assert set(shots[0].usable.tolist()) == set(range(36)) - gone
    pictures = RealPictures(shots, 1, 4, (0.0, 0.0, 1.0), gap=12)
    clips = RealClips(shots, 1, 5, (0.0, 1.0), gap=3, strides=(1, 3))
    used, starts = set(), set()
    for seed in range(200):
        rng = np.random.default_rng(seed)
        references, targets = pictures.choose(shots[0], 3, rng)
        assert min(abs(r - t) for r in references for t in targets) >= 12
        used |= {*references, *targets}
        references, window = clips.choose(shots[0], 2, rng)
        steps = {b - a for a, b in pairwise(window)}
        assert steps in ({1}, {3})
        assert min(max(window[0] - r, r - window[-1]) for r in references) >= 3
        used |= {*references, *window}
        starts.add((window[0], *steps))
    assert used == set(range(36)) - gone
    windows = {(s, k): {s + i * k for i in range(5)} for k in (1, 3) for s in range(36)}
    assert starts == {w for w, frames in windows.items() if max(frames) < 36 and not frames & gone}


def test_strides_and_gaps_are_frames_of_30_a_second(tmp_path, no_detector):
    _, poses = lay(tmp_path, "a", 1, fps=15)
    layout, entries = prepared(tmp_path, {"a": poses})
    shots = all_shots(layout, entries, ["a"], Buckets(64))
    pictures = RealPictures(shots, 1, 3, gap=20)
    chosen = [pictures.choose(shots[0], 1, np.random.default_rng(seed)) for seed in range(200)]
    assert min(abs(r - t) for (r,), targets in chosen for t in targets) == 10
    assert num_pairs(shots[0], 20) == 2 * sum(range(1, 27)), "of 36 frames"
    assert RealPictures(shots, 1, gap=70).suits(shots[0]), "35 frames of 15 a second"
    with pytest.raises(UserError, match=r"2\.4 s apart in one shot; 1 are shorter"):
        RealPictures(shots, 1, gap=72)
    clips = RealClips(shots, 1, 4, gap=10, strides=(2,))
    chosen = [clips.choose(shots[0], 1, np.random.default_rng(seed)) for seed in range(200)]
    assert min(max(w[0] - r, r - w[-1]) for (r,), w in chosen) == 5
    data = RealClips(shots, 1, 4, strides=(4,))
    assert np.diff(data.windows(data.shots[0], 4)[0]).tolist() == [2, 2, 2]
    sample = data[0]
    assert sample.targets.shape[0] == 4


def test_a_cut_ends_a_shot_but_tiktok_s_clips_have_none(tmp_path, no_detector):
    frames = [*clip(1, 20)[0], *clip(4, 16)[0]]
    poses = [*clip(1, 20)[1], *clip(4, 16)[1]]
    for name in ("plain/a", "tiktok/00001/images"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        media.write_clip(tmp_path / name, frames, 30)
    layout, entries = prepared(tmp_path / "plain", {"a": poses})
    assert entries["a"].cuts == (20,)
    first, second = all_shots(layout, entries, ["a"], Buckets(64))
    assert (first.usable[0], first.usable[-1], second.usable[0], second.usable[-1]) == (0, 19, 20, 35)
    assert (first.name, second.name) == ("a", "a from frame 20 on")
    with pytest.raises(UserError, match=r"and a target 1 s apart in one shot; 2 are shorter"):
        RealPictures([first, second], 1)
    data = RealPictures([first, second], 1, 1, gap=18)
    assert data.left_out == ["a from frame 20 on"]
    layout, entries = prepared(tmp_path / "tiktok", {"00001/images": poses})
    assert len(all_shots(layout, entries, layout.clips, Buckets(64))) == 1


def test_open_real_says_what_is_missing(tmp_path, no_detector, caplog):
    _, poses = lay(tmp_path, "long", 1)
    lay(tmp_path, "short", 2, num=8)
    config = DataConfig(kind="folder", root=str(tmp_path), size=64, gap=20, augment=False)
    with pytest.raises(UserError, match=r"was not prepared yet; run scd data prepare"):
        open_real(config, 4)
    survey(find_clips(tmp_path))
    with pytest.raises(UserError, match=r"2 of 2 clips were not looked into yet, or not for poses; run scd"):
        open_real(config, 4)
    prepared(tmp_path, {"long": poses, "short": clip(2, 8)[1]})
    with caplog.at_level("WARNING", "scd"):
        data = open_real(config, 4)
    assert "1 too short, left out: short" in caplog.text
    assert data[3].targets.shape == (5, *data.shots[0].bucket, 3)
    with pytest.raises(UserError, match=r"no clip can train: .* 3.33 s apart in one shot; 2 are shorter"):
        open_real(replace(config, gap=100), 4)
    lay(tmp_path, "a-short-one", 2, num=8)
    lay(tmp_path, "other", 1)
    prepared(tmp_path, {"long": poses, "other": poses, "short": clip(2, 8)[1], "a-short-one": clip(2, 8)[1]})
    assert [shot.name for shot in open_real(config, 4, overfit=1).shots] == ["long"], "of what is long enough"
    assert len(open_real(config, 4, overfit=9).shots) == 2
    moving = open_real(replace(config, frames=6, strides=(2,)), 4)
    assert moving[0].targets.shape == (6, *data.shots[0].bucket, 3)


# ---- check and preview ----


def test_the_report_s_figures_are_the_truth(tmp_path, no_detector):
    _, a = lay(tmp_path, "a.mp4", 1, num=100)
    _, b = lay(tmp_path, "b", 2, num=36, size=WIDE, fps=15)
    lay(tmp_path, "copy", 2, num=36, size=WIDE, fps=15)
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    a = [None if t < 5 else pose for t, pose in enumerate(a)]
    layout = find_clips(tmp_path)
    report = check(layout, survey(layout), 64)
    assert report.figures["without_poses"] == 3
    assert report.figures["training_pairs"] is None
    for name, poses in (("a.mp4", a), ("b", b), ("copy", b)):
        know_poses(layout, name, poses)
    report = check(layout, find_all_poses(layout, survey(layout)), 64)
    pairs = sum(abs(r - t) >= 30 for r in range(5, 100) for t in range(5, 100)) + 2 * sum(
        abs(r - t) >= 15
        for r in range(36)
        for t in range(36)  # at 15 a second
    )
    windows = sum(s + 23 * 4 < 100 for s in range(5, 100))
    assert report.figures == {
        "layout": "folder", "clips": 4, "held_out": 0, "unusable": 1, "missing": 0, "broken": 1,
        "without_person": 0, "copies": 1, "small": 0, "frames": 172,
        "seconds": round(100 / 30 + 72 / 15, 2), "durations": [2.4, 2.4, 3.33],
        "sizes": {"96x54": 2, "44x80": 1},
        "rates": {"15": 2, "30": 1},
        "without_poses": 0, "frames_without_person": 5, "shots": 3,
        "buckets": report.figures["buckets"], "training_pairs": pairs, "training_windows": windows,
    }  # fmt: skip
    assert sum(report.figures["buckets"].values()) == 3
    hint = "use mp4, mov, webm, GIF or a folder of pictures"
    assert report.problems == [
        f"broken.mp4: is not a video that can be read: {hint}", "copy: shows the same as b"
    ]  # fmt: skip
    assert report.verdict == ""


def test_videos_that_a_layout_does_not_take_are_said(tmp_path, no_detector):
    for name in ("train/a.mp4", "test/b.mp4", "val/c.mp4"):
        (tmp_path / name).parent.mkdir()
        lay(tmp_path, name, 1, num=4)
    layout = find_clips(tmp_path)
    (line,) = [one for one in check(layout, survey(layout), 64).problems if "none of" in one]
    takes_all = f"scd data prepare folder {tmp_path} takes all"
    assert line == f"1 videos are none of ubc's layout (val/c.mp4): {takes_all}"
    (tmp_path / "val" / "c.mp4").unlink()
    assert not [one for one in check(layout, survey(layout), 64).problems if "none of" in one]


def test_what_cannot_train_is_said(tmp_path, no_detector):
    _, poses = lay(tmp_path, "short", 1, num=8)
    layout, entries = prepared(tmp_path, {"short": poses})
    report = check(layout, entries, 512)
    assert report.verdict == "no clip shows the person in two frames 1 s apart"
    assert report.problems == ["short: too short, no two frames with the person 1 s apart"]
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.mp4").write_bytes(b"nothing")
    layout = find_clips(broken)
    assert check(layout, survey(layout), 64).verdict == "none of its clips can be read"


def test_num_pairs_counts_what_choose_can_choose(tiktok):
    layout, entries, _ = tiktok
    shot = all_shots(layout, entries, layout.clips, Buckets(64))[0]
    data = RealPictures([shot], 1, 1, gap=33)
    chosen = {
        (references[0], targets[0])
        for seed in range(200)
        for references, targets in [data.choose(shot, 1, np.random.default_rng(seed))]
    }
    assert len(chosen) == num_pairs(shot, 33) == 12


def test_references_are_frames_of_their_own(tiktok):
    """The same frame twice would only weigh more; where there is but one to choose, it comes twice."""
    layout, entries, _ = tiktok
    shot = all_shots(layout, entries, layout.clips, Buckets(64))[0]
    data = RealPictures([shot], 1, 1, gap=20)
    drawn = [data.choose(shot, 2, np.random.default_rng(seed))[0] for seed in range(100)]
    assert all(first != second for first, second in drawn)
    data = RealPictures([replace(shot, usable=np.array([0, 35]))], 1, 1, gap=30)
    assert {tuple(data.choose(data.shots[0], 2, np.random.default_rng(s))[0]) for s in range(20)} == {
        (0, 0),
        (35, 35),
    }


def test_the_preview_shows_what_training_sees(tiktok):
    layout, entries, _ = tiktok
    config = DataConfig(kind="tiktok", size=64)
    sheet = preview(layout, entries, config, 8)
    first = RealPictures(all_shots(layout, entries, layout.clips, Buckets(64)), 0, 1)
    sample = first.sample(first.shots[0], 1, np.random.default_rng([0, 0]))
    height, width = first.shots[0].bucket
    cells = [sample.references, sample.reference_drawings, sample.targets, sample.target_drawings]
    for column, (cell,) in enumerate(cells):
        left = 4 + column * (width + 4)
        assert np.array_equal(sheet[32 : 32 + height, left : left + width], cell), column
    assert sheet.shape[0] == 14 + 3 * (height + 18) + 4
    assert not np.array_equal(sample.target_drawings[0], draw_pose(empty_pose((height, width))))
