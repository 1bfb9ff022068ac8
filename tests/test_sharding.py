"""Parameters in shards (FSDP): the run that one process would make."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from accelerate.utils import DistributedType
from test_processes import OPTIONS, curve, finish, launch, learnt, tiny

from scd import sharding
from scd.model import load
from scd.types import UserError

__all__ = ["tiny"]
HERE = Path(__file__).parent


@pytest.mark.slow
def test_two_processes_in_shards_resume_as_one_that_accumulates_two(tiny, tmp_path, monkeypatch):
    """The shipped config through `accelerate launch`: same losses, weights, averages; and a model to publish
    and sheets though no process holds the whole network."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch",
        "--config_file", HERE.parent / "runs/fsdp.yaml", "--main_process_port", port,
        "--mixed_precision", "no",
        HERE / "play_fsdp.py", *OPTIONS, "--init", tiny, "--device", "cpu", "--run", tmp_path / "two",
    ]  # fmt: skip
    for steps in (4, 6):
        words = [str(word) for word in (*command, "--steps", steps, "--sample-pictures", 1)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{tmp_path / 'two' / 'model'}\n"
        assert min(map(int, re.findall(r"in shards: (\d+)", done.stderr))) > 100
    finish(launch("--init", tiny, "--run", tmp_path / "one", "--accumulation", 2, "--steps", 6))
    assert [step for step, _ in curve(tmp_path / "two")] == [2, 4, 6]
    assert np.allclose(curve(tmp_path / "two"), curve(tmp_path / "one"), rtol=1e-5)
    published = [
        load(tmp_path / name / "model", "cpu", "float32").unet.state_dict() for name in ("one", "two")
    ]
    for one, two in ((learnt(tmp_path / "one"), learnt(tmp_path / "two")), published):
        assert one.keys() == two.keys()
        apart = [(one[name] - two[name]).abs() for name in one]
        # Shards are not channels-last, so sums differ in their last bits; Adam divides by the gradient's own
        # size, which makes much of that where it is nearly nothing: a step is 8e-4
        assert max(a.max().item() for a in apart) < 2e-4
        assert max(a.mean().item() for a in apart) < 1e-6
    assert len(list((tmp_path / "two/samples").glob("*.png"))) == 2
    finish(launch("--init", tiny, "--run", tmp_path / "two", "--steps", 7))  # and on, without shards


def test_the_first_version_of_fsdp_is_refused():
    old = SimpleNamespace(distributed_type=DistributedType.FSDP, is_fsdp2=False)
    with pytest.raises(UserError, match="fsdp_version: 2"):
        sharding.is_sharded(old)  # type: ignore[arg-type]
