"""Held-out clips of a dataset measured: the world's clips, laid out as UBCFashion's, with known poses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_pipeline
from test_data import clip, know_poses, lay
from test_data import no_detector as no_detector

from scd import evaluate_held_out as held_out
from scd import media
from scd.data import prepare
from scd.data.buckets import Buckets
from scd.data.layouts import find_clips
from scd.metrics import distribution as distribution_module
from scd.metrics.distribution import frechet_distance
from scd.metrics.image import psnr
from scd.types import UserError

pytestmark = pytest.mark.usefixtures("one_thread", "no_detector")
SIZE, FRAMES = 64, 12
CEILING = 10 * np.log10(255**2 * 12)  # of scd.metrics.image.psnr: a perfect picture
HELD_OUT = ("test/b.mp4", "test/c.mp4")


def lay_out(root: Path, num: int = FRAMES, absent: tuple[int, ...] = ()) -> Path:
    """A clip of `num` frames to train with and two held out, prepared; `absent`: frames of the first of these
    without a pose."""
    for seed, name in enumerate(("train/a.mp4", *HELD_OUT), 1):
        _, poses = lay(root, name, seed, num=num)
        gone = absent if name == HELD_OUT[0] else ()
        poses = [None if t in gone else pose for t, pose in enumerate(poses)]
        know_poses(find_clips(root, "ubc"), name, poses)
    layout = find_clips(root)
    prepare.find_all_poses(layout, prepare.survey(layout))
    return root


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "get_detector", lambda name: None)
        return lay_out(tmp_path_factory.mktemp("ubc") / "data")


@pytest.fixture(scope="module")
def pipe():
    return make_pipeline()


@pytest.fixture
def painter(monkeypatch):
    """Called with a function of a case, what is painted is what it returns."""

    def use(paint, read=held_out.read_clip):
        cases = []

        def remember(*arguments):
            cases.append(read(*arguments))
            return cases[-1]

        def painted(pipe, reference, poses, seed):
            use.seeds.append(seed)
            return iter(paint(cases[-1]))

        use.seeds = []
        monkeypatch.setattr(held_out, "read_clip", remember)
        monkeypatch.setattr(held_out, "paint_frames", painted)
        return cases

    return use


@pytest.fixture
def no_mediapipe(monkeypatch):
    def absent(name="mediapipe"):
        raise UserError("not installed")

    monkeypatch.setattr("scd.pose.detect.get_detector", absent)


def shots_in(root, limit=None):
    layout = find_clips(root)
    return held_out.longest_shots(layout, held_out.held_out_clips(layout, limit), Buckets(SIZE))


def test_a_perfect_painter_and_one_that_copies_the_reference(written, pipe, painter):
    painter(lambda case: case.clip.frames)
    numbers = held_out.evaluate_held_out(pipe, shots_in(written))
    assert (numbers["num_clips"], numbers["num_frames"], numbers["num_broken"]) == (2, 2 * (FRAMES - 1), 0)
    perfect = {"psnr": CEILING, "person_psnr": CEILING, "ssim": 1, "l1": 0}
    perfect |= {"detail": 1, "jitter": 0, "motion": 1}
    assert {name: numbers[name] for name in perfect} == pytest.approx(perfect)
    assert numbers["person_psnr_copy"] < numbers["psnr_copy"] < CEILING, "what moves is the person"
    copied = painter(lambda case: np.broadcast_to(case.clip.reference, case.clip.frames.shape))
    still = held_out.evaluate_held_out(pipe, shots_in(written))
    assert still["psnr"] == still["psnr_copy"] == numbers["psnr_copy"]
    assert still["person_psnr"] == still["person_psnr_copy"]
    assert still["motion"] == 0
    changes = [np.abs(np.diff(case.clip.frames.astype(float), axis=0)).mean(-1) for case in copied]
    there = [case.clip.masks[1:] | case.clip.masks[:-1] for case in copied]
    own = np.mean([change[mask].mean() for change, mask in zip(changes, there, strict=True)])
    assert still["jitter"] == pytest.approx(own), "a still picture's jitter is the truth's motion"


def test_poses_are_looked_for_in_some_frames_of_each_clip(written, pipe, painter):
    class Detector:
        def __init__(self, poses):
            self.poses, self.calls = poses, 0

        def detect(self, image):
            self.calls += 1
            return self.poses

    pose = held_out.read_clip(shots_in(written)[0]).clip.poses[0]
    guess = replace(pose, scores=np.where(np.arange(len(pose.scores)) == 3, np.float32(0.05), pose.scores))
    assert held_out._seen(guess).scores[3] == 0
    painter(lambda case: case.clip.frames)
    shots = shots_in(written)
    everybody = [pose for shot in shots for pose in held_out.read_clip(shot).clip.poses]
    for detector, expected in ((Detector(everybody), 1), (Detector([]), 0)):
        numbers = held_out.evaluate_held_out(pipe, shots, detector=detector)
        assert (numbers["pck"], numbers["pck_truth"]) == (expected, expected)
        assert detector.calls == 2 * 2 * held_out.LOOKED_AT, "painted and true frames of two clips"


def test_the_first_frame_is_the_reference_and_its_pose_drives_nothing(written):
    shot = shots_in(written)[0]
    case = held_out.read_clip(shot)
    frames, poses = clip(2, num=FRAMES)
    place = shot.placement
    assert np.abs(case.clip.reference - place.apply(frames[0], shot.border).astype(float)).mean() < 6, "H.264"
    assert len(case.clip.poses) == len(case.clip.frames) == FRAMES - 1
    np.testing.assert_allclose(case.clip.poses[0].joints, place.apply_to_pose(poses[1]).joints, atol=1e-2)
    every = held_out.read_clip(shot, stride=3, most=2)
    np.testing.assert_array_equal(every.clip.frames, case.clip.frames[[2, 5]])
    assert every.clip.poses.fps == 10
    with pytest.raises(
        UserError, match=r"test/b.mp4: has 1 frames after the first at --stride 8; two are needed"
    ):
        held_out.read_clip(shot, stride=8)


def test_the_person_s_box_holds_the_drawn_person(written):
    """Hair and soles too: the masks of the world say where a person is."""
    from scd import world

    shot = shots_in(written)[0]
    views = list(world.Scene.from_seed(2).clip("dance", FRAMES, 30, (80, 44)))
    masks = held_out.read_clip(shot).clip.masks
    for view, box in zip(views[1:], masks, strict=True):
        person = shot.placement.apply(view.mask.astype(np.uint8) * 255, 0) > 127
        assert (person & box).sum() >= 0.99 * person.sum()
    assert 0.05 < masks.mean() < 0.8


def test_padding_is_neither_measured_nor_written(written, pipe, painter, tmp_path, monkeypatch):
    """A bucket as wide as high around a clip twice as high as wide."""
    (shot,) = shots_in(written, limit=1)
    padded = replace(shot, placement=media.place(shot.placement.source_size, (64, 64)))

    def black_around(case):
        frames = np.zeros_like(case.clip.frames)
        for frame, truth in zip(frames, case.clip.frames, strict=True):
            case.shown(frame)[:] = case.shown(truth)
        return frames

    monkeypatch.setattr(held_out, "MARGIN", 0.5)  # the person's box reaches into the padding
    painter(black_around)
    numbers = held_out.evaluate_held_out(pipe, [padded], out=tmp_path / "out")
    assert numbers["psnr"] == pytest.approx(CEILING)
    assert numbers["person_psnr"] == pytest.approx(CEILING)
    left, top, right, bottom = padded.placement.target
    assert (right - left, bottom - top) == (35, 64)
    for part in ("painted", "truth"):
        (folder,) = (tmp_path / "out" / part).iterdir()
        assert folder.name == "test_b"
        first = media.read_image(folder / "000000.png")
        np.testing.assert_array_equal(
            first, padded.placement.shown(held_out.read_clip(padded).clip.frames[0])
        )
        assert first.shape == (64, 35, 3)


def test_a_clip_that_cannot_be_used_is_named_counted_and_changes_no_other(tmp_path, pipe, painter, caplog):
    """Nobody for a whole second, in the first of two clips."""
    root = lay_out(tmp_path / "data", 36, absent=tuple(range(3, 33)))
    painter(lambda case: np.broadcast_to(case.clip.reference, case.clip.frames.shape))
    shots = shots_in(root)
    caplog.set_level("WARNING", "scd")
    numbers = held_out.evaluate_held_out(pipe, shots)
    assert (numbers["num_clips"], numbers["num_broken"]) == (1, 1)
    assert "left out: no person found in frames 3-32 of test/b.mp4" in caplog.text
    alone = held_out.evaluate_held_out(pipe, shots[1:])
    assert painter.seeds[0] == painter.seeds[1], "the noise of a clip does not depend on the others"
    held_out.evaluate_held_out(pipe, shots[1:], seed=1)
    held_out.evaluate_held_out(pipe, [replace(shots[1], clip="test/d.mp4")])
    assert len(set(painter.seeds)) == 3, "but on the seed and on its name"
    assert alone["psnr"] == numbers["psnr"]
    with pytest.raises(UserError, match="none of 1 clips could be read"):
        held_out.evaluate_held_out(pipe, shots[:1])
    assert held_out.evaluate_held_out(pipe, shots, most=2)["num_clips"] == 2, (
        "the gap comes after both frames"
    )


def test_clips_that_are_broken_or_show_nobody_are_named_and_counted(tmp_path, scd, model, no_mediapipe):
    root = lay_out(tmp_path / "data", absent=tuple(range(FRAMES)))
    layout = find_clips(root)
    assert [shot.clip for shot in held_out.longest_shots(layout, HELD_OUT, Buckets(SIZE))] == ["test/c.mp4"]
    command = ("evaluate", "ubc", root, "--model", model, "--steps", 1, "--frames", 2)
    code, out, err = scd(*command)
    assert code == 0, err
    assert "scd: left out: test/b.mp4: " in err
    result = json.loads(out.splitlines()[-1])
    assert (result["num_clips"], result["num_broken"]) == (1, 1)
    code, out, err = scd(*command, "--limit", 1)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == f"scd: {root}: none of 1 held-out clips can be used; see the lines above"


def test_frames_that_show_no_joint_are_not_judged_by_the_person(written, pipe, painter):
    """A detector's guess beside the picture, and a clip that stands still: no number is NaN."""
    shot = shots_in(written)[0]
    case = held_out.read_clip(shot)
    frames, masks = case.clip.frames, case.clip.masks.copy()
    masks[3] = False
    wrong = frames.copy()
    wrong[3] = 255 - wrong[3]
    numbers = held_out.measure(pipe, replace(case, clip=replace(case.clip, masks=masks)), wrong)
    assert numbers["person_psnr"] == pytest.approx(CEILING)
    assert numbers["psnr"] < CEILING
    still = replace(case.clip, frames=np.broadcast_to(case.clip.reference, frames.shape))
    numbers = held_out.measure(pipe, replace(case, clip=still), still.frames)
    assert "motion" not in numbers
    flash = case.clip.frames.copy()
    flash[4] = 0
    numbers |= held_out.measure(pipe, replace(case, clip=replace(case.clip, frames=flash)), flash)
    assert numbers["detail"] == pytest.approx(1), "over the other frames"
    plain = replace(case.clip, frames=np.zeros_like(flash))
    assert "detail" not in held_out.measure(pipe, replace(case, clip=plain), plain.frames)
    assert np.isfinite(list(numbers.values())).all()


def test_lpips_and_distributions_see_painted_and_true_frames(written, pipe, painter):
    class Remembering:
        def __init__(self):
            self.seen = {True: [], False: []}

        def add(self, picture, real):
            self.seen[real].append(picture.mean())

        def numbers(self):
            return {"fid": 1.0, "kid": 2.0}

    class RememberingClips(Remembering):
        def numbers(self):
            return {"fvd": 3.0, "num_windows": 4}

    painter(lambda case: np.zeros_like(case.clip.frames))
    distribution, video, pairs = Remembering(), RememberingClips(), []

    def lpips(result, truth):
        pairs.append((result.max(), truth.max() > 0, result.shape == truth.shape))
        return 0.25

    shots = shots_in(written)
    numbers = held_out.evaluate_held_out(pipe, shots, lpips=lpips, distribution=distribution, video=video)
    assert (numbers["lpips"], numbers["fid"], numbers["kid"]) == (0.25, 1, 2)
    assert (numbers["fvd"], numbers["num_windows"]) == (3, 4)
    assert video.seen[False] == [0, 0]
    shown = len(distribution.seen[True]) // 2
    by_clip = np.reshape(distribution.seen[True], (2, shown)).mean(1)
    assert np.allclose(video.seen[True], by_clip), "of a clip all frames at once, without padding"
    assert set(pairs) == {(0, True, True)}
    assert set(distribution.seen[False]) == {0}
    assert min(distribution.seen[True]) > 0
    assert len(pairs) == len(distribution.seen[True]) == len(distribution.seen[False]) == 2 * (FRAMES - 1)


def test_folders_of_frames_have_names_of_their_own(written):
    first, second = shots_in(written)
    folder = replace(second, clip="some.frames", path=written)
    assert held_out.names_of([replace(first, clip="a/dance.v2.mp4"), folder]) == ["a_dance_v2", "some_frames"]
    odd = [replace(first, clip=name) for name in ("../videos/a.mp4", "/data/b.mp4", "a.mp4", "a/b.mp4")]
    assert held_out.names_of(odd) == ["videos_a", "data_b", "a", "a_b"]
    assert held_out.names_of([replace(folder, clip=".")]) == ["clip"]
    with pytest.raises(UserError, match="2 clips would be written as a_b: leave --out out, or rename one"):
        held_out.names_of([replace(first, clip="a/b.mp4"), replace(second, clip="a/b.mov")])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_pipeline().save_pretrained(folder)
    return folder


def test_the_command_measures_what_it_wrote(scd, written, model, tmp_path, no_mediapipe):
    command = ["evaluate", "ubc", written, "--model", model, "--steps", 1, "--frames", 3, "--stride", 2]
    code, out, err = scd(*command, "--out", tmp_path / "out", "--limit", 1)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert {
        "data": "ubc", "root": str(written), "limit": 1, "frames": 3, "stride": 2, "size": 64, "num_clips": 1,
        "num_frames": 3, "num_broken": 0, "lpips": None, "lpips_of": None, "fid": None, "fid_of": None,
        "pck": None, "num_steps": 1, "guidance": 2.0, "scheduler": "DDIMScheduler", "dtype": "float32",
        "seed": 0, "model": str(model), "ssim_of": "torchmetrics, RGB, data range 1, Gaussian window 11",
    }.items() <= result.items()  # fmt: skip
    assert "licence:" in out
    assert (result["fvd"], result["num_windows"], result["fvd_of"]) == (None, None, None)
    assert "fid and kid are left out" in err
    assert "fvd is left out: --i3d names no weights (i3d_torchscript.pt)" in err
    assert "pck is left out: not installed" in err
    case = held_out.read_clip(shots_in(written)[0], 2, 3)
    frames = [media.read_image(p) for p in sorted((tmp_path / "out/painted/test_b").glob("*.png"))]
    by_hand = np.mean([psnr(y, case.shown(x)) for y, x in zip(frames, case.clip.frames, strict=True)])
    assert result["psnr"] == pytest.approx(by_hand)
    assert "exists already" in scd(*command, "--out", tmp_path / "out", "--limit", 1)[2]


def test_fvd_with_a_network_on_disk(scd, written, model, tmp_path, no_mediapipe, monkeypatch):
    monkeypatch.setattr(distribution_module, "WINDOW", 4)
    torch.jit.save(torch.jit.script(MeanColors()), tmp_path / "i3d.pt")
    command = ["evaluate", "ubc", written, "--model", model, "--steps", 1, "--frames", 6]
    code, out, err = scd(*command, "--i3d", tmp_path / "i3d.pt", "--out", tmp_path / "out")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["num_windows"] == 2 * 3, "two clips of six frames"
    assert result["fvd_of"].startswith("StyleGAN-V's I3D")
    rows = {}
    for part in ("painted", "truth"):
        clips = [sorted((tmp_path / "out" / part / name).glob("*.png")) for name in ("test_b", "test_c")]
        means = [[media.read_image(p).mean((0, 1)) / 127.5 - 1 for p in clip] for clip in clips]
        rows[part] = np.array([np.ravel(clip[t : t + 4], "F") for clip in means for t in range(3)])
    assert result["fvd"] == pytest.approx(frechet_distance(rows["painted"], rows["truth"]), rel=1e-3)


class MeanColors(torch.nn.Module):
    """Called as StyleGAN-V's I3D is; the mean color of every frame."""

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        assert return_features
        assert not rescale
        assert not resize
        return x.mean((3, 4)).flatten(1)


def test_wrong_words_are_one_line(scd, written, model, tmp_path):
    def said(*arguments):
        code, out, err = scd("evaluate", "ubc", *arguments, "--model", model)
        assert (code, out) == (2, "")
        assert "Traceback" not in err
        return err.splitlines()[-1]

    assert "--frames 1: 2 at least" in said(written, "--frames", 1)
    assert "--stride 0: 1 at least" in said(written, "--stride", 0)
    manifest = written / "scd.jsonl"
    told = scd("evaluate", "tiktok", manifest, "--model", model)[2]
    assert told == f"scd: {manifest}: lists ubc; scd evaluate ubc {manifest}\n"
    assert "not UBCFashion's layout" in said(tmp_path)
    fresh = Path(shutil.copytree(written, tmp_path / "fresh"))
    shutil.rmtree(fresh / "test")
    assert "none of its 1 clips is held out" in said(fresh)
    lay(tmp_path / "new", "train/a.mp4", 1, num=FRAMES)
    lay(tmp_path / "new", "test/b.mp4", 2, num=FRAMES)
    assert f"was not prepared yet; run scd data prepare {tmp_path / 'new'}" in said(tmp_path / "new")


def test_a_model_of_drawn_people_is_measured_in_its_square(written):
    layout = find_clips(written)
    for square, bucket in ((True, (64, 64)), (False, (80, 48))):
        shots = held_out.longest_shots(layout, HELD_OUT, Buckets(SIZE, square))
        assert {shot.bucket for shot in shots} == {bucket}
