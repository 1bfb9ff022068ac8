"""`scd animate PHOTO DRIVING`: a clip comes out with the driver's rate, length and sound, and goes on where
it was cut off; what a user gets wrong is one line."""

import contextlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_picture, make_pipeline, make_pose
from PIL import Image
from safetensors.torch import load_file, save_file
from test_cli import complaint
from test_lora import write as write_lora
from test_video import _heard, _sound

from scd import checkpoint, media, model, world
from scd.animate import num_steps, paint_drive, paint_frames, read_subject
from scd.backbones.motion import new_motion_adapter, temporal_layers
from scd.cli.clip_job import is_clip
from scd.config import PRESETS, replace
from scd.media.files import PICTURES
from scd.pipeline import SCDPipeline
from scd.pose import detect
from scd.pose.alignment import alignment
from scd.pose.files import read_poses, write_poses
from scd.types import BODY, PoseClip, UserError

pytestmark = pytest.mark.usefixtures("one_thread")
FRAMES, FPS = 9, 12.5


class FakeDetector:
    """Finds the same person in every picture, and counts."""

    def __init__(self, pose):
        self.pose, self.calls = pose, 0

    def detect(self, image):
        self.calls += 1
        return [replace(self.pose, size=image.shape[:2])]


@pytest.fixture(scope="module")
def views():
    return list(world.Scene.from_seed(5).clip("dance", FRAMES, FPS, 96))


@pytest.fixture(scope="module")
def person():
    return world.Scene.from_seed(3).view(0, size=96)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A picture model, and the same with motion modules that do something."""
    folder = tmp_path_factory.mktemp("models")
    pipe = model.build(PRESETS["world-tiny"])
    torch.manual_seed(0)
    torch.nn.init.normal_(pipe.pose_encoder.conv_out.weight)
    checkpoint.export(pipe, folder / "pictures")
    adapter = new_motion_adapter(pipe.unet, 2)
    for layer in temporal_layers(adapter):
        torch.nn.init.normal_(layer.proj_out.weight, std=0.1)
    checkpoint.export(SCDPipeline.from_pipe(pipe, motion_adapter=adapter), folder / "clips")
    return folder


@pytest.fixture
def detector(monkeypatch, person):
    fake = FakeDetector(person.pose)
    monkeypatch.setattr("scd.pose.detect.get_detector", lambda name="mediapipe": fake)
    return fake


@pytest.fixture
def folder(tmp_path, monkeypatch, views, person):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCD_CACHE", str(tmp_path / "cache"))
    media.write_image("me.png", person.image)
    media.write_clip("dance.mp4", (v.image for v in views), FPS)
    write_poses("poses.npz", [[v.pose] for v in views], FPS)
    return tmp_path


@pytest.fixture
def animate(scd, models, folder, detector):
    def run(*arguments, model="clips"):
        options = ("--model", models / model, "--steps", 3, "--device", "cpu")
        return scd("animate", "me.png", *arguments, *options)

    return run


def frames_of(path):
    return np.stack(list(media.open_clip(path)))


def test_a_clip_with_the_drivers_rate_and_length(animate):
    code, out, err = animate("dance.mp4", "-o", "out.mp4", "--sheet")
    assert code == 0, err
    assert out.splitlines() == [f"out.mp4: {FRAMES} frames, {FRAMES / FPS:.2f} s", "out-sheet.png"]
    clip = media.open_clip("out.mp4")
    assert (clip.num_frames, clip.fps, clip.size) == (FRAMES, FPS, (32, 32))
    record = media.read_settings("out.mp4")
    assert record["kind"] == "animate-clip"
    assert record["frames"] == FRAMES
    assert record["inputs"]["driving"]["path"] == "dance.mp4"
    assert media.read_image("out-sheet.png").shape[0] > 2 * 256, "small results are enlarged"
    assert not list(Path().glob("*.work")), "what was done so far is cleared away"


def test_the_drivers_sound_goes_with_the_clip(animate, folder):
    """From where the clip starts; not with --mute. Beeps lie at whole seconds."""
    _sound(folder / "loud.mp4", "aac", seconds=2, video="libx264")
    part = ("--start", 0.75, "--max-frames", 12)  # half a second, of 24 frames a second
    code, _, err = animate("loud.mp4", "-o", "out.mp4", *part)
    assert code == 0, err
    _, end, beeps = _heard(Path("out.mp4"))
    assert beeps == pytest.approx([0.25], abs=0.015)
    assert end == pytest.approx(0.5, abs=1 / 24)
    assert animate("loud.mp4", "-o", "mute.mp4", *part, "--mute")[0] == 0
    assert not media.open_clip("mute.mp4").has_audio
    assert media.open_clip("mute.mp4").num_frames == 12


def test_what_is_no_number_is_not_painted(animate, models, folder):
    """Half precision may overflow; a black picture says nothing."""
    for name in ("pictures", "clips"):
        broken = Path(shutil.copytree(models / name, folder / name))
        file = broken / "unet/diffusion_pytorch_model.safetensors"
        weights = load_file(file)
        weights["conv_out.bias"] = weights["conv_out.bias"] * float("nan")
        save_file(weights, file, {"format": "pt"})
    for out, name in (("a.png", "pictures"), ("a.mp4", "clips"), ("b.mp4", "pictures")):
        driver = "me.png" if out.endswith("png") else "dance.mp4"
        code, _, err = animate(driver, "-o", out, model=folder / name)
        assert code == 2
        assert "is not a number in torch.float32: use --dtype float32 or bfloat16" in err.splitlines()[-1]
        assert not Path(out).exists()


def test_a_default_name_and_no_overwriting(animate, folder):
    assert animate("dance.mp4")[0] == 0
    assert (folder / "out" / "me_dance.mp4").is_file()
    assert "exists already" in complaint(animate("dance.mp4"))


def test_part_of_the_driver(animate):
    assert animate("dance.mp4", "-o", "out.gif", "--start", 0.16, "--max-frames", 4)[0] == 0
    assert media.open_clip("out.gif").num_frames == 4
    Image.fromarray(frames_of("out.gif")[0]).save("one.gif")
    assert animate("one.gif", "-o", "one.mp4")[0] == 0, "a video of one frame, since a video is asked for"
    assert media.open_clip("one.mp4").num_frames == 1
    assert "--start 9: choose" in complaint(animate("dance.mp4", "-o", "b.mp4", "--start", 9))


def test_poses_are_found_once(animate, detector):
    animate("dance.mp4", "-o", "a.mp4")
    first = detector.calls
    animate("dance.mp4", "-o", "b.mp4", "--seed", 1)
    assert detector.calls == first + 1, "the reference again, the clip from the disk"
    assert not np.array_equal(frames_of("a.mp4"), frames_of("b.mp4"))


def test_whom_largest_took_is_said_every_time(animate, detector, monkeypatch):
    """Also when the poses come from the disk."""
    small = replace(detector.pose, joints=detector.pose.joints * 0.4)

    def two(image):
        size = image.shape[:2]
        return [replace(small, size=size), replace(detector.pose, size=size)]

    monkeypatch.setattr(detector, "detect", two)
    for name in ("a.mp4", "b.mp4"):
        code, _, err = animate("dance.mp4", "-o", name)
        assert code == 0, err
        assert err.count("2 people in frame 0 of dance.mp4: the largest, number 2 from the left") == 1


def test_a_pose_file_drives_a_clip_or_pictures(animate, folder):
    assert animate("poses.npz", "-o", "out.mp4")[0] == 0
    assert media.open_clip("out.mp4").fps == FPS
    code, out, _ = animate("poses.npz", "-o", "out.png")
    assert code == 0
    assert len(out.splitlines()) == FRAMES


def test_several_poses_of_a_file_become_what_the_name_says(animate, folder, views):
    """A new folder and .webp can be a clip; a folder that is there is one to put pictures into."""
    assert animate("poses.npz", "-o", "new")[0] == 0
    assert frames_of("new").shape[0] == FRAMES
    assert animate("poses.npz", "-o", "new", "--force")[0] == 0
    assert frames_of("new").shape[0] == FRAMES
    assert animate("poses.npz", "-o", "moving.webp")[0] == 0
    assert media.open_clip("moving.webp").num_frames == FRAMES
    Path("there").mkdir()
    assert animate("poses.npz", "-o", "there")[0] == 0
    assert len(list(Path("there").glob("*.png"))) == FRAMES
    gone = replace(views[0].pose, scores=np.zeros_like(views[0].pose.scores))
    write_poses("second.npz", [[gone, views[0].pose]] * 3, FPS)
    assert "second.npz: none of its 3 frames shows person 1" in complaint(
        animate("second.npz", "--person", 1, "-o", "gone.mp4")
    )
    write_poses("one.npz", [[views[0].pose]])
    assert animate("one.npz", "-o", "still.webp")[0] == 0
    assert media.read_image("still.webp").shape == (32, 32, 3)


def test_what_drives_no_clip_is_named(animate, folder, views):
    Image.fromarray(views[0].image).save("still.png")
    assert "still.png is no video, folder of frames or pose file" in complaint(
        animate("still.png", "-o", "out.mp4")
    )
    assert "gone.xyz does not exist: check the name" in complaint(animate("gone.xyz", "-o", "out.mp4"))
    assert "name a clip, or a new folder" in complaint(animate("dance.mp4", "-o", "."))
    name = "n" * 240 + ".mp4"
    assert "its name is too long" in complaint(animate("dance.mp4", "-o", name))


def test_pngs_can_move_and_a_stray_file_hides_no_frames(folder, views):
    frames = [Image.fromarray(v.image) for v in views]
    frames[0].save("moving.png", save_all=True, append_images=frames[1:], duration=80)
    assert is_clip(Path("moving.png"))
    assert not is_clip(Path("me.png"))
    media.write_clip("frames", (v.image for v in views), FPS)
    (folder / "frames" / "clip.json").unlink()
    (folder / "frames" / "notes.json").write_text("{}")
    assert is_clip(Path("frames"))
    for number in range(FRAMES):
        (folder / "frames" / f"{number:06d}.json").write_text("{}")
    assert not is_clip(Path("frames")), "a pose file for every picture: these drive"


def test_a_preview_stops_before_any_model(animate, monkeypatch):
    monkeypatch.setattr("scd.cli.clip.load_pipeline", None)
    code, out, err = animate("dance.mp4", "--preview-pose", "preview.mp4")
    assert code == 0, err
    assert out == "preview.mp4\n"
    clip = media.open_clip("preview.mp4")
    assert clip.num_frames == FRAMES
    assert clip.size[1] > 2 * clip.size[0], "three pictures side by side"


def test_a_model_of_pictures_says_that_it_flickers(animate):
    code, _, err = animate("dance.mp4", "-o", "out.mp4", model="pictures")
    assert code == 0
    assert "no motion modules: it paints frame by frame, and the clip will flicker" in err
    assert media.open_clip("out.mp4").num_frames == FRAMES


def test_the_frames_of_a_picture_model_are_its_pictures(animate, folder):
    """Each from the noise of the seed, so that nothing but the pose differs from frame to frame."""
    options = ("--no-smooth", "--proportions", "driver", "--seed", 5)
    for name in ("a.mp4", "b.mp4"):
        assert animate("poses.npz", "-o", name, *options, model="pictures")[0] == 0
    np.testing.assert_array_equal(frames_of("a.mp4"), frames_of("b.mp4"))
    assert animate("poses.npz", "-o", "frames", "--compare", "c.mp4", *options, model="pictures")[0] == 0
    assert animate("poses.npz", "-o", "out.png", "--seed", 5, model="pictures")[0] == 0
    for number, frame in enumerate(frames_of("frames"), 1):
        picture = media.read_image(f"out-{number:02d}.png").astype(int)
        assert np.abs(picture - frame).max() <= 1, f"frame {number} is the picture of its pose"


def test_side_by_side(animate):
    code, out, err = animate("dance.mp4", "-o", "frames", "--compare", "both.gif")
    assert code == 0, err
    assert out.splitlines()[1:] == ["both.gif"]
    clip = media.open_clip("both.gif")
    assert (clip.num_frames, clip.size) == (FRAMES, (24 + 256, 4 * 256 + 3 * 4))
    results = [np.asarray(frame)[24:, 3 * 260 :] for frame in clip]
    for shown, frame in zip(results, frames_of("frames"), strict=True):
        large = frame.repeat(8, 0).repeat(8, 1).astype(int)
        assert np.abs(shown - large).mean() < 12, "the result, enlarged, up to the palette"
    assert animate("poses.npz", "-o", "pose.mp4", "--compare", "pose-both.mp4")[0] == 0
    assert media.open_clip("pose-both.mp4").size == (24 + 256, 3 * 256 + 2 * 4), "no pictures of a driver"


def test_like_repeats_a_clip(animate, scd, folder, models):
    options = ("--seed", 4, "--max-frames", 5, "--start", 0.16, "--face", "none", "--no-smooth")
    assert animate("dance.mp4", "-o", "a.gif", *options)[0] == 0
    for number, like in enumerate(("a.gif.json", "a.gif", "a.json")):
        code, _, err = scd("animate", "--like", like, "-o", f"b{number}.gif")
        assert code == 0, err
        assert "other poses" not in err
        np.testing.assert_array_equal(frames_of("a.gif"), frames_of(f"b{number}.gif"))
        assert media.read_settings(f"b{number}.gif") == media.read_settings("a.gif")
    for driver in ("dance.mp4", "poses.npz"):
        alone = complaint(scd("animate", "--like", "a.gif", driver, "-o", "other.gif"))
        assert f"{driver}: the first name is the REFERENCE; name it too, before another driver" in alone
    assert scd("animate", "--like", "a.gif", "-o", "c.gif", "--seed", 5, "--start", 0)[0] == 0
    assert not np.array_equal(frames_of("a.gif"), frames_of("c.gif"))
    record = media.read_settings("c.gif")
    told = record["options"]
    assert (record["seed"], told["start"], told["max_frames"], told["face"]) == (5, 0, 5, "none")
    assert scd("animate", "--like", "a.gif", "-o", "d.gif", "--model", models / "pictures")[0] == 0


def test_like_sees_another_lora_of_motion_modules(animate, scd, folder, models):
    pipe = SCDPipeline.from_pretrained(models / "clips")
    write_lora("camera.safetensors", pipe, "diffusers", motion=True)
    options = ("--max-frames", 3)
    assert animate("dance.mp4", "-o", "plain.gif", *options)[0] == 0
    assert animate("dance.mp4", "-o", "a.gif", *options, "--lora", "camera.safetensors:0.5")[0] == 0
    assert not np.array_equal(frames_of("a.gif"), frames_of("plain.gif"))
    assert scd("animate", "--like", "a.gif", "-o", "b.gif")[0] == 0
    np.testing.assert_array_equal(frames_of("a.gif"), frames_of("b.gif"))
    write_lora("camera.safetensors", pipe, "kohya", motion=True)
    assert "camera.safetensors has changed since a.gif" in complaint(
        scd("animate", "--like", "a.gif", "-o", "c.gif")
    )


def test_a_wrong_lora_is_said_before_poses_are_found(animate, folder, detector):
    assert "no such file" in complaint(animate("dance.mp4", "-o", "a.gif", "--lora", "none.safetensors"))
    assert not detector.calls


def test_like_refuses_clips_that_cannot_be_repeated(animate, scd, folder, detector):
    assert animate("dance.mp4", "-o", "a.gif")[0] == 0
    record = json.loads((folder / "a.gif.json").read_text())
    changed = json.loads(json.dumps(record))
    changed["model"]["stamp"]["weights"] = "0" * 16
    (folder / "other.json").write_text(json.dumps(changed))
    assert "has changed since" in complaint(scd("animate", "--like", "other.json", "-o", "b.gif"))
    for part, other in (("motion", "0" * 16), ("schedule", "0" * 16), ("settings", {})):
        (folder / "other.json").write_text(json.dumps({**record, "model": {**record["model"], part: other}}))
        assert "has changed since" in complaint(scd("animate", "--like", "other.json", "-o", f"{part}.gif"))
        old = {name: value for name, value in record["model"].items() if name != part}
        (folder / "older.json").write_text(json.dumps({**record, "model": old}))
        assert scd("animate", "--like", "older.json", "-o", f"{part}.gif")[0] == 0
    (folder / "half.json").write_text('{"kind": "animate-clip"}')
    assert "half.json: is no complete record" in complaint(scd("animate", "--like", "half.json"))
    (folder / "poses.json").write_text(json.dumps({**record, "poses": "another detector's"}))
    code, _, err = scd("animate", "--like", "poses.json", "-o", "c.gif")
    assert code == 0
    assert "finds other poses than when this was recorded" in err
    assert animate("poses.npz", "-o", "p.png")[0] == 0
    wrong = complaint(scd("animate", "--like", "p.json", "me.png", "dance.mp4", "-o", "d.gif"))
    assert "p.json: is the record of a picture" in wrong
    media.write_clip("dance.mp4", frames_of("dance.mp4")[:4], FPS, force=True)
    assert "dance.mp4 has changed since a.gif.json" in complaint(scd("animate", "--like", "a.gif.json"))


def test_the_reference_that_fits_gives_the_proportions(animate, detector, folder, person):
    """The first is a portrait, the second shows the whole person."""
    scores = person.pose.scores.copy()
    scores[[9, 10, 12, 13]] = 0  # knees and ankles
    poses = {"me.png": replace(person.pose, scores=scores), "whole.png": person.pose}
    media.write_image("whole.png", np.rot90(person.image, 2).copy())
    shown = {media.read_image(name).tobytes(): pose for name, pose in poses.items()}
    detector.detect = lambda image: [replace(shown.get(image.tobytes(), person.pose), size=image.shape[:2])]
    code, _, err = animate("poses.npz", "-o", "a.gif", "--more", "whole.png")
    assert code == 0
    assert "reference 2 fits the driver better than the first" in err
    assert animate("poses.npz", "-o", "b.gif")[0] == 0
    scores = [media.read_settings(f"{name}.gif")["alignment"] for name in "ab"]
    assert scores[0] > scores[1] + 0.05


def test_a_clip_cut_off_goes_on(animate, folder, monkeypatch):
    animate("dance.mp4", "-o", "whole.mp4", "--steps", 6)
    decode = SCDPipeline.decode_frames

    def cut(self, latents):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(SCDPipeline, "decode_frames", cut)
    code, _, err = animate("dance.mp4", "-o", "out.mp4")
    assert code == 130
    assert not (folder / "out.mp4").exists()
    assert (folder / "out.mp4.work").is_dir()
    monkeypatch.setattr(SCDPipeline, "decode_frames", decode)
    calls = []
    monkeypatch.setattr("scd.denoiser.Denoiser.__call__", lambda *a: calls.append(a))
    code, _, err = animate("dance.mp4", "-o", "out.mp4")
    assert code == 0, err
    assert calls == [], "all steps were done"
    assert "scd: going on after step 3, from out.mp4.work" in err


def test_a_comparison_cut_off_costs_no_second_painting(animate, folder, monkeypatch):
    from scd.cli import clip

    def cut(*_):
        raise KeyboardInterrupt

    compare = clip.compare_frames
    monkeypatch.setattr(clip, "compare_frames", cut)
    assert animate("dance.mp4", "-o", "out.mp4", "--compare", "both.mp4")[0] == 130
    assert (folder / "out.mp4").exists()
    monkeypatch.setattr(clip, "compare_frames", compare)
    calls = []
    monkeypatch.setattr("scd.denoiser.Denoiser.__call__", lambda *a: calls.append(a))
    assert animate("dance.mp4", "-o", "out.mp4", "--compare", "both.mp4", "--force")[0] == 0
    assert calls == [], "all steps were done"
    assert media.open_clip("both.mp4").num_frames == FRAMES
    assert not list(Path().glob("*.work"))


def test_the_bar_of_a_clip_that_goes_on_counts_what_was_done(models, views, tmp_path):
    pipe = SCDPipeline.from_pretrained(models / "clips")
    poses = PoseClip.from_poses([v.pose for v in views], FPS)
    pipe.register_to_config(default_steps=6)

    def advances(stop: int | None) -> list[int]:
        heard = []

        def on_step(steps: int) -> None:
            heard.append(steps)
            if len(heard) == stop:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            list(paint_frames(pipe, None, poses, 0, tmp_path / "work", on_step))
        return heard

    assert advances(5) == [1] * 5, "saved after four"
    assert advances(None) == [5, 1], "the four and the first, then the last"
    pictures = SCDPipeline.from_pretrained(models / "pictures")
    heard = []
    list(paint_frames(pictures, None, poses, on_step=heard.append))
    assert sum(heard) == num_steps(pictures, FRAMES)
    assert set(heard) == {1}


def test_a_model_of_photographs_paints_a_tall_clip_in_a_tall_frame():
    """80 x 40 of its 64 x 64 pixels show the picture; a square frame would show 64 x 32."""
    pipe, size = make_pipeline(), (120, 60)
    pictures, poses = [make_picture(0, size), make_picture(1)], [make_pose(0, size), make_pose(1)]
    subject = read_subject(pipe, pictures, poses, [make_picture(2, (60, 120))], canvas=size)
    assert [picture.shape for picture in subject.pictures] == [(80, 48, 3)] * 2, (
        "as in training, in one frame"
    )
    tokens = next(iter(subject.reference.cache.entries.values()))[0].shape[1]
    assert tokens == 3 * (80 // 8) * (48 // 8), "the garment too"
    drive: Any = SimpleNamespace(retargeted=PoseClip.from_poses([make_pose(n, size) for n in range(2)], FPS))
    assert [frame.shape for frame in paint_drive(pipe, subject, drive)] == [(80, 40, 3)] * 2


def test_a_model_of_photographs_paints_pictures_in_their_poses_aspect(scd, tmp_path):
    """The reference is read anew for another shape of frame, and sizes that are no buckets are refused."""
    make_pipeline().save_pretrained(tmp_path / "model")
    media.write_image(tmp_path / "me.png", make_picture(0, (120, 60)))
    for name, size in (("me", (120, 60)), ("tall", (120, 60)), ("even", (90, 90))):
        write_poses(tmp_path / f"{name}.npz", [[make_pose(0, size)]])
    given = ("--reference-pose", tmp_path / "me.npz", "--model", tmp_path / "model", "--steps", 1)

    def animate(*arguments):
        return scd("animate", tmp_path / "me.png", *arguments, *given)

    for pose, size in (("tall", (80, 40)), ("even", (64, 64))):
        out = tmp_path / f"{pose}-out.png"
        code, _, err = animate(tmp_path / f"{pose}.npz", "-o", out, "--sheet")
        assert code == 0, err
        assert media.read_image(out).shape[:2] == size
    message = complaint(animate(tmp_path / "even.npz", "--size", 72, "-o", tmp_path / "no.png"))
    assert "--size 72: a multiple of 16, 32 at least" in message
    make_pipeline().save_pretrained(tmp_path / "model")
    index = tmp_path / "model" / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "default_size": 72}))
    code, _, err = animate(tmp_path / "even.npz", "-o", tmp_path / "own.png")
    assert code == 0, err
    code, _, err = scd("animate", "--like", tmp_path / "own.png", "-o", tmp_path / "again.png")
    assert code == 0, f"its own size is no other one: {err}"


def test_two_references_and_the_drivers_body(animate):
    media.write_image("back.png", world.Scene.from_seed(3).view(1, size=96).image)
    assert animate("dance.mp4", "-o", "a.mp4", "--more", "back.png")[0] == 0
    assert animate("dance.mp4", "-o", "b.mp4")[0] == 0
    options = ("--proportions", "driver", "--no-smooth", "--face", "none")
    assert animate("dance.mp4", "-o", "c.mp4", *options)[0] == 0
    a, b, c = (frames_of(f"{name}.mp4") for name in "abc")
    assert a.shape == b.shape == c.shape
    assert np.abs(a.astype(int) - b).max() > 0, "the second picture is read too"
    assert animate("dance.mp4", "-o", "d.mp4", *options[:-2])[0] == 0
    hashes = [media.read_settings(f"{name}.mp4")["poses"] for name in "cd"]
    assert hashes[0] != hashes[1], "--face is the driver's too"


def test_what_a_user_gets_wrong(animate, folder):
    assert "a clip's name ends in .mp4" in complaint(animate("dance.mp4", "-o", "out.avi"))
    for names in (("me.png", "me.png", "-o", "out.mp4"), ("me.png", "dance.mp4")):
        assert "2 POSEs make pictures; for a clip give one video" in complaint(animate(*names))
    swallowed = complaint(animate("--more", "me.png", "dance.mp4"))
    assert "--more takes all that follows it, dance.mp4 too; name the driver first" in swallowed
    swallowed = complaint(animate("--garment", "me.png", "dance.mp4"))
    assert "--garment takes all that follows it, dance.mp4 too; name the pictures first" in swallowed
    assert "--start: for clips" in complaint(animate("me.png", "-o", "b.png", "--start", 1))
    assert "--face, --mute: for clips" in complaint(animate("me.png", "--face", "none", "--mute"))
    assert "-n: for pictures" in complaint(animate("dance.mp4", "-n", 2))
    same = complaint(animate("dance.mp4", "-o", "c.mp4", "--compare", "c.mp4", "--force"))
    assert "c.mp4: is the name of the clip itself" in same
    same = complaint(animate("dance.mp4", "-o", "c.mp4", "--compare", folder / "c.mp4"))
    assert "c.mp4: is the name of the clip itself" in same, "however it is written"
    assert "c.avi: a clip's name ends in" in complaint(animate("dance.mp4", "--compare", "c.avi"))
    unpainted = complaint(animate("dance.mp4", "--preview-pose", "p.mp4", "--compare", "c.mp4", "--sheet"))
    assert "--compare, --sheet: of a painted clip; --preview-pose paints nothing: leave one out" in unpainted
    (folder / "text.mp4").write_text("no video")
    assert "text.mp4" in complaint(animate("text.mp4", "-o", "b.mp4"))
    assert "nowhere.mp4" in complaint(animate("nowhere.mp4", "-o", "b.mp4"))
    (folder / "empty").mkdir()
    nothing = "empty holds neither pictures nor .json pose files: name the folder they are in"
    assert nothing in complaint(animate("empty", "-o", "b.mp4"))
    assert "is an input of this command" in complaint(animate("dance.mp4", "-o", "dance.mp4", "--force"))
    assert not (folder / "b.mp4").exists()


@pytest.mark.parametrize("ending", PICTURES)
def test_a_folder_of_any_frames_is_a_clip(tmp_path, ending):
    (tmp_path / f"0001{ending.upper()}").touch()
    assert is_clip(tmp_path)
    (tmp_path / "0001.json").touch()
    assert not is_clip(tmp_path), "pose files"


def test_nobody_for_a_while(animate, views):
    """A short gap is filled in and named; a long one is an error that names its frames."""

    def hide(path, hidden):
        nobody = replace(views[0].pose, scores=views[0].pose.scores * 0)
        write_poses(path, [[nobody if i in hidden else v.pose, v.pose] for i, v in enumerate(views)], FPS)

    hide("short.npz", {3, 4})
    code, _, err = animate("short.npz", "-o", "short.mp4", "--person", 1)
    assert code == 0, err
    assert "nobody found in 3-4; filled in" in err
    hide("long.npz", {1, 2, 3, 4, 5, 6, 7})
    said = complaint(animate("long.npz", "-o", "long.mp4", "--person", 1))
    assert "no person found in frames 1-7 of long.npz, and only gaps of up to 0.5 s are filled" in said


def test_poses_of_a_clip_drive_as_the_clip_does(animate, scd, detector, views):
    """What `scd pose` finds in a clip is what `scd animate` finds in it: the same frames come out."""
    moving = iter([[v.pose] for v in views])
    detector.detect = lambda image: [replace(p, size=image.shape[:2]) for p in next(moving)]
    options = ("--start", 0.16, "--max-frames", 5)
    code, out, err = scd("pose", "dance.mp4", "-o", "found.npz", "--draw", "drawn.mp4", *options)
    assert (code, out) == (0, "found.npz: 5 frames, 1 person\ndrawn.mp4\n"), err
    file = read_poses("found.npz")
    assert (len(file.frames), file.fps, file.size) == (5, FPS, (96, 96))
    np.testing.assert_array_equal(file.frames[1][0].scores, views[1].pose.scores)
    drawn = media.open_clip("drawn.mp4")
    assert (drawn.num_frames, drawn.fps, drawn.size) == (5, FPS, (96, 96))
    given = ("--reference-pose", "found.npz")  # so that no picture is looked at
    assert animate("dance.mp4", "-o", "a.gif", *options, *given)[0] == 0
    assert animate("found.npz", "-o", "b.gif", *given)[0] == 0
    np.testing.assert_array_equal(frames_of("a.gif"), frames_of("b.gif"))
    assert next(moving, None) is not None, "the poses of the clip came from the disk"


def test_the_chosen_person_of_a_clip(scd, folder, detector, views):
    """One person is followed and written, and frames without anybody are named."""
    here, aside = views[0].pose, replace(views[0].pose, joints=views[0].pose.joints * np.float32([0.4, 1]))
    found = iter([[aside, here]] + [[here]] * 3 + [[]] * 8 + [[here]] * 9)
    detector.detect = lambda image: [replace(pose, size=image.shape[:2]) for pose in next(found)]
    for name in ("dance.mp4", "me.png"):
        message = complaint(scd("pose", name, "--canvas", "96x96", "-o", "no.npz"))
        assert f"--canvas: for pose files; {name} is a " in message
    code, out, _ = scd("pose", "dance.mp4", "--person", 1, "-o", "first.npz")
    assert code == 0
    first = read_poses("first.npz").frames
    np.testing.assert_allclose(first[0][0].joints, aside.joints, atol=1e-6)
    assert all(len(frame) <= 1 for frame in first)
    assert "; nobody found in " in out
    message = complaint(scd("pose", "dance.mp4", "--person", 3, "--start", 0.2, "-o", "third.npz"))
    assert "--person 3" in message


def test_poses_of_a_file_are_drawn_as_a_clip(scd, folder, views):
    code, out, err = scd("pose", "poses.npz", "-o", "again.npz", "--draw", "drawn.gif")
    assert (code, out) == (0, f"again.npz: {FRAMES} frames, 1 person\ndrawn.gif\n"), err
    assert media.open_clip("drawn.gif").num_frames == FRAMES
    np.testing.assert_array_equal(read_poses("again.npz").frames[3][0].joints, views[3].pose.joints)
    assert "--person, --fps: for clips" in complaint(scd("pose", "me.png", "--person", 1, "--fps", 3))
    assert "drawing of a clip ends in .mp4" in complaint(scd("pose", "dance.mp4", "--draw", "a.png"))
    assert "a picture's name ends in .png" in complaint(scd("pose", "me.png", "--draw", "a.mp4"))
    assert "nowhere.mp4" in complaint(scd("pose", "nowhere.mp4"))
    assert "is an input of this command" in complaint(scd("pose", "poses.npz", "-o", "poses.npz", "--force"))


def test_world_clips(scd, folder):
    assert scd("world", "walk.mp4", "--clip", "walk", "--frames", 5, "--size", 64)[0] == 0
    clip = media.open_clip("walk.mp4")
    assert (clip.num_frames, clip.fps, clip.size) == (5, 15.0, (64, 64))
    assert "one frame or more" in complaint(scd("world", "none.mp4", "--frames", 0))
    assert scd("world", "walk.m4v", "--clip", "walk", "--frames", 5, "--size", 64)[0] == 0
    assert media.open_clip("walk.m4v").num_frames == 5
    assert "a.webm has no ending that can be written" in complaint(scd("world", "a.webm"))
    assert not Path("a.webm").exists()


def test_evaluation_of_clips(scd, models, folder):
    options = ("--device", "cpu", "--steps", 2)
    code, out, err = scd("evaluate", "world-video", "-n", 1, "--frames", 3, "--model", models / "clips",
                         "--sheet", "sheet.png", *options)  # fmt: skip
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert {
        "masked_psnr", "masked_psnr_picture_model", "jitter", "jitter_truth", "jitter_framewise",
        "jitter_framewise_shared", "seam", "motion", "num_clips", "num_frames",
    } <= result.keys()  # fmt: skip
    assert result["num_clips"] == 1
    assert result["jitter"] > result["jitter_truth"]
    assert (folder / "sheet.png").is_file()
    message = complaint(scd("evaluate", "world-video", "--model", models / "pictures", *options))
    assert "has no motion modules; train them: scd train world-motion" in message


def test_a_drawn_clip_replaces_no_settings_unasked(scd, tmp_path, monkeypatch):
    monkeypatch.setattr("scd.cli.world.people.Scene.clip", None)  # said before anything is drawn
    (tmp_path / "walk.mp4.json").write_text("mine")
    message = complaint(scd("world", tmp_path / "walk.mp4", "--frames", 2, "--size", 32))
    assert "walk.mp4.json exists already" in message
    assert (tmp_path / "walk.mp4.json").read_text() == "mine"


def test_the_example_clip():
    """What `make run` drives with: another person than the reference; the detector finds it, and it fits."""
    pytest.importorskip("mediapipe")
    examples = Path(__file__).parents[1] / "examples"
    path, reference = examples / "dance.mp4", examples / "reference.png"
    settings = media.read_settings(path)
    assert (settings["kind"], settings["world_version"]) == ("world", world.VERSION)
    assert settings["seed"] != media.read_settings(reference)["seed"]
    clip = media.open_clip(path)
    assert (clip.num_frames, clip.fps, clip.size) == (settings["frames"], settings["fps"], (256, 256))
    truth = world.Scene.from_seed(settings["seed"]).clip("dance", clip.num_frames, clip.fps, 256)
    detector, errors = detect.get_detector(), []
    for view, frame in list(zip(truth, clip, strict=True))[::9]:
        found, seen = detect.detect_one(frame, detector=detector), view.pose.scores[BODY] == 1
        errors.append(np.median(np.linalg.norm(found.joints[BODY] - view.pose.joints[BODY], axis=1)[seen]))
    assert max(errors) < 0.03
    own = detect.detect_one(media.read_image(reference), detector=detector)
    assert alignment(PoseClip.from_poses([view.pose for view in truth], clip.fps), own).enough
    assert path.stat().st_size < 300_000


def test_part_of_a_pose_file_is_that_part_of_its_clip(animate, folder, views):
    """Seconds and rates mean what they mean for a video; what leaves no frame is said the same way."""

    def drives(*options):
        code, _, err = animate("poses.npz", "-o", "part.mp4", "--force", "--mute", *options)
        assert code == 0, err
        return media.open_clip("part.mp4")

    length = FRAMES / FPS
    assert drives("--start", 2 / FPS, "--end", 5 / FPS).num_frames == 3
    twice = drives("--fps", 2 * FPS)
    assert (twice.num_frames, float(twice.fps)) == (2 * FRAMES, 2 * FPS), "resampled, as fast as before"
    assert drives("--start", 0.5 * length, "--fps", FPS / 2).num_frames == round(0.25 * FRAMES)
    for options, line in (
        (("--start", -0.1), "--start -0.1: choose 0 to"),
        (("--start", 99), "--start 99: choose 0 to"),
        (("--start", 0.2, "--end", 0.1), "--end 0.1: choose more than --start"),
        (("--max-frames", 0), "--max-frames 0: choose 1 or more"),
        (("--max-frames", -3), "--max-frames -3: choose 1 or more"),
        (("--fps", 0), "--fps 0: give a number"),
        (("--fps", "nan"), "--fps nan: give a number"),
        (("--fps", 1e12), "--fps 1e+12: give at most 1000"),
    ):
        assert line in complaint(animate("poses.npz", "-o", "none.mp4", *options))
    assert not Path("none.mp4").exists()


def test_the_references_pose_is_its_own(animate, folder, views, person):
    """--person chooses among the drivers, not in the reference's file; that file is of this picture."""
    driver = [[v.pose, replace(v.pose, joints=v.pose.joints * 0.5)] for v in views]
    write_poses("two.npz", driver, FPS)
    write_poses("mine.npz", [[person.pose], []], FPS)
    code, _, err = animate("two.npz", "-o", "a.mp4", "--person", 2, "--reference-pose", "mine.npz")
    assert code == 0, err
    write_poses("wide.npz", [[replace(person.pose, size=(96, 384))]], FPS)
    line = complaint(animate("two.npz", "-o", "b.mp4", "--reference-pose", "wide.npz"))
    assert "--reference-pose is of a picture of 384x96 pixels" in line
    write_poses("nobody.npz", [[], [person.pose]], FPS)
    assert "shows nobody" in complaint(animate("two.npz", "-o", "b.mp4", "--reference-pose", "nobody.npz"))


def test_a_folder_of_the_users_beside_the_clip_stays(animate, folder):
    (folder / "out.mp4.work").mkdir()
    (folder / "out.mp4.work" / "thesis.txt").write_text("precious")
    assert animate("dance.mp4", "-o", "out.mp4")[0] == 0
    assert [path.name for path in (folder / "out.mp4.work").iterdir()] == ["thesis.txt"]


def open_pose(*people, size=(96, 160)) -> str:
    """A frame as OpenPose writes it."""
    rows = [np.column_stack([p.joints[BODY] * size[::-1], p.scores[BODY]]).ravel().tolist() for p in people]
    listed = [{"pose_keypoints_2d": row} for row in rows]
    return json.dumps({"people": listed, "canvas_height": size[0], "canvas_width": size[1]})


def aside(pose, x):
    """The person half as large, its middle at x."""
    joints = np.where(pose.scores[:, None] > 0, (pose.joints - 0.5) * 0.5 + (x, 0.5), 0).astype(np.float32)
    return replace(pose, joints=joints, size=(96, 160))


@pytest.mark.parametrize(("who", "x"), [("1", 0.25), ("2", 0.75), ("largest", 0.25)])
def test_openpose_lists_people_in_any_order(animate, folder, views, monkeypatch, who, x):
    """Whoever is chosen drives throughout; where one is missed, the others do not move up."""
    (folder / "poses").mkdir()
    for number, view in enumerate(views):
        left, right = aside(view.pose, 0.25), aside(view.pose, 0.75)
        left = replace(left, joints=np.where(left.joints > 0, (left.joints - 0.5) * 1.1 + 0.5, 0))
        people = [right, left] if number % 3 else [left, right]
        if number == 5:
            people = [right if x < 0.5 else left]
        (folder / "poses" / f"{number:03d}.json").write_text(open_pose(*people))
    drives = []
    monkeypatch.setattr("scd.cli.clip.make_drive", lambda seen, *_: drives.append(seen) or enough())

    def enough():
        raise UserError("enough")

    said = animate("poses", "-o", "a.mp4", "--person", who)[2]
    assert "enough" in said
    assert ("number 1 from the left, is followed" in said) == (who == "largest")
    necks = [None if one.pose is None else one.pose.joints[1, 0] for one in drives[0]]
    assert necks[5] is None
    assert all(abs(neck - x) < 0.1 for neck in necks if neck is not None)


def test_advice_counts_from_the_clips_own_beginning(animate, folder, detector, monkeypatch):
    """Nobody in the first second of the part: what is advised is a time of the whole clip."""
    blank = [np.zeros((64, 64, 3), np.uint8)] * 20
    media.write_clip("long.mp4", blank, 10)
    found = detector.detect
    monkeypatch.setattr(detector, "detect", lambda image: found(image) if detector.calls > 12 else counted())

    def counted():
        detector.calls += 1
        return []

    detector.calls = 0
    given = ("--reference-pose", "poses.npz", "--start", 0.5, "-o", "a.mp4")
    said = complaint(animate("long.mp4", *given))
    assert "of long.mp4 from 0.50 s on" in said
    assert "begin later (--start 1.8" in said
    write_poses("late.npz", [[detector.pose] if t >= 18 else [] for t in range(30)], 10)
    said = complaint(animate("late.npz", *given))
    assert "of late.npz from 0.50 s on" in said
    assert "begin later (--start 1.80" in said


@pytest.mark.parametrize("options", [(), ("--start", 0.05), ("--fps", 10), ("--fps", 24)])
def test_a_pose_file_drives_as_its_video_does(animate, folder, views, monkeypatch, options):
    """The same frames are taken of both, whatever part and rate is asked for."""
    taken = []
    for number, view in enumerate(views):  # told apart by a number in a corner, and by a joint
        view.image[:8, :8] = 20 * number
    media.write_clip("numbered", (v.image for v in views), FPS)
    joints = [replace(v.pose, joints=np.full_like(v.pose.joints, 0.05 * i)) for i, v in enumerate(views)]
    write_poses("numbered.npz", [[pose] for pose in joints], FPS)

    def see(clip, *_):
        taken.append([round(frame[4, 4, 0] / 20) for frame in clip])
        raise UserError("enough")

    monkeypatch.setattr("scd.cli.clip.find_poses", see)
    monkeypatch.setattr(
        "scd.cli.clip.make_drive",
        lambda seen, *_: taken.append([round(s.pose.joints[0, 0] / 0.05) for s in seen]) or see([]),
    )
    for driver in ("numbered", "numbered.npz"):
        animate(driver, "-o", "a.mp4", *options)
    assert taken[0] == taken[1]
    assert len(set(taken[0])) > 5


def test_a_part_is_driven_by_who_drives_the_whole(animate, folder, views, monkeypatch):
    """In an .npz who is largest is decided once for the file: the second, who comes nearer later."""
    seen = []

    def stop(given, *_):
        seen.extend(round(float(one.pose.joints[1, 0]), 1) for one in given)
        raise UserError("enough")

    monkeypatch.setattr("scd.cli.clip.make_drive", stop)
    pose = views[0].pose
    joints = np.where(pose.scores[:, None] > 0, pose.joints + np.array([0.3, 0]), 0)
    near = replace(pose, joints=joints.astype(np.float32), size=(96, 160))
    frames = [[aside(pose, 0.2), near if t > 5 else aside(pose, 0.8)] for t in range(20)]
    write_poses("two.npz", frames, FPS)
    assert "enough" in animate("two.npz", "-o", "a.mp4", "--max-frames", 3)[2]
    assert seen == [0.8] * 3


def test_results_do_not_become_frames(animate, folder, views):
    media.write_clip("frames", (v.image for v in views), FPS)
    said = complaint(animate("frames", "-o", "frames/out.mp4", "--sheet"))
    assert "frames/out-sheet.png: would count as a frame of frames" in said
    assert animate("frames", "-o", "frames/out.mp4", "--max-frames", 2)[0] == 0, "a video is no frame"
    (folder / "json").mkdir()
    for number, view in enumerate(views[:2]):
        (folder / "json" / f"{number}.json").write_text(open_pose(replace(view.pose, size=(96, 160))))
    said = complaint(animate("json", "-o", "json/out.mp4"))
    assert "json/out.mp4.json: would count as a frame of json" in said
    assert animate("json", "-o", "out.mp4", "--compare", "json/c.webp")[0] == 0, "no clip is among poses"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("poses.npz", "--fps", 1e-9), "--fps 1e-09: give at least 0.01"),
        (("dance.mp4", "--canvas", "wide"), "--canvas wide"),
        (("none.npz",), "none.npz holds no frames"),
    ],
)
def test_slips_of_clips_are_one_line(animate, folder, detector, arguments, text):
    write_poses("none.npz", [], 10, size=(8, 8))
    assert text in complaint(animate(*arguments, "-o", "a.mp4"))


def test_one_frame_becomes_any_clip(animate, folder, views):
    Image.fromarray(views[0].image).save("one.gif")
    assert animate("one.gif", "-o", "a.gif")[0] == 0
    assert media.open_clip("a.gif").num_frames == 1


def test_of_a_reference_pose_the_first_frame_counts(animate, folder, person):
    """In pictures as in clips: who left the frame later is no matter."""
    empty = replace(person.pose, scores=np.zeros_like(person.pose.scores))
    write_poses("me.npz", [[person.pose], [empty]], 10)
    write_poses("you.npz", [[person.pose]], 10)
    for name in ("a.png", "a.mp4"):
        code, _, err = animate("you.npz", "--reference-pose", "me.npz", "-o", name)
        assert code == 0, err
    write_poses("gone.npz", [[empty], [person.pose]], 10)
    assert "its first frame shows nobody" in complaint(
        animate("you.npz", "--reference-pose", "gone.npz", "-o", "b.png")
    )
