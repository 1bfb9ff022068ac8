"""`scd world --layout`: the world on a disk as the public datasets lie there."""

import numpy as np
import pytest

from scd import media, world
from scd.data.augment import as_detected
from scd.data.find import find_dataset
from scd.data.fitting import read_fitting
from scd.data.layouts import find_clips
from scd.data.tryon import find_pairs
from scd.data.world import FIRST_HELD_OUT_SEED, FIRST_TRAINING_SEED
from scd.data.world_tryon import facing
from scd.data.write_viton_hd import FRONTAL
from scd.types import BODY
from scd.world import LABELS
from scd.world.motion import CLIPS

pytestmark = pytest.mark.usefixtures("one_thread")


def first_frame(seed, size=32, num=2):
    return world.Scene.from_seed(seed).clip(CLIPS[seed % len(CLIPS)], num, 30, size)[0]


def test_tiktok_s_last_tenth_is_of_held_out_seeds(scd, tmp_path):
    out = tmp_path / "t"
    code, said, _ = scd("world", out, "--layout", "tiktok", "--num", 10, "--frames", 2, "--size", 32)
    assert (code, said) == (0, f"{out}: 9 clips to train with, 1 to test with\n")
    layout = find_dataset(out)
    assert (layout.kind, len(layout.clips), layout.held_out) == ("tiktok", 10, {"00010/images"})
    for clip, seed in ((layout.clips[0], FIRST_TRAINING_SEED), ("00010/images", FIRST_HELD_OUT_SEED)):
        view = first_frame(seed)
        assert np.array_equal(media.read_image(out / clip / "0001.png"), view.image)
        mask = media.read_image(out / clip.replace("images", "masks") / "0001.png")[..., 0]
        assert np.array_equal(mask > 0, view.mask)
    assert media.open_clip(out / layout.clips[3]).num_frames == 2


def test_ubc_s_test_clips_are_of_held_out_seeds(scd, tmp_path):
    out = tmp_path / "u"
    options = ("--layout", "ubc", "--num", 2, "--test", 1, "--frames", 3, "--size", 96)
    assert scd("world", out, *options)[0] == 0
    layout = find_clips(out, "ubc")
    assert layout.clips == ("train/01000000.mp4", "train/01000001.mp4", "test/00010000.mp4")
    for clip, seed in ((layout.clips[1], FIRST_TRAINING_SEED + 1), (layout.clips[2], FIRST_HELD_OUT_SEED)):
        reader = media.open_clip(out / clip)
        assert (reader.num_frames, reader.fps) == (3, 30)
        difference = next(iter(reader)).astype(int) - first_frame(seed, 96, 3).image
        assert np.abs(difference).mean() < 8, "but for the video's losses"


def test_dress_code_knows_the_result_of_every_unpaired_pair(scd, tmp_path):
    out = tmp_path / "d"
    code, said, _ = scd("world", out, "--layout", "dresscode", "--num", 1, "--test", 2, "--size", 64)
    assert (code, said) == (0, f"{out}: 1 people in each category to train with, 2 to test with\n")
    layout = find_pairs(out)
    assert (layout.kind, layout.problems, layout.note) == ("dresscode", (), "")
    assert [len(part) for part in (layout.training, layout.paired, layout.unpaired)] == [3, 6, 6]
    views, garments = {}, {}
    for pair in (*layout.training, *layout.paired):
        seed = int(pair.person.stem[:-2])
        assert (seed >= FIRST_TRAINING_SEED) == (pair in layout.training)
        scene = world.Scene.from_seed(seed)
        view = views[pair.name] = scene.view(facing(scene, 1, FRONTAL)[0], 64)
        (own,) = (g for g in view.outfit.garments if g.kind == pair.category)
        garments[pair.category, pair.garment.stem] = own
        fitting = read_fitting(pair, (64, 64))
        pose = as_detected(view.pose)
        there = pose.scores[BODY] > 0
        np.testing.assert_allclose(fitting.pose.joints[BODY][there], pose.joints[BODY][there], atol=1e-4)
        assert np.abs(fitting.person.astype(int) - view.image).mean() < 6  # JPEG
        assert fitting.region[view.labels == LABELS.index(pair.category)].all()
    for pair in layout.unpaired:
        truth = views[pair.name].dressed(garments[pair.category, pair.garment.stem])
        assert pair.garment.stem[:-2] != pair.person.stem[:-2]
        np.testing.assert_array_equal(media.read_image(pair.truth), truth.image)
        np.testing.assert_array_equal(media.read_image(pair.labels)[..., 0], truth.labels)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--layout", "ubc", "--num", 0), "--num 0: 1 at least"),
        (("--layout", "dresscode", "--test", 1), "to test with none, or of people 2 and more"),
        (("--layout", "tiktok", "--frames", 0), "--frames 0: 1 at least"),
        (("--layout", "vitonhdd"), "invalid choice"),
    ],
)
def test_layouts_that_cannot_be_written_are_one_line(scd, tmp_path, options, text):
    code, _, err = scd("world", tmp_path / "x", *options)
    assert (code, len(err.splitlines())) == (2, 1)
    assert text in err
    assert not any(tmp_path.iterdir())
