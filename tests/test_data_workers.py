"""Work in several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

# Every item notes that it was begun; the main process counts what has been
SCRIPT = """
import sys, time
from pathlib import Path
from scd.data.workers import each

def work(folder, number):
    (Path(folder) / str(number)).touch()
    time.sleep(60)

if __name__ == "__main__":
    list(each(work, [(sys.argv[1], number) for number in range(8)], 2))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of a terminal")
def test_one_interruption_ends_all_processes(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    begun = tmp_path / "begun"
    begun.mkdir()

    def heed():  # a shell's background jobs ignore it
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [sys.executable, tmp_path / "script.py", begun]
    job = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, preexec_fn=heed)
    try:
        until = time.monotonic() + 60
        while len(list(begun.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.1)
        assert len(list(begun.iterdir())) == 2
        os.killpg(job.pid, signal.SIGINT)  # as Ctrl-C in a terminal does: to all of them
        assert job.wait(30) != 0
        assert len(list(begun.iterdir())) == 2, "nothing was begun after it"
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
