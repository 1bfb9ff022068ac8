"""The demo page: its buttons run what `scd animate` runs; it is local, silent, and optional."""

import gc
import socket
import sys

import numpy as np
import pytest
import torch
from test_cli import complaint, raising
from test_cli_clip import FakeDetector

from scd import SCDPipeline, media, model, world
from scd import demo as page_module
from scd.backbones.motion import new_motion_adapter
from scd.cli import main
from scd.cli.options import Demo, ModelOptions
from scd.config import PRESETS
from scd.demo import Studio, build, draw_example
from scd.types import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pipe():
    pipe = model.build(PRESETS["world-tiny"])
    torch.manual_seed(0)
    torch.nn.init.normal_(pipe.pose_encoder.conv_out.weight)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """The page's fields: a photo, four frames of a dance, and detectors that find a person."""
    person, dance = world.Scene.from_seed(3), world.Scene.from_seed(5)
    monkeypatch.setenv("SCD_CACHE", str(tmp_path / "cache"))
    fake = FakeDetector(person.view(0, size=64).pose)
    monkeypatch.setattr("scd.pose.detect.get_detector", lambda name="mediapipe": fake)
    media.write_image(tmp_path / "me.png", person.view(0, size=64).image)
    media.write_clip(tmp_path / "dance.mp4", (v.image for v in dance.clip("dance", 4, 10, 64)), 10)
    return {
        "photo": str(tmp_path / "me.png"), "driving": str(tmp_path / "dance.mp4"), "max_frames": 3,
        "person": "largest", "face": "full", "steps": 2, "guidance": 1.0, "seed": 4,
    }  # fmt: skip


@pytest.fixture
def studio(pipe, tmp_path):
    return Studio(pipe, ModelOptions(device="cpu"), tmp_path / "results")


@pytest.fixture
def gradio():
    """Building a page leaves event loops open (gradio 6.31): they are swept up here, in no other test."""
    yield pytest.importorskip("gradio")
    gc.collect()


no_matter = pytest.mark.filterwarnings("ignore::ResourceWarning")


def test_an_empty_field_is_the_model_s_own(studio, settings):
    """Not what the button before was given."""
    own = (studio.pipe.config.default_steps, studio.pipe.config.default_guidance)
    for asked, used in (((2, 1.5), (2, 1.5)), ((None, None), own)):
        fields = {"max_frames": 1, "steps": asked[0], "guidance": asked[1]}
        clip, _, _ = studio.generate({**settings, **fields})
        record = media.read_settings(clip)
        assert (record["steps"], record["guidance"]) == used


def test_the_buttons_run_what_the_command_line_runs(studio, settings, tmp_path):
    told = []
    preview, notes = studio.preview(settings, lambda share, label: told.append((label, share)))
    assert media.open_clip(preview).num_frames == 3
    assert notes.startswith("driver and reference match ")
    assert ("finding poses", 1.0) in told
    told.clear()
    clip, both, notes = studio.generate(settings, lambda share, label: told.append((label, share)))
    assert media.open_clip(clip).num_frames == media.open_clip(both).num_frames == 3
    assert ("painting", 1.0) in told
    assert "it paints frame by frame, and the clip will flicker" in notes, "what the terminal would say"
    record = media.read_settings(clip)
    assert (record["seed"], record["steps"], record["frames"]) == (4, 2, 3)

    import scd.cli.clip as clips

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "load_pipeline", lambda options: studio.pipe)
        arguments = ["animate", settings["photo"], settings["driving"], "-o", str(tmp_path / "same.mp4"),
                     "--seed", "4", "--max-frames", "3"]  # fmt: skip
        assert main(arguments) == 0
    for mine, other in zip(media.open_clip(clip), media.open_clip(tmp_path / "same.mp4"), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_results_have_names_of_their_own(studio, settings):
    assert studio.preview(settings)[0] != studio.preview(settings)[0]


@pytest.mark.parametrize("moving", [False, True], ids=["pictures", "clips"])
def test_stop_leaves_nothing_half_made(pipe, studio, settings, moving):
    if moving:  # a clip's state is saved every few steps
        studio.pipe = SCDPipeline.from_pipe(pipe, motion_adapter=new_motion_adapter(pipe.unet, 2))
        studio.pipe.set_progress_bar_config(disable=True)
    fields = {**settings, "steps": 8}
    seen, kept = [], []

    def report(share, label):
        seen.append(label)
        if label == "painting" and share > 0.6:
            kept.extend(studio.folder.glob("*.work"))
            studio.stop()

    with pytest.raises(UserError, match=r"^stopped$"):
        studio.generate(fields, report)
    assert seen[-1] == "painting"
    assert bool(kept) == moving
    assert not list(studio.folder.iterdir())
    clip, *_ = studio.generate(settings)
    assert clip.exists(), "what is asked for next runs"


def test_a_stop_between_the_click_and_the_work_counts(studio, settings):
    studio.begin()
    studio.stop()
    with pytest.raises(UserError, match=r"^stopped$"):
        studio.preview(settings)
    studio.stop()  # nothing runs
    studio.begin()
    assert studio.preview(settings)[0].exists()


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("photo", None, "give a photo of a person first"),
        ("driving", None, "give a driving clip first"),
        ("steps", 0, "--steps 0: one step at least"),
        ("steps", 2.5, "steps: a whole number, not 2.5"),
        ("person", "left", "--person left: say"),
        ("max_frames", 0, "--max-frames 0"),
    ],
)
def test_what_a_user_gets_wrong(studio, settings, name, value, text):
    with pytest.raises(UserError, match=text):
        studio.generate({**settings, name: value})


def test_files_are_called_by_their_names(studio, settings, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    with pytest.raises(UserError) as error:
        studio.preview({**settings, "photo": str(broken)})
    assert str(error.value).startswith("broken.png is not a picture")


def test_the_example_is_drawn(tmp_path):
    photo, driving = draw_example(tmp_path)
    assert media.read_settings(photo)["kind"] == "world"
    assert media.open_clip(driving).num_frames == 45


@no_matter
def test_the_page(gradio, studio, settings, monkeypatch, tmp_path):
    """Made without the network; its functions give files and notes, and show one line for mistakes."""

    def refuse(self, address):
        raise AssertionError(f"reached for {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(page_module, "draw_example", lambda folder: (settings["photo"], settings["driving"]))
    page = build(studio)
    assert page.analytics_enabled is False
    functions = {fn.name: fn for fn in page.fns.values()}
    assert {"previewed", "generated"} <= functions.keys()
    names = {
        "photo": "photo", "driving clip": "driving", "frames at most": "max_frames", "person": "person",
        "driver's face": "face", "steps": "steps", "guidance": "guidance", "seed": "seed",
    }  # fmt: skip
    inputs = functions["generated"].inputs
    given = {part: settings[names[part.label]] for part in inputs}
    assert len(given) == len(settings)
    preview, _ = functions["previewed"].fn(given)
    clip, both, notes = functions["generated"].fn(given)
    assert all(media.open_clip(path).num_frames == 3 for path in (preview, clip, both))
    assert "match" in notes
    photo = next(part for part in inputs if part.label == "photo")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    upload = photo.data_model(path=str(tmp_path / "broken.png"))
    assert photo.preprocess(upload) == str(tmp_path / "broken.png"), "not looked into by gradio"
    with pytest.raises(gradio.Error) as error:
        functions["generated"].fn({**given, photo: None})
    assert (error.value.message, error.value.print_exception) == ("give a photo of a person first", False)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert error.value.title == "Error"
    monkeypatch.setattr(studio, "generate", raising(UserError("stopped")))
    with pytest.raises(gradio.Error, match="stopped") as error:
        functions["generated"].fn(given)
    assert error.value.title == "Stopped"
    monkeypatch.setattr(studio, "generate", full)
    with pytest.raises(gradio.Error, match="not enough memory"):
        functions["generated"].fn(given)


@no_matter
def test_the_page_is_for_this_computer_only(gradio, pipe, monkeypatch, settings):
    told = {}
    monkeypatch.setattr(gradio.Blocks, "launch", lambda self, **options: told.update(options))
    monkeypatch.setattr(gradio.Blocks, "block_thread", lambda self: None)
    monkeypatch.setattr(page_module, "load_pipeline", lambda options: pipe)
    monkeypatch.setattr(page_module, "draw_example", lambda folder: (settings["photo"], settings["driving"]))
    assert main(["demo", "--port", "7999"]) == 0
    assert (told["server_name"], told["server_port"], told["share"]) == ("127.0.0.1", 7999, False)
    assert not any(told[name] for name in ("run_history", "enable_monitoring", "mcp_server", "inbrowser"))

    def taken(self, **_):
        raise OSError("Cannot find empty port")

    monkeypatch.setattr(gradio.Blocks, "launch", taken)
    with pytest.raises(UserError, match="--port 7999: is taken"):
        page_module.demo(Demo(7999))


def test_without_gradio(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code = main(["demo"])
    line = complaint((code, *capsys.readouterr()))
    assert "the demo page needs Gradio" in line
    assert "pip install 'scd[demo]'" in line
    code = main(["demo", "--port", "0"])
    assert "--port 0: choose" in complaint((code, *capsys.readouterr()))
