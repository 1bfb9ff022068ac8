"""A run folder: what training finds there, and what it never takes for its own."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from scd import checkpoint, machine, model, records, run_folder, train
from scd.cli.train import _stopping_between_steps
from scd.config import PRESETS
from scd.types import UserError

TINY = replace(PRESETS["world-tiny"], steps=2, tracker="none", sample_pictures=0)
WORDS = ("train", "world-tiny", "--steps", 2, "--tracker", "none", "--sample-pictures", 0, "--device", "cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "finished"
    train.train(TINY, run, model.start(TINY, run))
    return run


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def without_checkpoints(run: Path) -> None:
    for path in checkpoint.checkpoints(run):
        shutil.rmtree(path)


def without_settings(run: Path) -> None:
    (run / "config.json").unlink()


def of_somebody(run: Path) -> None:
    for path in run.iterdir():
        if path.name != "model":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def only_a_log(run: Path) -> None:
    of_somebody(run)
    shutil.rmtree(run / "model")
    (run / "log.jsonl").write_text('{"step": 9, "mine": 1}\n')


def of_a_hub(run: Path) -> None:
    of_somebody(run)
    (run / "config.json").write_text('{"architectures": ["Bert"]}')


def with_an_old_model(run: Path) -> None:
    only_a_log(run)
    (run / "model.old").mkdir()
    (run / "model.old/theirs").write_text("")


def with_nothing(run: Path) -> None:
    only_a_log(run)
    (run / "config.json").write_text("{}")


def test_a_finished_run_is_said_to_be_without_its_checkpoints_too(scd, run):
    """They may have been removed to save space; a script of several stages goes on with its model."""
    without_checkpoints(run)
    before = contents(run)
    code, out, err = scd(*WORDS, "--run", run)
    assert (code, out) == (0, f"{run / 'model'}\n")
    assert "has its 2 steps already" in err
    assert contents(run) == before


@pytest.mark.parametrize(
    ("change", "words", "text"),
    [
        (lambda _: None, ("--seed", 5), "holds a run with other settings (config.json: seed)"),
        (
            without_checkpoints,
            ("--steps", 3),
            "its model has learnt 2 steps, and no checkpoint is left to go",
        ),
        (without_checkpoints, ("--seed", 5), "its model has learnt 2 steps"),
        (without_settings, (), "its config.json is missing"),
        (of_somebody, (), "run/model: no training run of scd's wrote it"),
        (only_a_log, (), "run/log.jsonl: no training run of scd's wrote it"),
        (of_a_hub, (), "run/config.json: no readable training config (unknown settings architectures"),
        (with_an_old_model, (), "run/log.jsonl: no training run of scd's wrote it"),
        (with_nothing, (), "run/config.json: no training run of scd's wrote it"),
        (lambda _: None, ("--tracker", "foo", "--steps", 3), "--tracker foo: not known"),
    ],
)
def test_what_stands_in_a_run_folder_is_left_as_it_is(scd, run, change, words, text):
    change(run)
    before = contents(run)
    code, out, err = scd(*WORDS, "--run", run, *words)
    assert (code, out) == (2, "")
    assert text in err
    assert len(err.splitlines()) == 1
    assert contents(run) == before


def test_a_run_that_was_killed_while_it_began_begins_again(tmp_path, monkeypatch):
    """Whether before its first model stood, or after; with other settings, too."""

    def killed(*_):
        raise KeyboardInterrupt

    for name in ("export", "to_json"):  # to_json: of config.json, which is written last
        run = tmp_path / name
        model.start(TINY, run)  # it died before its first checkpoint
        with monkeypatch.context() as patch:
            patch.setattr(model, name, killed)
            with pytest.raises(KeyboardInterrupt):
                model.start(replace(TINY, seed=5), run)
        model.start(TINY, run)
        assert run_folder.is_own(run, TINY)
        assert run_folder.learnt(run) == 0


def test_a_run_of_python_s_that_was_cut_off_at_once_goes_on(tmp_path, monkeypatch):
    """Nobody called `start`, and there was no checkpoint yet."""
    with monkeypatch.context() as patch:
        patch.setattr(train, "step_loss", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train.train(TINY, tmp_path, model.build(TINY))
    assert not checkpoint.checkpoints(tmp_path)
    train.train(TINY, tmp_path, model.build(TINY))
    assert run_folder.learnt(tmp_path) == 2


def test_a_lora_needs_what_it_began_with_to_go_on(scd, run, tmp_path, monkeypatch):
    """Its model/ holds the sum; that the start is gone is said before poses are looked for."""
    lora = tmp_path / "lora"
    words = (*WORDS, "--run", lora, "--init", run / "model", "--learn", "lora")
    assert scd(*words)[0] == 0
    (run / "model").rename(tmp_path / "away")
    monkeypatch.setattr("scd.cli.train.ready", lambda *_, **__: pytest.fail("poses are looked for"))
    code, _, err = scd(*words, "--steps", 3)
    assert code == 2
    assert f"--init {run / 'model'}: no such folder" in err


def test_mistakes_are_refused_before_anything_is_looked_for_or_written(scd, tmp_path, monkeypatch):
    (tmp_path / "clips/a/images").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("scd.cli.train.ready", lambda *_, **__: pytest.fail("poses are looked for"))
    command = ("train", "tiktok-stage1", "--data.root", tmp_path / "clips", "--device", "cpu")
    run = ("--run", tmp_path / "run")
    for words, text in (
        ((*run, "--init", "nope"), "--init nope: no such folder"),
        (run, "--init: give the folder"),
        ((*run, "--init", "embedded", "--tracker", "foo"), "--tracker foo: not known"),
        (("--run", tmp_path / "file", "--init", "embedded"), f"{tmp_path / 'file'}: is a file"),
        (("--run", tmp_path / "file/run", "--init", "embedded"), f"{tmp_path / 'file'}: is a file"),
    ):
        code, _, err = scd(*command, *words)
        assert (code, err.count("\n")) == (2, 1)
        assert text in err
    assert not (tmp_path / "run").exists()


def test_copies_of_checkpoints_are_none(run):
    saved = checkpoint.checkpoints(run)
    for name in ("checkpoint-best", "checkpoint-00000002 (copy)", "checkpoint-99.old"):
        shutil.copytree(saved[-1], run / name)
    assert checkpoint.checkpoints(run) == saved
    longer = replace(TINY, steps=3)
    train.train(longer, run, model.start(longer, run))
    assert (run / "checkpoint-best").is_dir()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("log.jsonl", '{"step": 1}\n{"loss": 1}\n', "log.jsonl, line 2: is damaged"),
        ("log.jsonl", '{"step": 1\n}\n', "log.jsonl, line 2: is damaged"),
        ("model.json", '{"step"', "model.json: is damaged, or no training run's"),
        ("model.json", "[]", "model.json: is damaged, or no training run's"),
        ("checkpoint-00000002/state.json", "{}", "checkpoint-00000002: damaged checkpoint (state.json lacks"),
        ("checkpoint-00000002/state.json", "[]", "checkpoint-00000002: damaged checkpoint"),
        ("config.json", "{", "config.json: no readable training config"),
    ],
)
def test_damaged_records_are_named(scd, run, name, text, said):
    (run / name).write_text(text)
    code, _, err = scd(*WORDS, "--run", run, "--steps", 3)
    assert code == 2
    assert said in err
    assert "Traceback" not in err


def test_a_full_disk_is_named_where_the_log_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.json, "dumps", full)
    with pytest.raises(UserError, match=r"log\.jsonl cannot be written: the disk is full"):
        records.append(tmp_path, {"step": 1})


class Broken(Dataset):
    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int):
        raise UserError("a.mp4: cannot be read")


def test_readers_end_with_an_error():
    """They ignore SIGTERM, by which Python ends them at its exit, and then waits for them."""
    loader = DataLoader(Broken(), num_workers=1, worker_init_fn=machine.yield_the_cores)
    with pytest.raises(UserError, match=r"a\.mp4"), train._batches(loader) as batches:
        next(batches)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_before_the_first_step_ctrl_c_acts_at_once(number):
    """Latents may be encoded before it, for hours."""
    before = signal.signal(number, signal.SIG_DFL)  # nohup ignores one of them
    try:
        with pytest.raises(KeyboardInterrupt), _stopping_between_steps():
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--overfit -1", "--overfit -1: 0 at least"),
        ("--network.head-channels 0", "--network.head-channels 0: 1 at least"),
        ("--data.workers -1", "--data.workers -1: 0 at least"),
        ("--seed -1", "--seed -1: 0 at least"),
        ("--lr nan", "--lr nan: 0 at least"),
        ("--lr inf", "--lr inf: 1000 at most"),
        ("--data.strides 1 0", "--data.strides 1 0: 1 at least"),
        ("--data.strides", "--data.strides: one value at least"),
        ("--sample-pictures -1", "--sample-pictures -1: 0 at least"),
        ("--drop-reference 2", "--drop-reference 2.0: 1 at most"),
        ("--ema-decay 2", "--ema-decay 2.0: 0.999999 at most"),
        ("--head-weight -1", "--head-weight -1.0: 0 at least"),
        ("--data.gap -5", "--data.gap -5: 0 at least"),
        ("--network.block-out-channels 32 48", "multiples of 32 and of --network.head-channels"),
        ("--network.attention-up True", "as many values each"),
    ],
)
def test_settings_out_of_range_are_named(scd, tmp_path, words, text):
    code, _, err = scd("train", "world-tiny", "--run", tmp_path / "run", *words.split())
    assert code == 2
    assert text in err
    assert not (tmp_path / "run").exists()


def test_every_number_of_a_preset_is_in_range():
    """A setting that is added to the config is not forgotten: json has them all."""
    from scd.cli.train import _RANGES, _require_ranges
    from scd.config import TrainConfig, to_json

    for preset in PRESETS.values():
        _require_ranges(preset)
    values = json.loads(to_json(TrainConfig()))
    flat = {**values, **{f"{part}.{k}": v for part in ("data", "network") for k, v in values[part].items()}}
    numbers = {
        name.replace("_", "-")
        for name, value in flat.items()
        for one in (value if isinstance(value, list) else [value])
        if isinstance(one, int | float) and not isinstance(one, bool)
    }
    elsewhere = {"data.tasks", "data.references", "data.garments", "data.size"}  # in _require_sense
    assert numbers - elsewhere == {name for name, *_ in _RANGES}
