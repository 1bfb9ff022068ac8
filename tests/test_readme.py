"""What the documents tell a user to type can be typed: every command parses, README's program runs."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from scd import Reference
from scd.cli import _parse

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What stands for a choice, for more of the same, or for what may be left out
LEFT_OUT = re.compile(r"\[[A-Z]+\] |, \.\.\.| \.\.\.")
LEAST = {
    "README.md": 25,
    "training.md": 15,
    "tryon.md": 10,
    "data.md": 8,
    "evaluation.md": 6,
    "weights.md": 3,
    "clips.md": 4,
}


def commands(document: Path) -> list[str]:
    """The lines of code blocks (README's fenced, the others' indented) that call `scd`, without their
    comments, and those of clips.md within sentences; of a choice `a|b|c` the first."""
    margin, text = "" if document.name == "README.md" else "    ", document.read_text()
    found = re.findall(rf"(?m)^{margin}(scd [a-z].*?)(?: +#.*)?$", text)
    if document.name == "clips.md":
        found += re.findall(r"`(scd [a-z]+ [A-Z-][^`]*)`", text)
    return [re.sub(r"(\w+)(?:\|\w+)+", r"\1", LEFT_OUT.sub("", command)) for command in found]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_a_document_parses(document):
    assert len(commands(document)) >= LEAST.get(document.name, 0), "the others are not seen as commands"
    for command in commands(document):
        assert _parse(shlex.split(command)[1:]) is not None, command


def test_readmes_program_runs(tmp_path, monkeypatch):
    pytest.importorskip("mediapipe")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    program = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    names: dict = {}
    exec(program[1], names)  # the test is about this very text
    assert [picture.size for picture in names["pictures"] + names["dressed"]] == [(128, 128)] * 3
    changed = (np.asarray(names["worn"]) != names["image"]).any(-1)
    assert not changed[~names["region"]].any()
    assert changed[names["region"]].mean() > 0.9
    assert Reference.load("anna.safetensors").stamp == names["reference"].stamp
