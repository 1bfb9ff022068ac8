"""The command line: each verb on a tiny model, and one line with exit code 2 for what a user gets wrong."""

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import make_pipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from test_lora import write as write_lora

from scd import checkpoint, media, world
from scd import train as training
from scd.backbones.motion import picture_copy
from scd.backbones.unet import adapt
from scd.cli import VERBS, main
from scd.cli.dry_run import activation_bytes, saved_bytes
from scd.cli.models import load_pipeline
from scd.cli.options import ModelOptions
from scd.cli.terminal import progress
from scd.config import PRESETS, replace
from scd.model import load, start
from scd.pose.files import read_poses, write_poses
from scd.types import BODY, Pose, UserError

pytestmark = pytest.mark.usefixtures("one_thread")


class FakeDetector:
    """Finds the given people in every picture, and remembers the shapes of what it was shown."""

    def __init__(self, *people):
        self.people, self.shapes = list(people), []

    def detect(self, image):
        self.shapes.append(image.shape[:2])
        return [replace(pose, size=image.shape[:2]) for pose in self.people]


@pytest.fixture(scope="module")
def small_training():
    """Training of the preset world-tiny in seconds: sample grids of one."""
    import scd.evaluate
    import scd.model

    with pytest.MonkeyPatch.context() as patch:
        whole = scd.evaluate.sample_grid
        patch.setattr(scd.evaluate, "sample_grid", lambda pipe, path, size, num: whole(pipe, path, size, 1))
        yield


@pytest.fixture(scope="module")
def model(small_training, tmp_path_factory):
    """The folder of a model trained by `scd train`, whose poses matter after these two steps already."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "world-tiny", "--run", str(run), "--steps", "2", "--device", "cpu"]) == 0
    pipe = load(run / "model")
    torch.manual_seed(0)
    torch.nn.init.normal_(pipe.pose_encoder.conv_out.weight)
    checkpoint.export(pipe, run.parent / "model")
    return run.parent / "model"


@pytest.fixture(scope="module")
def person():
    return world.Scene.from_seed(3).view(0, size=96)


@pytest.fixture(scope="module")
def files(person, tmp_path_factory):
    """A reference, a wide pose picture and a pose file of two frames."""
    folder = tmp_path_factory.mktemp("files")
    media.write_image(folder / "me.png", person.image)
    media.write_image(folder / "you.png", world.Scene.from_seed(4).view(0, size=(64, 96)).image)
    other = world.Scene.from_seed(5)
    write_poses(folder / "poses.npz", [[other.view(i, size=96).pose] for i in range(2)])
    return folder


@pytest.fixture
def detector(monkeypatch, person):
    fake = FakeDetector(person.pose)
    monkeypatch.setattr("scd.pose.detect.get_detector", lambda name="mediapipe": fake)
    return fake


@pytest.fixture
def folder(tmp_path, monkeypatch, files):
    """The working folder of one test, with those files."""
    for file in files.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def animate(scd, model, folder, detector):
    """`scd animate` with the tiny model and two steps."""
    return lambda *arguments: scd("animate", *arguments, "--model", model, "--steps", 2, "--device", "cpu")


def complaint(result):
    """The one line of a command that failed as it should."""
    code, out, err = result
    assert code == 2
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("scd: ")
    return lines[0]


# ---- help ----


def test_help_explains_every_verb(scd):
    code, out, _ = scd("--help")
    assert code == 0
    assert all(verb in out for verb in VERBS)
    for verb in VERBS:
        code, out, err = scd(verb, "--help")
        assert code == 0
        assert f"usage: scd {verb}" in out
        assert err == ""
    assert "--network.block-out-channels" in scd("train", "world-tiny", "--help")[1]
    assert scd("--version")[1].startswith("scd 0")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from scd.cli import main, VERBS\n"
        "assert all(main([verb, '--help']) == 0 for verb in VERBS)\n"
        "assert main(['train', 'world-tiny', '-h']) == 0\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'cv2', 'mediapipe', 'PIL', 'gradio'}\n"
        "print(*heavy & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["animat"], "no verb 'animat', did you mean 'animate'?"),
        (["train", "world-picture"], "no preset 'world-picture', did you mean 'world-pictures'?"),
        (["train"], "world-tryon, world-joint, world-motion, sd15-pictures, sd15-motion, world-tiny"),
        (["train", "world-tiny", "--learning-rate", "1"], "unrecognized options: --learning-rate"),
        (["train", "world-tiny", "--data.size", "33"], "--data.size 33: a multiple of 8"),
        (["animate", "a.png", "b.png", "--sead", "3"], "did you mean --seed?"),
        (["animate", "a.png", "b.png", "--seed", "three"], "--seed"),
        (["animate", "a.png"], "give a REFERENCE and a POSE"),
        (["animate", "a.png", "b.png", "-n", "0"], "-n 0"),
        (["animate", "a.png", "b.npz", "--person", "left"], "--person left"),
        (["animate", "a.png", "b.png", "-o", "c.bmp"], "c.bmp: a picture's name ends in .png"),
        (["animate", "a.png", "b.json", "--canvas", "big"], "--canvas big: write WIDTHxHEIGHT"),
        (["pose", "a.png", "-o", "b.txt"], "b.txt: poses are written as .npz"),
        (["evaluate", "photographs"], "'world'"),
        (["evaluate", "world", "--num", "1"], "--num 1: 2 at least"),
        (["world", "x.png", "--size", "8"], "--size 8: 32 at least"),
        (["bench", "--num", "0"], "--num 0"),
        (["doctor", "now"], "unrecognized options: now"),
    ],
)
def test_wrong_words_are_one_line(scd, folder, detector, arguments, text):
    assert text in complaint(scd(*arguments))


# ---- animate ----


def test_animate_writes_picture_record_and_sheet(animate, detector, folder, model):
    code, out, _ = animate("me.png", "you.png", "--sheet", "--seed", 7)
    assert code == 0
    assert out.splitlines() == ["out/me_you.png", "out/me_you-sheet.png"]
    assert sorted(os.listdir("out")) == ["me_you-sheet.png", "me_you.json", "me_you.png"]
    assert detector.shapes == [(96, 96), (64, 96)]  # the pictures as they are, not as the model sees them
    record = json.loads((folder / "out/me_you.json").read_text())
    assert record["seed"] == 7
    assert record["steps"] == 2
    assert record["inputs"]["poses"] == [{"path": "you.png", "sha256": media.file_hash("you.png")}]
    assert record["model"]["path"] == str(model)
    assert (record["detector"], record["dtype"], record["size"]) == ("mediapipe", "float32", 32)
    assert media.read_settings("out/me_you.png") == {**record, "picture": 1}
    assert media.read_settings("out/me_you-sheet.png")["kind"] == "animate"


def test_a_picture_has_the_shape_of_its_pose(animate, model):
    animate("me.png", "you.png", "-o", "a.png")
    assert media.read_image("a.png").shape == (21, 32, 3)  # 64 x 96 in a frame of 32, and not stretched


def test_animate_is_the_pipeline_on_padded_pictures(animate, detector, folder, model, person):
    """A picture lies in the middle of the frame, on the colour of its border, and its pose with it."""
    assert animate("you.png", "poses.npz", "-o", "a.png", "--seed", 5, "--guidance", 30)[0] == 0
    pipe = load(model, "cpu")
    image = media.read_image(
        "you.png"
    )  # 64 x 96 -> 21 x 32 in the middle of 32 x 32, five rows above and six below
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    frame = np.full((32, 32, 3), np.median(edge, 0).astype(np.uint8))
    frame[5:26] = cv2.resize(image, (32, 21), interpolation=cv2.INTER_AREA)
    joints = person.pose.joints.copy()
    joints[:, 1] = (5 + 21 * joints[:, 1]) / 32
    joints[person.pose.scores == 0] = 0
    reference = pipe.encode_reference(frame, Pose(joints, person.pose.scores, (32, 32)))
    pose = read_poses("poses.npz").frames[0][0]
    generator = torch.Generator().manual_seed(5)
    expected = pipe(reference, pose, None, None, 2, 30, generator, output_type="np").images[0]
    np.testing.assert_array_equal(media.read_image("a-01.png"), np.rint(255 * expected))


def test_a_picture_does_not_depend_on_the_others(animate):
    assert animate("me.png", "you.png", "poses.npz", "-n", 2, "-o", "many.png")[0] == 0
    assert animate("me.png", "poses.npz", "-o", "two.png")[0] == 0
    assert sorted(p for p in os.listdir() if p.startswith("many")) == [
        *(f"many-0{i}.png" for i in range(1, 7)),
        "many.json",
    ]
    for mine, other in (("many-03.png", "two-01.png"), ("many-05.png", "two-02.png")):
        np.testing.assert_array_equal(media.read_image(mine), media.read_image(other))
    assert (media.read_image("many-03.png") != media.read_image("many-04.png")).any()


def test_like_repeats_to_the_bit(animate, scd, folder):
    animate("me.png", "you.png", "-n", 2, "--seed", 3, "--guidance", 2, "-o", "a.png")
    code, out, _ = scd("animate", "--like", "a.json", "-o", "b.png")
    assert code == 0
    assert out.split() == ["b-01.png", "b-02.png"]
    np.testing.assert_array_equal(media.read_image("a-02.png"), media.read_image("b-02.png"))
    first, second = (json.loads((folder / f"{name}.json").read_text()) for name in "ab")
    assert first == second

    code, *_ = scd(
        "animate", "--like", "a-02.png", "--seed", 4, "-n", 1, "-o", "c.png"
    )  # the picture knows, too
    record = json.loads((folder / "c.json").read_text())
    assert code == 0
    assert (record["seed"], record["guidance"], record["num"]) == (4, 2, 1)
    assert (media.read_image("c.png") != media.read_image("a-01.png")).any()


def test_another_sampler_is_a_setting_that_like_keeps(animate, scd, folder):
    names = ("me.png", "you.png", "-o")
    assert animate(*names, "own.png")[0] == 0
    assert animate(*names, "other.png", "--scheduler", "unipcmultistep")[0] == 0
    assert (media.read_image("own.png") != media.read_image("other.png")).any()
    record = json.loads((folder / "other.json").read_text())
    assert record["scheduler"] == "unipcmultistep"
    assert record["model"]["scheduler"] == "UniPCMultistepScheduler"
    assert json.loads((folder / "own.json").read_text())["scheduler"] is None
    assert scd("animate", "--like", "other.json", "-o", "again.png")[0] == 0
    np.testing.assert_array_equal(media.read_image("again.png"), media.read_image("other.png"))
    assert scd("animate", "--like", "own.json", "--scheduler", "UniPCMultistep", "-o", "changed.png")[0] == 0
    np.testing.assert_array_equal(media.read_image("changed.png"), media.read_image("other.png"))


def test_loras_are_added_in_their_strength(animate, scd, model, folder):
    animate("me.png", "you.png", "-o", "plain.png")
    pipe: Any = load(model)
    change = write_lora(folder / "style.safetensors", pipe, "kohya")
    for weight, ending in ((1.0, ""), (0.25, ":0.25"), (0.0, ":0")):
        changed: Any = load_pipeline(ModelOptions(str(model), lora=(f"style.safetensors{ending}",)))
        for layer, delta in change.items():
            plain, with_it = (p.unet.get_submodule(layer).weight.detach() for p in (pipe, changed))
            torch.testing.assert_close(with_it, plain + weight * delta, atol=1e-5, rtol=1e-4)

    animate("me.png", "you.png", "--lora", "style.safetensors:0.25", "-o", "a.png")
    assert (media.read_image("a.png") != media.read_image("plain.png")).any()
    assert scd("animate", "--like", "a.json", "-o", "b.png")[0] == 0
    np.testing.assert_array_equal(media.read_image("a.png"), media.read_image("b.png"))
    assert scd("animate", "--like", "a.json", "--lora", "style.safetensors:0", "-o", "c.png")[0] == 0
    np.testing.assert_array_equal(media.read_image("c.png"), media.read_image("plain.png"))
    assert scd("animate", "--like", "a.json", "--model", model, "-o", "e.png")[0] == 0
    np.testing.assert_array_equal(media.read_image("e.png"), media.read_image("plain.png"))
    write_lora(folder / "style.safetensors", pipe, "lcm")
    assert "style.safetensors has changed since a.json" in complaint(
        scd("animate", "--like", "a.json", "-o", "d.png")
    )


def test_loras_add_up(model, tmp_path):
    pipe: Any = load(model)
    layouts = ("kohya", "diffusers")
    changes = [write_lora(tmp_path / f"{layout}.safetensors", pipe, layout) for layout in layouts]
    names = (f"{tmp_path}/kohya.safetensors:0.5", f"{tmp_path}/diffusers.safetensors")
    both: Any = load_pipeline(ModelOptions(str(model), lora=names))
    for layer, delta in changes[0].items():
        plain, changed = (p.unet.get_submodule(layer).weight.detach() for p in (pipe, both))
        wanted = plain + 0.5 * delta + changes[1][layer]
        torch.testing.assert_close(changed, wanted, atol=1e-5, rtol=1e-4)


def test_a_loras_own_strength_stands_in_the_head_of_its_file(model, tmp_path):
    """Peft's alpha of twice the rank, as diffusers' training scripts write it."""
    path, pipe = tmp_path / "style.safetensors", load(model)
    changes = write_lora(path, pipe, "diffusers")
    adapter = {"r": 4, "lora_alpha": 8, "target_modules": sorted(changes)}
    head = {"lora_adapter_metadata": json.dumps({f"unet.{name}": value for name, value in adapter.items()})}
    save_file(load_file(path), path, {"format": "pt", **head})
    changed: Any = load_pipeline(ModelOptions(str(model), lora=(str(path),)))
    for layer, delta in changes.items():
        plain, with_it = (p.unet.get_submodule(layer).weight.detach() for p in (pipe, changed))
        torch.testing.assert_close(with_it, plain + 2 * delta, atol=1e-5, rtol=1e-4)


def test_wrong_loras_are_one_line(animate, folder, model):
    wrong = make_pipeline()
    write_lora(folder / "other.safetensors", wrong, "diffusers")
    save_file({"a": torch.zeros(1)}, folder / "empty.safetensors")
    whole = (folder / "other.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "code.bin").write_bytes(whole)
    for name, text in {
        "none.safetensors": "no such file", "none.safetensors:0.5": "no such file",
        "code.bin": "only .safetensors", "cut.safetensors": "damaged", "other.safetensors": "does not fit",
        "other.safetensors:nan": "a number", "empty.safetensors": "empty.safetensors",
    }.items():  # fmt: skip
        line = complaint(animate("me.png", "you.png", "--lora", name))
        assert text in line, line
        assert name.split(":")[0] in line


def test_like_refuses_what_has_changed(animate, scd, folder, model):
    animate("me.png", "you.png", "-o", "a.png")
    media.write_image("you.png", np.zeros((64, 64, 3), np.uint8), force=True)
    assert "you.png has changed since a.json" in complaint(scd("animate", "--like", "a.json", "-o", "b.png"))
    assert scd("animate", "--like", "a.json", "me.png", "you.png", "-o", "b.png")[0] == 0  # named: as it is
    os.remove("you.png")
    assert "you.png, which a.json was made from, is not here" in complaint(
        scd("animate", "--like", "a.json", "-o", "c.png")
    )
    record = json.loads((folder / "a.json").read_text())
    record["model"]["stamp"]["weights"] = "0" * 16
    (folder / "d.json").write_text(json.dumps(record))
    again = ("animate", "--like", "d.json", "me.png", "poses.npz", "-o", "d.png")
    assert "has changed" in complaint(scd(*again, "--force"))
    assert scd(*again, "--force", "--model", model)[0] == 0
    (folder / "e.json").write_text('{"kind": "animate"}')
    assert "no complete record" in complaint(scd("animate", "--like", "e.json"))
    (folder / "e.json").write_text("[]")
    assert "no record of `scd animate`" in complaint(scd("animate", "--like", "e.json"))
    assert "does not exist" in complaint(scd("animate", "--like", "f.json"))
    assert "carries no settings" in complaint(scd("animate", "--like", "me.png"))


def test_results_are_kept_unless_forced(animate, detector, folder):
    (folder / "a.json").touch()
    assert "a.json exists already: choose another name, or --force" in complaint(
        animate("me.png", "you.png", "-o", "a.png")
    )
    (folder / "b.jpg.json").touch()
    assert "b.jpg.json exists already" in complaint(animate("me.png", "you.png", "-o", "b.jpg"))
    assert detector.shapes == []  # refused before any work
    assert animate("me.png", "you.png", "-o", "a.png", "--force")[0] == 0
    before = media.file_hash("me.png")
    assert "is an input of this command" in complaint(animate("me.png", "you.png", "-o", "me.png", "--force"))
    assert media.file_hash("me.png") == before
    assert "a.png is a file, not a folder" in complaint(animate("me.png", "you.png", "-o", "a.png/b.png"))


def test_what_the_model_knows_is_said(animate, scd):
    assert "this model knows drawn people" in animate("me.png", "poses.npz", "-o", "a.png")[2]
    scd("world", "drawn.png", "--num", 1, "--views", 1, "--size", 96)
    assert animate("drawn.png", "poses.npz", "-o", "b.png")[2] == ""


def test_pose_files(animate, scd, folder, person):
    points = np.zeros((18, 3))
    points[:, :2], points[:, 2] = person.pose.joints[BODY] * 96, person.pose.scores[BODY]
    people = {"people": [{"pose_keypoints_2d": points.flatten().tolist()}]}
    (folder / "open.json").write_text(json.dumps(people))
    assert "how large its picture was" in complaint(animate("me.png", "open.json", "-o", "a.png"))
    assert animate("me.png", "open.json", "-o", "a.png", "--canvas", "192x96")[0] == 0
    assert media.read_image("a.png").shape == (16, 32, 3)
    assert scd("animate", "--like", "a.json", "-o", "b.png")[0] == 0  # the canvas is remembered
    assert animate("me.png", "poses.npz", "--person", 2, "-o", "alone.png")[0] == 0, "no number is asked"
    write_poses("gap.npz", [[person.pose], []])
    assert "frame 2 of 2 shows nobody" in complaint(animate("me.png", "gap.npz", "-o", "gap.png"))
    small = replace(person.pose, joints=(person.pose.joints / 4).astype(np.float32))
    write_poses("two.npz", [[person.pose, small]])
    write_poses("one.npz", [[person.pose]])
    assert "does not show person 3" in complaint(animate("me.png", "two.npz", "--person", 3))
    for name in ("one", "two"):
        assert animate("me.png", f"{name}.npz", "-o", f"{name}.png")[0] == 0
    np.testing.assert_array_equal(media.read_image("one.png"), media.read_image("two.png"))
    assert (
        animate("me.png", "two.npz", "--person", 2, "--reference-pose", "two.npz", "-o", "small.png")[0] == 0
    )
    assert (media.read_image("one.png") != media.read_image("small.png")).any()
    (folder / "cut.npz").write_bytes((folder / "poses.npz").read_bytes()[:200])
    assert "cut.npz is not a usable pose file" in complaint(animate("me.png", "cut.npz"))


def test_a_given_reference_pose_is_not_looked_for(animate, detector, folder, person):
    write_poses("mine.npz", [[person.pose]])
    assert animate("me.png", "poses.npz", "--reference-pose", "mine.npz", "-o", "a.png")[0] == 0
    assert detector.shapes == []
    assert animate("me.png", "poses.npz", "-o", "b.png")[0] == 0  # the fake finds the same
    np.testing.assert_array_equal(media.read_image("a-01.png"), media.read_image("b-01.png"))
    write_poses("wide.npz", [[world.Scene.from_seed(3).view(0, size=(48, 96)).pose]])
    assert "a picture of 96x48 pixels" in complaint(
        animate("me.png", "poses.npz", "--reference-pose", "wide.npz", "-o", "c.png")
    )


def test_two_people(animate, detector, scd):
    small = media.place((96, 96), (96, 96)).apply_to_pose(world.Scene.from_seed(6).view(0, size=96).pose)
    joints = np.where(small.scores[:, None] > 0, small.joints / 4, 0).astype(np.float32)
    detector.people = [type(small)(joints, small.scores, small.size), *detector.people]
    code, _, err = animate("me.png", "poses.npz", "-o", "a.png")
    assert code == 0
    assert "2 people in me.png: the largest, number 2 from the left" in err
    assert animate("me.png", "you.png", "--person", 2, "-o", "b.png")[2].count("people in") == 0
    assert "shows 2 person(s): --person 3" in complaint(
        animate("me.png", "you.png", "--person", 3, "-o", "c.png")
    )
    detector.people = []
    assert "no person found in me.png" in complaint(animate("me.png", "you.png", "-o", "c.png"))


# ---- pictures of all kinds ----


def truncated(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-1500])


BAD = {
    "missing.png": (lambda path: None, "does not exist"),
    "text.png": (lambda path: path.write_text("hello"), "is not a picture"),
    "empty.png": (lambda path: path.write_bytes(b""), "the file is empty"),
    "cut.jpg": (truncated, "damaged or cut off"),
    "dot.png": (lambda path: Image.new("RGB", (1, 1)).save(path), "too small (1x1 pixels)"),
    "folder.png": (lambda path: path.mkdir(), "is a folder"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("place", [0, 1])
def test_bad_pictures_are_one_line(animate, folder, name, place):
    make, text = BAD[name]
    make(folder / name)
    pictures = ["me.png", "you.png"]
    pictures[place] = name
    line = complaint(animate(*pictures, "-o", "a.png"))
    assert name in line
    # as a POSE, a folder would be one of frames or of JSON files
    assert (text if (name, place) != ("folder.png", 1) else "neither pictures nor .json pose files") in line
    assert not (folder / "a.png").exists()


def rotated(image, path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a phone held upright: to be turned by 90 degrees
    image.save(path, exif=exif)


GOOD = {
    "rotated.jpg": (rotated, (96, 64), ""),
    "cmyk.jpg": (lambda image, path: image.convert("CMYK").save(path), (64, 96), ""),
    "sixteen.png": (
        lambda image, path: Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257).save(path),
        (64, 96), "",
    ),
    "alpha.png": (lambda image, path: image.convert("RGBA").save(path), (64, 96), ""),
    "animated.gif": (
        lambda image, path: image.save(path, save_all=True, append_images=[image.rotate(90)]), (64, 96),
        "several frames: the first one is used",
    ),
    "huge.png": (
        lambda image, path: Image.new("L", (20_000, 640), 128).save(path, compress_level=1), (131, 4096),
        "read with the longer side at 4096",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_pictures_of_all_kinds(animate, folder, detector, name):
    make, shape, note = GOOD[name]
    make(Image.open("you.png").convert("RGB"), folder / name)
    code, _, err = animate("me.png", name, "-o", "a.png")
    assert code == 0
    assert detector.shapes == [(96, 96), shape]  # upright
    assert note in err
    assert len(err.splitlines()) == 1 + bool(note)  # the other line says that the model knows drawn people


# ---- models ----


def test_wrong_models_are_one_line(scd, folder, detector, model, monkeypatch):
    def paint(*options):
        return complaint(scd("animate", "me.png", "you.png", "-o", "a.png", *options))

    (folder / "empty").mkdir()
    assert "empty: no SCD model folder" in paint("--model", "empty")
    assert "no such folder" in paint("--model", "nowhere/at/all")
    assert "nobody/nothing" in paint("--model", "nobody/nothing")  # tests are offline
    shutil.copytree(model, "other")
    (folder / "other/model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    untrained = paint("--model", "other")
    assert "holds a StableDiffusionPipeline, which was never trained for SCD" in untrained
    assert "scd train sd15-pictures --init other" in untrained
    (folder / "other/model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    assert "holds a FluxPipeline, not an SCDPipeline" in paint("--model", "other")
    (folder / "other/model_index.json").write_text("[]")
    assert "no SCD model folder" in paint("--model", "other")
    (folder / "other/model_index.json").write_text(
        '{"_class_name": "SCDPipeline", "unet": ["diffusers", "Nothing"]}'
    )
    assert "its unet is a diffusers.Nothing, which is not there" in paint("--model", "other")
    (folder / "other/model_index.json").write_text('{"_class_name": "SCDPipeline"}')
    assert "other: no model that can be loaded" in paint("--model", "other")

    from safetensors.torch import load_file, save_file

    shutil.rmtree("other")
    shutil.copytree(model, "other")
    path = next((folder / "other/unet").glob("*.safetensors"))
    tensors = load_file(path)
    name = sorted(tensors)[0]
    del tensors[name]
    save_file(tensors, path, {"format": "pt"})
    assert name in paint("--model", "other")

    monkeypatch.setattr("scd.model.embedded_folder", lambda: folder / "none")
    assert "the embedded model is missing" in paint()
    assert "--size 33: a multiple of 8" in paint("--model", model, "--size", 33)
    assert "--steps 0" in paint("--model", model, "--steps", 0)
    assert "--steps 2000" in paint("--model", model, "--steps", 2000)
    assert "--guidance nan" in paint("--model", model, "--guidance", "nan")
    assert "--scheduler Heun: not a scheduler that fits this model; take one of DDIM, DDPM" in paint(
        "--model", model, "--scheduler", "Heun"
    )
    assert "--seed" in paint("--model", model, "--seed", -1)
    if not torch.cuda.is_available():
        assert "--device cuda: not available here" in paint("--model", model, "--device", "cuda")


# ---- what goes wrong on the way ----


def raising(error):
    def work(*_, **__):
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x.png"), "x.png: No space left on device"),
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory: use a smaller --size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
        (ValueError("sides\nmust fit"), "sides must fit"),
        (UserError("mend this"), "mend this"),
    ],
)
def test_errors_on_the_way_are_one_line(scd, folder, monkeypatch, error, text):
    monkeypatch.setattr("scd.cli.world.world", raising(error))
    assert text in complaint(scd("world", "a.png"))
    code, _, err = scd("world", "a.png", "-v")
    assert code == 2
    assert "Traceback" in err
    assert text in err.splitlines()[-1]


def test_mistakes_of_ours_keep_their_traceback(scd, monkeypatch):
    monkeypatch.setattr("scd.cli.world.world", raising(KeyError("x")))
    with pytest.raises(KeyError):
        main(["world", "a.png"])


def test_a_full_disk_leaves_nothing(animate, folder, monkeypatch):
    def full(self, path, *_, **__):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    before = sorted(os.listdir())
    monkeypatch.setattr(Image.Image, "save", full)
    code, _, err = animate("me.png", "you.png", "-o", "a.png")
    assert code == 2
    assert err.splitlines()[-1] == "scd: a.png cannot be written: the disk is full"
    assert sorted(os.listdir()) == before


def test_quiet_leaves_everything_as_it_was(scd, folder):
    loggers = logging.getLogger(), logging.getLogger("scd")
    another = logging.getLogger("another")
    assert another.isEnabledFor(logging.WARNING)
    before = [(x.level, x.propagate, list(x.handlers)) for x in loggers], list(warnings.filters)
    assert scd("world", "a.png", "-n", 1)[0] == 0
    assert ([(x.level, x.propagate, list(x.handlers)) for x in loggers], list(warnings.filters)) == before
    assert another.isEnabledFor(logging.WARNING), "a logger remembers what was not enabled"


def test_without_a_terminal_a_line_tells_how_far_it_is(capsys, monkeypatch):
    """Every half minute, of what is counted; what an earlier run did is no part of the pace."""
    clock = [0.0]
    monkeypatch.setattr("scd.cli.terminal.time.monotonic", lambda: clock[0])
    with progress("training", 10, "steps", done=4) as advance:
        for _ in range(6):
            clock[0] += 20
            advance(1, text="loss 0.5")
    with progress("writing", None) as advance:
        clock[0] += 100
        advance()
    assert capsys.readouterr().err.splitlines() == [
        "training: 6 of 10 steps, loss 0.5, 2 min left",
        "training: 8 of 10 steps, loss 0.5, 1 min left",
        "training: 10 of 10 steps, loss 0.5, 0 min left",
    ]


def test_ctrl_c_is_one_line(animate, folder, detector, monkeypatch):
    before = sorted(os.listdir())
    monkeypatch.setattr(detector, "detect", raising(KeyboardInterrupt()))
    assert animate("me.png", "you.png", "-o", "a.png") == (130, "", "scd: interrupted\n")
    assert sorted(os.listdir()) == before


def test_others_handlers_stay(scd, folder, monkeypatch):
    """A program that calls `main` may have its own; nohup's is to ignore."""
    seen = []
    for mine in (signal.SIG_IGN, lambda *_: None):
        before = [signal.signal(number, mine) for number in (signal.SIGTERM, signal.SIGHUP)]
        monkeypatch.setattr(
            "scd.cli.world.world",
            lambda _: seen.append([signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)]),
        )
        try:
            assert scd("world", "a.png", "-n", 1)[0] == 0
        finally:
            for number, handler in zip((signal.SIGTERM, signal.SIGHUP), before, strict=True):
                signal.signal(number, handler)
        assert seen[-1] == [mine, mine]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_for_real(tmp_path, number):
    """And a polite kill, and a terminal that is closed."""
    command = [sys.executable, "-m", "scd.cli", "world", "many", "--num", "100000", "--size", "32"]

    def heed():  # a job that a shell started in the background, as this one may be, ignores Ctrl-C
        signal.signal(number, signal.SIG_DFL)

    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    try:
        deadline = time.monotonic() + 60
        while not any(tmp_path.rglob("*.npz")):  # it is in the middle of its work
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "scd: interrupted\n")
    assert os.listdir(tmp_path) == []


# ---- the other verbs ----


def test_train_stops_whole_and_goes_on(scd, small_training, tmp_path, monkeypatch):
    run = tmp_path / "run"
    command = ("train", "world-tiny", "--run", run, "--steps", 4, "--save-every", 1, "--device", "cpu")
    save_file, files = checkpoint.save_file, []
    handler = signal.getsignal(signal.SIGINT)  # a shell's background jobs ignore it

    def interrupted(*arguments):
        save_file(*arguments)
        files.append(arguments[1])
        if len(files) == 4:  # the first of the second checkpoint's three files is written
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(checkpoint, "save_file", interrupted)
    assert scd(*command) == (130, "", "scd: interrupted; the same command continues after step 2\n")
    assert sorted(p.name for p in run.glob("checkpoint-*")) == ["checkpoint-00000001", "checkpoint-00000002"]
    assert not list(run.rglob("*.tmp"))
    assert signal.getsignal(signal.SIGINT) is handler

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    monkeypatch.setattr("scd.model.build", raising(AssertionError("the codec is the run's own")))
    assert "holds a run with other settings (config.json: seed);" in complaint(scd(*command, "--seed", 1))
    assert scd(*command) == (0, f"{run / 'model'}\n", "")
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == [1, 2, 3, 4]
    code, out, err = scd(*command)
    assert (code, out) == (0, f"{run / 'model'}\n"), "so that a script can be run again"
    assert "has its 4 steps already" in err


def test_a_run_without_checkpoints_takes_new_settings(small_training, tmp_path):
    config = replace(PRESETS["world-tiny"], init="scratch")
    first = start(config, tmp_path)
    assert start(config, tmp_path).stamp == first.stamp  # read back from the folder
    other = replace(config, network=replace(config.network, block_out_channels=(32, 32)))
    for pipe in (start(other, tmp_path), load(tmp_path / "model")):
        assert tuple(pipe.unet.config.block_out_channels) == (32, 32)


def test_train_starts_from_a_folder(small_training, tmp_path, model):
    config = replace(PRESETS["world-tiny"], init=str(model))
    pipe = start(config, tmp_path / "run")
    assert pipe.stamp == load(model).stamp
    with pytest.raises(UserError, match="no such folder"):
        start(replace(config, init="nowhere/at/all"), tmp_path / "run2")


def test_dry_run_writes_nothing(scd, folder, model):
    before = sorted(os.listdir())
    code, out, _ = scd("train", "world-tiny", "--dry-run", "--lr", "1e-4", "--data.size", 64)
    assert code == 0
    pipe = load(model)
    learnable = sum(p.numel() for net in (pipe.unet, pipe.pose_encoder) for p in net.parameters())
    assert f"{learnable:,}" in out
    config = json.loads(out[: out.index("\n}") + 2])
    assert (config["lr"], config["data"]["size"]) == (1e-4, 64)
    assert sorted(os.listdir()) == before


def test_kept_bytes_are_the_inputs_not_the_parameters():
    layer = torch.nn.Linear(5, 7)
    with saved_bytes(layer) as saved:
        layer(torch.zeros(3, 5, requires_grad=True)).sum()
    assert saved() == 4 * 3 * 5


def test_dry_run_counts_what_autograd_keeps(model):
    """The meta device's count is that of a real forward pass; gradient checkpointing keeps less."""
    config = PRESETS["world-tiny"]

    def estimate(**changes):
        pipe = load(model)
        return activation_bytes(replace(config, **changes), pipe.unet, pipe.pose_encoder, 8)

    pipe = load(model)
    trainee = training.Trainee(pipe).train()
    groups, references, targets = config.data.groups, len(config.data.references), config.data.targets
    rows, width = groups * targets, pipe.unet.config.cross_attention_dim
    with saved_bytes(trainee) as saved:
        trainee(
            torch.zeros(groups, references, 8, 4, 4), torch.zeros(rows, 8, 4, 4),
            torch.zeros(rows, dtype=torch.long),
            torch.zeros(groups, references, 3, 32, 32), torch.zeros(rows, 3, 32, 32),
            (torch.zeros(groups * references, references, width), torch.zeros(rows, references, width)),
            [row // targets for row in range(rows)],
        )  # fmt: skip
    assert estimate() == pytest.approx(saved(), rel=0.1)
    assert estimate(checkpointing=True) < 0.5 * estimate()
    assert estimate(precision="bf16") == pytest.approx(estimate() / 2, rel=0.2)  # some norms stay float32
    reader = adapt(picture_copy(pipe.unet))
    two = activation_bytes(config, pipe.unet, pipe.pose_encoder, 8, reader)
    # The same rows pass, but the reference network's tail keeps nothing, and projections keep features
    assert 0.8 * estimate() < two < 1.2 * estimate()


def test_evaluate_prints_a_table_then_json(scd, folder, detector, model):
    command = ("evaluate", "world", "--num", 2, "--steps", 1, "--model", model, "--sheet", "sheet.png")
    code, out, _ = scd(*command)
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert (result["num_pictures"], result["num_steps"], result["model"]) == (2, 1, str(model))
    assert 0 < result["masked_psnr"] < result["masked_psnr_vae"]
    assert "masked_psnr_no_reference" in "".join(out.splitlines()[:-1])
    assert media.read_image("sheet.png").size
    assert "sheet.png exists already" in complaint(scd(*command))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("world", "--sheet", "a.txt"), "a.txt: a sheet's name ends in .png"),
        (("world-tryon", "--sheet", "a"), "a: a sheet's name ends in .png"),
        (("world-video", "--lpips", "none.safetensors"), "--lpips: of world-tryon, not of world-video"),
        (("world", "--frames", 8), "--frames: of world-video, not of world"),
    ],
)
def test_what_an_evaluation_cannot_use_is_said_before_any_work(scd, folder, monkeypatch, words, text):
    monkeypatch.setattr("scd.cli.measure.load_pipeline", None)
    assert text in complaint(scd("evaluate", *words))


def test_bench_prints_a_table_then_json(scd, model):
    code, out, _ = scd("bench", "--num", 2, "--steps", 1, "--model", model)
    result = json.loads(out.splitlines()[-1])
    assert code == 0
    assert (result["num_rounds"], result["model"], result["size"]) == (2, str(model), 32)


def test_pose_writes_what_it_finds(scd, folder, detector, person):
    assert scd("pose", "me.png", "--draw", "drawn.png") == (
        0,
        "out/me.npz: 1 frame, 1 person\ndrawn.png\n",
        "",
    )
    found = read_poses("out/me.npz").frames[0][0]
    np.testing.assert_allclose(found.joints, person.pose.joints, atol=1e-6)
    assert (media.read_image("drawn.png") != media.read_image("me.png")).any()
    assert "out/me.npz exists already" in complaint(scd("pose", "me.png"))
    assert scd("pose", "poses.npz", "-o", "again.npz", "--draw", "black.png")[0] == 0
    assert media.read_image("black.png")[0].max() == 0
    detector.people = []
    assert "no person found in me.png" in complaint(scd("pose", "me.png", "-o", "none.npz"))


def test_world_draws_sheets_and_data_sets(scd, folder):
    assert scd("world", "--num", 2, "--views", 3, "--size", 32) == (0, "out/world.png\n", "")
    assert media.read_settings("out/world.png")["kind"] == "world"
    assert scd("world", "one.png", "--num", 1, "--views", 1, "--seed", 3, "--size", 96)[0] == 0
    np.testing.assert_array_equal(media.read_image("one.png"), media.read_image("me.png"))
    command = ("world", "set", "--num", 2, "--views", 2, "--size", 32, "--seed", 5, "--first-view", 1)
    assert scd(*command)[0] == 0
    truth = world.Scene.from_seed(6).view(2, size=32)
    np.testing.assert_array_equal(media.read_image("set/00000006/002.png"), truth.image)
    np.testing.assert_array_equal(read_poses("set/00000006/poses.npz").frames[1][0].joints, truth.pose.joints)
    assert "set exists already" in complaint(scd(*command))
    assert scd(*command, "--force")[0] == 0
    (folder / "mine").mkdir()
    (folder / "mine/letter.txt").write_text("dear")
    message = complaint(scd("world", "mine", "--force"))
    assert "mine has no world.json of scd's: name a new folder" in message
    assert (folder / "mine/letter.txt").exists()


def test_world_draws_where_a_link_points_to(scd, folder):
    (folder / "disk").mkdir()
    (folder / "link").symlink_to(folder / "disk")
    command = ("world", "link", "--num", 2, "--views", 1, "--size", 32)
    assert scd(*command)[0] == 0
    assert scd(*command, "--seed", 5, "--force")[0] == 0
    assert (folder / "link").is_symlink()
    assert sorted(path.name for path in (folder / "disk").iterdir()) == ["00000005", "00000006", "world.json"]
    assert not list(folder.glob(".*.tmp"))


def test_doctor_names_what_is_missing(scd, folder, model, monkeypatch):
    from scd import doctor

    monkeypatch.setattr("scd.pose.detect.MediaPipeDetector", FakeDetector)
    monkeypatch.setattr(doctor, "files", lambda package: folder)
    monkeypatch.setenv("SCD_CACHE", str(folder / "cache"))
    (folder / "cache" / "poses").mkdir(parents=True)
    (folder / "cache" / "poses" / "a.npz").write_bytes(bytes(2_500_000))
    of_a_dataset = folder / "cache" / "data" / "0123" / "scd" / "poses"
    of_a_dataset.mkdir(parents=True)
    (of_a_dataset / "b.npz").write_bytes(bytes(1_000_000))
    code, out, _ = scd("doctor")
    assert code == 1
    assert "poses of 2 clips are kept, 3.5 MB in " in out
    assert "MISSING  the embedded model is missing\n         -> get the repository anew" in out

    shutil.copytree(model, "weights/embedded")
    code, out, _ = scd("doctor")
    assert code == 0
    assert f"torch {torch.__version__}" in out
    assert "everything essential works" in out

    card = json.loads((folder / "weights/embedded/model_index.json").read_text())
    (folder / "weights/embedded/model_index.json").write_text(json.dumps({**card, "world_version": 0}))
    monkeypatch.setattr("scd.pose.detect.MediaPipeDetector", raising(UserError("no MediaPipe here")))
    versions = {"opencv-python": "4.1", "opencv-python-headless": "4.2"}
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, "1.0"))
    monkeypatch.setattr(doctor, "OPENCVS", ("opencv-python", "opencv-python-headless"))
    code, out, _ = scd("doctor")
    assert code == 0  # pose files still work
    assert "learnt world version 0" in out
    assert "2 OpenCVs overwrite each other: opencv-python 4.1, opencv-python-headless 4.2" in out
    assert "does not start (no MediaPipe here)" in out
    shutil.rmtree("weights/embedded/unet")
    assert "the embedded model lacks unet" in scd("doctor")[1]


def test_the_examples_show_people():
    """What `make run` finds, with the detector that it uses."""
    pytest.importorskip("mediapipe")
    from scd.pose.detect import detect_one

    for name in ("reference", "pose"):
        path = Path(__file__).parents[1] / "examples" / f"{name}.png"
        settings = media.read_settings(path)
        assert (settings["kind"], settings["world_version"]) == ("world", world.VERSION)
        truth = world.Scene.from_seed(settings["seed"]).view(0, size=settings["size"]).pose
        found = detect_one(media.read_image(path), name_for_errors=name)
        seen = truth.scores[BODY] == 1
        assert np.median(np.linalg.norm(found.joints[BODY] - truth.joints[BODY], axis=1)[seen]) < 0.03
