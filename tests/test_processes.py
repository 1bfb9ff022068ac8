"""Training in several processes, and training that is killed: the run that it would have been anyway."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_picture, make_pipeline, make_pose
from diffusers import LCMScheduler
from safetensors.torch import load_file
from test_clips import make_motion_pipeline

from scd import SCDPipeline, checkpoint, machine, records, run_folder, train
from scd.config import PRESETS, to_json
from scd.data.world import FIRST_TRAINING_SEED
from scd.model import load, start
from scd.overfit import fixed_loss
from scd.pose_encoder import PoseEncoder
from scd.types import UserError

OPTIONS = ("world-tiny", "--data.workers", 1, "--log-every", 2, "--save-every", 3, "--sample-pictures", 0,
           "--tracker", "none")  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    make_motion_pipeline().save_pretrained(folder)  # pictures learn nothing in its temporal layers
    return folder


def launch(*options, process_group=False, **environment) -> subprocess.Popen:
    """`scd train` as `accelerate launch` starts it."""
    command = [sys.executable, "-m", "scd.train", *OPTIONS, *options]
    one = {"OMP_NUM_THREADS": "1"}  # so that sums are in the same order everywhere
    return subprocess.Popen(
        [str(word) for word in command], env={**os.environ, **one, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=process_group,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    return out


def curve(run: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def learnt(run: Path) -> dict[str, torch.Tensor]:
    last = checkpoint.checkpoints(run)[-1]
    return {
        f"{file} {name}": tensor
        for file in ("model", "ema")
        for name, tensor in load_file(last / f"{file}.safetensors").items()
    }


@pytest.mark.parametrize("stages", [(4,), pytest.param((4, 6), marks=pytest.mark.slow)])
def test_two_processes_resume_as_one_that_accumulates_two(tiny, tmp_path, stages):
    """Same samples, same noise, gradients averaged: the same run up to the order of sums."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = [{"RANK": str(r), "LOCAL_RANK": str(r)} for r in (0, 1)]
    both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for steps in stages:
        command = ("--init", tiny, "--run", tmp_path / "two", "--device", "cpu", "--steps", steps)
        said = [finish(p) for p in [launch(*command, **both, **rank) for rank in ranks]]
        assert said == [f"{tmp_path / 'two' / 'model'}\n", ""]
    finish(launch("--init", tiny, "--run", tmp_path / "one", "--accumulation", 2, "--steps", stages[-1]))
    assert [step for step, _ in curve(tmp_path / "two")] == list(range(2, stages[-1] + 1, 2))
    assert np.allclose(curve(tmp_path / "two"), curve(tmp_path / "one"), rtol=1e-5)
    one, two = learnt(tmp_path / "one"), learnt(tmp_path / "two")
    assert one.keys() == two.keys()
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5
    rows = [
        json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-2]) for name in ("one", "two")
    ]
    assert rows[0]["targets"] == rows[1]["targets"] == stages[-1] * 2 * 4
    assert np.allclose([rows[0][f"loss_t{i}"] for i in range(4)], [rows[1][f"loss_t{i}"] for i in range(4)])


def test_processes_take_turns():
    whole = list(train.Turns(3, 9, 4))
    assert whole == list(range(12, 36))
    shares = [list(train.Turns(3, 9, 4, rank, 2)) for rank in (0, 1)]
    assert [shares[turn % 2][turn // 2 * 4 + i] for turn in range(6) for i in range(4)] == whole


def test_what_processes_counted_is_the_first_one_s():
    """The levels' errors and the loss of matches; of three, of which one had neither."""
    tallies = [records.Tally() for _ in range(3)]
    whole = records.Tally()
    for number, values in enumerate(((0.1, 0.9), (0.6,))):
        levels = torch.tensor(values)
        for tally in (tallies[number], whole):
            tally.count(levels, levels * 3 + number, torch.ones(len(values)))
            tally.matches += values
    counts: list[list[float]] = []
    for tally in tallies:
        tally.share(lambda own: counts.append(own) or own, False)
        assert tally.row() == {}, "it is the first one's now"
    first = records.Tally()
    first.share(lambda _: [sum(parts) for parts in zip(*counts, strict=True)], True)
    assert first.row() == pytest.approx(whole.row())
    assert len(first.row()) == 4  # three levels, and matches
    first.share(lambda own: own, True)
    assert first.row() == pytest.approx(whole.row()), "twice is once"


def kill_often(tiny: Path, folder: Path, kills: int) -> None:
    """Kill a run at random moments, every other time inside a save; then let it end."""
    steps = 4 * kills + 4
    command = ("--init", tiny, "--steps", steps, "--save-every", 1)
    whole = launch(*command, "--run", folder / "whole")
    random, run, inside = np.random.default_rng(0), folder / "killed", 0
    for kill in range(kills):
        begun = len(curve(run)) if (run / "log.jsonl").exists() else 0
        process = launch(*command, "--run", run)
        while process.poll() is None and not ((run / "log.jsonl").exists() and len(curve(run)) > begun):
            time.sleep(0.01)
        if kill % 2:
            time.sleep(random.uniform(0, 0.5))
        else:
            while process.poll() is None and not list(run.glob("checkpoint-*.tmp")):
                time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        inside += bool(list(run.glob("checkpoint-*.tmp")))
        for path in checkpoint.checkpoints(run):
            assert json.loads((path / "state.json").read_text())["step"] == int(path.name[-8:])
    finish(launch(*command, "--run", run))
    finish(whole)
    assert inside  # else nothing was killed while it wrote
    assert curve(run) == curve(folder / "whole")
    a, b = learnt(run), learnt(folder / "whole")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert load(run / "model", "cpu", "float32").stamp == load(folder / "whole/model", "cpu", "float32").stamp


def test_a_kill_leaves_the_last_checkpoint_and_the_same_curve(tiny, tmp_path):
    kill_often(tiny, tmp_path, 2)


def test_a_cluster_that_ends_a_job_loses_no_step(tiny, tmp_path):
    """SIGTERM reaches every process, those that read data too; --save-every would lose all of the steps."""
    process = launch(
        "--init", tiny, "--run", tmp_path, "--steps", 100_000, "--save-every", 99_999, process_group=True
    )
    while process.poll() is None and not (tmp_path / "log.jsonl").exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    (kept,) = checkpoint.checkpoints(tmp_path)
    assert err.splitlines()[-1].endswith(f"the same command continues after step {checkpoint.step_of(kept)}")


@pytest.mark.slow
def test_twenty_kills_leave_the_same_curve(tiny, tmp_path):
    kill_often(tiny, tmp_path, 20)


def test_a_kill_between_two_models_leaves_the_older_one(tmp_path, monkeypatch):
    """`model/` is swapped in two renames."""
    pipe = make_pipeline()
    checkpoint.export(pipe, tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / "model.old")
    checkpoint.put_back(tmp_path / "model")
    assert load(tmp_path / "model", "cpu", "float32").stamp == pipe.stamp
    checkpoint.put_back(tmp_path / "model")  # nothing to do
    rename, calls = os.replace, []

    def cut_off(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(*paths)

    before = sorted(path.name for path in (tmp_path / "model").iterdir())
    monkeypatch.setattr(os, "replace", cut_off)  # between the two renames
    with pytest.raises(KeyboardInterrupt), checkpoint.whole_folder(tmp_path / "model") as temporary:
        (temporary / "new").touch()
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == before


def test_a_model_folder_that_is_a_link_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "disk")
    for name in "abc":
        with checkpoint.whole_folder(tmp_path / "model") as temporary:
            (temporary / name).touch()
    assert (tmp_path / "model").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "model"]


def test_a_lora_is_refused_in_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(train.sharding, "is_sharded", lambda accelerator: True)
    config = replace(PRESETS["world-tiny"], learn="lora", steps=1, sample_pictures=0, tracker="none")
    with pytest.raises(UserError, match="--learn lora: not with shards"):
        train.train(config, tmp_path, make_pipeline())


def test_a_log_is_cut_where_a_run_goes_on(tmp_path):
    for step in (1, 2, 3):
        records.append(tmp_path, {"step": step, "loss": step / 2})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    records.cut(tmp_path, 2)
    assert curve(tmp_path) == [(1, 0.5), (2, 1.0)]


def test_losses_are_told_by_noise_level():
    tally = records.Tally(losses=[3.0, 1.0])
    tally.count(
        torch.tensor([0.0, 0.3, 0.26, 0.999]), torch.tensor([1.0, 2, 6, 5]), torch.tensor([2.0, 1, 3, 1])
    )
    assert tally.row() == {"loss": 2.0, "loss_t0": 0.5, "loss_t1": 2.0, "loss_t3": 5.0}


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_broken_step_stops_the_run_and_keeps_its_batch(tmp_path, monkeypatch, what):
    config = replace(PRESETS["world-tiny"], steps=4, save_every=1, sample_pictures=0, tracker="none")
    true = train.step_loss
    steps = []

    def break_the_third(*args):
        loss = true(*args)
        steps.append(loss)
        if len(steps) < 3:
            return loss
        # inf * 0 in the backward pass alone, or a loss that is no number
        return loss * float("nan") if what == "loss" else loss + (loss - loss.detach()).sqrt()

    monkeypatch.setattr(train, "step_loss", break_the_third)
    pipe = make_pipeline()
    with pytest.raises(
        UserError, match=r"loss of step 2, or its gradient, is not a number.*bad-batch-00000002-0"
    ):
        train.train(config, tmp_path, pipe)
    kept = load_file(tmp_path / "bad-batch-00000002-0-0.safetensors")
    assert kept["targets"].shape == (2, 2, 3, 32, 32)
    assert all(p.isfinite().all() for p in pipe.unet.parameters())
    monkeypatch.setattr(train, "step_loss", true)
    train.train(config, tmp_path, make_pipeline())
    assert [step for step, _ in curve(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_broken_steps_are_left_out_where_that_is_asked_for(tmp_path, monkeypatch, caplog, what):
    """The third step of six breaks: nothing is learnt from it. Two in a row are one too many, also where the
    run was cut between them."""
    config = replace(PRESETS["world-tiny"], steps=6, log_every=1, sample_pictures=0, tracker="none")
    true, broken, seen = train.step_loss, {2}, []

    def breaks(*args):
        seen.append(0)
        loss = true(*args)
        if len(seen) - 1 not in broken:
            return loss
        args[-1].count(torch.tensor([0.5]), torch.tensor([float("nan")]), torch.ones(1))
        return loss * float("nan") if what == "loss" else loss + (loss - loss.detach()).sqrt()

    averages = []
    average = train.EMAModel.step
    monkeypatch.setattr(train.EMAModel, "step", lambda *args: averages.append(0) or average(*args))
    monkeypatch.setattr(train, "step_loss", breaks)
    pipe = make_pipeline()
    before = [p.clone() for p in pipe.unet.parameters()]
    train.train(replace(config, skip_broken=1), tmp_path / "one", pipe)
    assert all(p.isfinite().all() for p in pipe.unet.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, pipe.unet.parameters(), strict=True))
    assert len(averages) == 5
    assert "step 2: its loss or gradient is not a number; left out" in caplog.text
    rows = [json.loads(line) for line in (tmp_path / "one" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "lr" in row] == [1, 2, 3, 4, 5, 6]
    assert ["loss" in row for row in rows if "lr" in row] == [True, True, False, True, True, True]
    assert all(np.isfinite(value) for row in rows for value in row.values())

    seen.clear()
    broken.add(3)
    with pytest.raises(UserError, match="the loss of step 3, or its gradient, is not a number"):
        train.train(replace(config, skip_broken=1), tmp_path / "two", make_pipeline())
    seen.clear()
    train.train(replace(config, skip_broken=1, steps=3), tmp_path / "cut", make_pipeline())
    with pytest.raises(UserError, match="the loss of step 3, or its gradient, is not a number"):
        train.train(replace(config, skip_broken=1), tmp_path / "cut", make_pipeline())


def test_half_precision_that_never_finds_its_scale_ends_the_run(tmp_path, monkeypatch):
    """From the third step on no gradient is a number. At the scales of 4, 2 and 1 that may be the scale's
    fault; at one half it is not."""

    class Half(machine.Accelerator):  # accelerate scales on devices alone
        def __init__(self, **settings):
            super().__init__(**settings)
            self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

        def unscale_gradients(self, optimizer=None):
            for one in self._optimizers:
                self.scaler.unscale_(one.optimizer)

    true, seen = train.step_loss, []

    def breaks(*args):
        seen.append(0)
        loss = true(*args)
        return loss if len(seen) < 3 else loss + (loss - loss.detach()).sqrt()

    monkeypatch.setattr(machine, "Accelerator", Half)
    monkeypatch.setattr(train, "step_loss", breaks)
    config = replace(PRESETS["world-tiny"], steps=20, sample_pictures=0, tracker="none")
    pipe = make_pipeline()
    with pytest.raises(UserError, match="the loss of step 5, or its gradient, is not a number"):
        train.train(config, tmp_path, pipe)
    assert all(p.isfinite().all() for p in pipe.unet.parameters())


def test_trackers_by_name(tmp_path):
    config = replace(PRESETS["world-tiny"], sample_pictures=0)
    with pytest.raises(UserError, match=r"--tracker wandbb: not known; use none, .*tensorboard.*wandb"):
        train.train(replace(config, tracker="wandbb"), tmp_path, make_pipeline())
    with pytest.raises(UserError, match=r"--tracker comet_ml: not installed here"):
        train.train(replace(config, tracker="comet_ml"), tmp_path, make_pipeline())


def test_overfit_says_whether_a_run_learnt(scd, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("scd.evaluate.sample_grid", lambda *args, **kwargs: seeds.append(kwargs) or {})
    seeds = []
    command = ["train", "world-tiny", "--init", tiny, "--overfit", 1, "--lr", 3e-3, "--data.workers", 0,
               "--sample-pictures", 2, "--tracker", "none"]  # fmt: skip
    code, out, err = scd(*command, "--run", tmp_path / "short", "--steps", 1)
    assert code == 2
    assert re.search(r"overfit: failed: the loss on the same noise went from \d.* to \d.*more --steps", err)
    code, out, err = scd(*command, "--run", tmp_path / "short", "--steps", 60)
    assert code == 0, err
    assert "overfit: passed" in out
    kept = json.loads((tmp_path / "short" / "overfit.json").read_text())
    assert kept["passed"]
    assert kept["after"] < 0.5 * kept["before"]
    assert seeds[-1] == {"first_seed": FIRST_TRAINING_SEED}, "the sheet shows who is learnt by heart"


def test_export_writes_what_was_learnt_and_a_card(scd, tiny, tmp_path):
    """The folder paints as the run does; the card tells data, licences, measures and settings."""
    run, out = tmp_path / "run", tmp_path / "mine"
    command = ["train", "world-tiny", "--run", run, "--init", tiny, "--tracker", "none", "--steps", 2]
    assert "nothing is learnt yet" in unlearnt(scd, tiny, tmp_path)
    assert scd(*command, "--sample-pictures", 2, "--data.workers", 0)[0] == 0
    code, said, err = scd("export", run, out, "--license", "apache-2.0", "--dtype", "float32")
    assert (code, said) == (0, f"{out}\n"), err
    assert load(out, "cpu", "float32").stamp == load(run / "model", "cpu", "float32").stamp
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: diffusers\n")
    row = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()][-1]
    for fact in (
        "| data | drawn people (`scd.world`, version 1) |", "| steps | 2 |", "| targets | 8 |",
        "| what learnt | all |",
        "| licence of the data | not said |", f"| started from | `{tiny.parent.name}` |",
        f"| masked_psnr | {row['masked_psnr']:.4g} |", '"name": "world-tiny"',
    ):  # fmt: skip
        assert fact in card
    assert str(tmp_path) not in card, "nobody's folders"
    assert str(tiny) not in card
    again = scd("export", run, out)
    assert again[0] == 2
    assert "exists already" in again[2]
    assert scd("export", run, out, "--force")[0] == 0
    assert (out / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size < 0.6 * (
        run / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    ).stat().st_size
    assert "only runs with --learn lora do" in scd("export", run, tmp_path / "lora", "--lora")[2]
    for place in (run / "model", run, run.parent):
        assert "is what is read, or holds it" in scd("export", run, place, "--force")[2]
    (tmp_path / "mail").mkdir()
    assert "is no model that could be replaced" in scd("export", run, tmp_path / "mail", "--force")[2]
    assert "no run of `scd train`" in scd("export", tiny, tmp_path / "x")[2]


def unlearnt(scd, tiny, tmp_path) -> str:
    run = tmp_path / "begun"
    run.mkdir()
    (run / "config.json").write_text(to_json(PRESETS["world-tiny"]))
    none = scd("export", run, tmp_path / "none")[2]
    run_folder.describe(run, 0, 0, 0.0)  # as a run begins: model/ is what it started from
    assert scd("export", run, tmp_path / "none")[2] == none
    return none


def test_export_of_a_lora_is_one_that_loads(scd, tiny, tmp_path):
    run, out = tmp_path / "run", tmp_path / "lora"
    options = ["--learn", "lora", "--lora-rank", 4, "--sample-pictures", 0, "--data.workers", 0, "--steps", 2]
    assert scd("train", "world-tiny", "--run", run, "--init", tiny, "--tracker", "none", *options)[0] == 0
    assert scd("export", run, out, "--lora")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "lora.safetensors", "pose_encoder", "scheduler"
    ]  # fmt: skip
    assert "| what learnt | lora, rank 4 |" in (out / "README.md").read_text()
    whole = load(run / "model", "cpu", "float32")
    pipe = SCDPipeline.from_pipe(
        load(tiny, "cpu", "float32"),
        pose_encoder=PoseEncoder.from_pretrained(out / "pose_encoder"),
        scheduler=LCMScheduler.from_pretrained(out / "scheduler"),
    )
    pipe.load_lora_weights(out / "lora.safetensors")

    def paint(pipe):
        reference = pipe.encode_reference(make_picture(0, (32, 32)), make_pose(0))
        generator = torch.Generator().manual_seed(0)
        return pipe(
            reference, make_pose(1), num_inference_steps=2, generator=generator, output_type="np"
        ).images

    assert np.allclose(paint(pipe), paint(whole), atol=1e-4)
    assert not np.allclose(paint(load(tiny, "cpu", "float32")), paint(whole), atol=1e-4)


def test_a_lora_run_that_is_repeated_keeps_its_model(scd, tiny, tmp_path):
    """The sum in model/ is written anew only by training."""
    options = ["--learn", "lora", "--lora-rank", 4, "--sample-pictures", 0, "--data.workers", 0, "--steps", 2]
    command = ["train", "world-tiny", "--run", tmp_path, "--init", tiny, "--tracker", "none", *options]
    assert scd(*command)[0] == 0
    learnt = load(tmp_path / "model", "cpu", "float32").stamp
    assert "has its 2 steps already" in scd(*command)[2]
    assert load(tmp_path / "model", "cpu", "float32").stamp == learnt


def test_a_kill_before_the_model_is_written_is_made_good(scd, tiny, tmp_path, monkeypatch):
    options = ["--sample-pictures", 0, "--data.workers", 0, "--steps", 2, "--tracker", "none"]
    command = ["train", "world-tiny", "--init", tiny, *options, "--run"]
    assert scd(*command, tmp_path / "whole")[0] == 0

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("scd.learning.export", killed)
        assert scd(*command, tmp_path / "cut")[0] == 130
    learnt, begun = (load(tmp_path / name / "model", "cpu", "float32").stamp for name in ("whole", "cut"))
    assert begun != learnt
    assert scd(*command, tmp_path / "cut")[:2] == (0, f"{tmp_path}/cut/model\n")
    assert load(tmp_path / "cut/model", "cpu", "float32").stamp == learnt
    assert "has its 2 steps already" in scd(*command, tmp_path / "cut")[2]


def test_the_verdict_is_about_all_of_them(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "scd.overfit.step_loss", lambda t, p, batch, g, c: seen.append(batch) or torch.ones(())
    )
    config = replace(PRESETS["world-tiny"], overfit=5)
    fixed_loss(config, make_motion_pipeline())
    people = {batch.targets[g, 0].numpy().tobytes() for batch in seen for g in range(2)}
    assert len(people) >= 5, "not one group again and again"


@pytest.mark.parametrize(
    "chances", ["--data.tasks 1 1 0", "--data.references 0.5 0.4", "--data.tasks 2 -1 0"]
)
def test_chances_sum_to_one(scd, chances):
    code, _, err = scd("train", "world-tiny", *chances.split())
    assert code == 2
    assert err.endswith("chances have to sum to 1\n")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("world-tiny --save-every 0", "--save-every 0: 1 at least"),
        ("world-tiny --log-every 0", "--log-every 0: 1 at least"),
        ("world-tiny --sample-every 0", "--sample-every 0: 1 at least"),
        ("world-tiny --data.frames 0", "--data.frames 0: 1 at least"),
        ("world-tiny --clip 0", "--clip 0.0: 1e-09 at least"),
        ("tiktok-stage1 --data.tasks 0.5 0.5 0", "--data.tasks: real clips have pictures alone"),
        ("vitonhd --head-weight 4", "--head-weight: pairs for try-on do not say where heads are"),
        ("world-tiny --change-weight 1", "--change-weight: between the frames of clips"),
        ("tiktok-stage1 --data.root none --init embedded", "none: there is no such folder"),
    ],
)
def test_numbers_and_options_that_cannot_be_meant(scd, words, text):
    code, _, err = scd("train", *words.split())
    assert code == 2
    assert text in err


def test_motion_modules_are_not_put_over_others(tiny, tmp_path):
    config = replace(PRESETS["world-motion"], init=str(tiny), motion_adapter="mm.ckpt")
    with pytest.raises(UserError, match=r"--motion-adapter: .* has motion modules already; leave it out"):
        start(config, tmp_path / "run")
