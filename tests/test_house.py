"""The house's own rules: who imports whom, how long files are, how fast and quiet an import is, and that docs
name real functions."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "scd"
FILES = sorted(SOURCE.rglob("*.py"))
METHOD = [
    "attention.py",
    "process.py",
    "pose_encoder.py",
    "windows.py",
    "denoiser.py",
    "inputs.py",
    "inpaint.py",
    "savepoint.py",
    "pipeline.py",
    "encoders.py",
    "reference.py",
    "backbones",
]

# Layers of docs/design: a file may import only from its own layer and those before it
LAYERS = [
    ("pure", ["types", "config", "process", "matching", "windows", "pose.skeleton"]),
    ("nets", ["attention", "pose_encoder", "codec", "backbones"]),
    ("world", ["world", "pose", "data", "media", "region"]),
    ("pipeline", [
        "schedulers", "encoders", "habits", "reference", "loading", "stable_diffusion", "denoiser",
        "animatediff", "animate_anyone", "savepoint", "inputs", "inpaint", "pipeline",
        "sharding", "checkpoint", "run_folder", "body", "model",
    ]),
    ("verbs", [
        "learning", "latents", "machine", "records", "step", "train", "overfit", "card", "evaluate",
        "evaluate_clips", "evaluate_held_out", "evaluate_real", "evaluate_tryon", "evaluate_viton_hd",
        "metrics", "bench", "doctor", "tryon", "animate",
    ]),
    ("faces", ["cli", "demo"]),
]


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(name: str) -> int:
    matches = [
        (len(m), i) for i, (_, ms) in enumerate(LAYERS) for m in ms if name == m or name.startswith(m + ".")
    ]
    assert matches, f"scd.{name} belongs to no layer: name it in LAYERS"
    return max(matches)[1]


def code_lines(path: Path) -> int:
    """Lines that hold code: no blanks, comments or docstrings."""
    text = path.read_text()
    doc = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and ast.get_docstring(node):
            doc.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    skip = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skip:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - doc)


def imports(path: Path) -> set[str]:
    found = set()
    tree = ast.parse(path.read_text())
    # What `python -m` starts is not what the module needs
    tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and "__main__" in ast.unparse(n.test))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ("scd", *path.relative_to(SOURCE).parts[:-1])[: -node.level + 1 or None]
            module = ".".join([*(package if node.level else ()), *filter(None, [node.module])])
            found.add(module)
            if module.startswith("scd"):
                found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def test_relative_imports_are_imports(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    (tmp_path / "world").mkdir()
    file = tmp_path / "world/scene.py"
    file.write_text("from .cloth import EMBLEMS\nfrom ..train import train\nfrom .. import demo\n")
    assert {"scd.world.cloth", "scd.train", "scd.train.train", "scd.demo"} <= imports(file)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_layers(path):
    name = module_name(path)
    if not name or name == "__main__":
        return
    own = layer_of(name)
    for target in imports(path):
        parts = target.split(".")
        if parts[0] == "scd" and len(parts) > 1:
            inner = ".".join(parts[1:])
            known = any(inner == m or inner.startswith(m + ".") for _, ms in LAYERS for m in ms)
            assert not known or layer_of(inner) <= own, f"scd.{name} imports scd.{inner}, which lies above it"
        if LAYERS[own][0] == "world":
            heavy = {"diffusers", "transformers", "accelerate"} & {parts[0]}
            assert not heavy, f"scd.{name} imports {heavy}: the world and data never see networks"
        if LAYERS[own][0] == "pure":
            assert parts[0] not in {"diffusers", "transformers", "cv2", "PIL", "av"}, (
                f"scd.{name} is pure, but imports {target}"
            )
        assert parts[0] != "gradio" or name == "demo"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_file_is_long(path):
    assert code_lines(path) <= 300
    assert max(map(len, path.read_text().splitlines()), default=0) <= 110


def test_the_method_is_small():
    assert code_lines(SOURCE / "attention.py") < 150
    files = [
        f
        for name in METHOD
        for f in (SOURCE.joinpath(name).rglob("*.py") if "." not in name else [SOURCE / name])
        if f.exists()
    ]
    assert sum(map(code_lines, files)) < 1500


def test_code_lines_counts_what_it_says(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        '"""doc\n\nmore"""\n# comment\n\nx = [\n    1,\n]  # note\ndef f():\n    """doc"""\n    return x\n'
    )
    assert code_lines(path) == 5


def test_import_is_light():
    heavy = ("torch", "diffusers", "cv2", "mediapipe", "av", "gradio")
    code = f"import sys, scd, scd.cli, scd.config; print(*[m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert done.stderr == ""


def test_public_names_resolve():
    import scd

    for name in scd.__all__:
        assert getattr(scd, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = scd.nothing


def test_method_table_names_real_functions():
    """docs/method.md maps each equation to `module.name`; every such name exists."""
    names = re.findall(r"`scd\.([a-z_.]+)\.([A-Za-z_]+)`", (ROOT / "docs" / "method.md").read_text())
    assert len(names) >= 15
    for module, name in names:
        assert hasattr(import_module(f"scd.{module}"), name), f"docs/method.md names scd.{module}.{name}"


def test_nothing_unpickles_or_reaches_out():
    for path in FILES:
        text = path.read_text()
        text = re.sub(r"torch\.load\([^)]*weights_only=True\)", "", text)  # tensors only, nothing executed
        assert not re.search(r"\bpickle\b|torch\.load\(|allow_pickle=True|urlopen|requests\.get", text), path
