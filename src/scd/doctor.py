"""`scd doctor`: what is installed, what is missing, and the line that mends it; works where nothing does."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata, util
from importlib.resources import files
from pathlib import Path

ESSENTIAL = {  # distribution -> module
    "torch": "torch", "diffusers": "diffusers", "transformers": "transformers", "accelerate": "accelerate",
    "peft": "peft", "safetensors": "safetensors", "numpy": "numpy", "Pillow": "PIL", "av": "av",
    "torchmetrics": "torchmetrics", "tyro": "tyro", "rich": "rich",
}  # fmt: skip
OPENCVS = (
    "opencv-python",
    "opencv-contrib-python",
    "opencv-python-headless",
    "opencv-contrib-python-headless",
)


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    ok: bool
    text: str
    mend: str = ""  # the command, or the sentence, that mends it
    essential: bool = True  # without it nothing can be painted


def doctor() -> int:
    """Print the report; 0 when the essentials work, else 1."""
    parts = (_python, _packages, _opencvs, _devices, _model, _detectors, _kept_poses)
    findings = [finding for part in parts for finding in part()]
    for finding in findings:
        print(f"{'ok     ' if finding.ok else 'MISSING' if finding.essential else 'note   '}  {finding.text}")
        if finding.mend and not finding.ok:
            print(f"         -> {finding.mend}")
    broken = [f for f in findings if f.essential and not f.ok]
    print(
        "everything essential works"
        if not broken
        else f"{len(broken)} essential part{'s' * (len(broken) > 1)} missing"
    )
    return 1 if broken else 0


def _python() -> Iterator[Finding]:
    yield Finding(
        sys.version_info >= (3, 10),
        f"Python {platform.python_version()} on {platform.platform()}",
        "use Python 3.10 or newer",
    )


def _packages() -> Iterator[Finding]:
    yield Finding(True, f"scd {_version('scd') or 'from a source folder'}")
    for name, module in ESSENTIAL.items():
        version = _version(name)
        yield Finding(
            version is not None and util.find_spec(module) is not None,
            f"{name} {version or 'is missing'}",
            f"pip install {name}",
        )


def _opencvs() -> Iterator[Finding]:
    """Two OpenCVs share the folder cv2: which of them is imported is an accident."""
    there = [name for name in OPENCVS if _version(name)]
    shown = ", ".join(f"{name} {_version(name)}" for name in there)
    if not there:
        yield Finding(False, "OpenCV is missing", "pip install opencv-python-headless")
    elif len(there) == 1:
        yield Finding(True, shown)
    else:
        mend = f"pip uninstall -y {' '.join(there)} && pip install 'opencv-python-headless<4.12'"
        yield Finding(False, f"{len(there)} OpenCVs overwrite each other: {shown}", mend, essential=False)


def _devices() -> Iterator[Finding]:
    torch = _imported("torch")
    if torch is None:
        return
    names = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    names += ["mps"] * torch.backends.mps.is_available() + [f"cpu with {torch.get_num_threads()} threads"]
    yield Finding(True, f"devices: {', '.join(names)}")


def _model() -> Iterator[Finding]:
    folder = Path(str(files("scd") / "weights" / "embedded"))
    again = "get the repository anew, and run `make env` in it"
    try:
        card = json.loads((folder / "model_index.json").read_text())
    except (OSError, ValueError):
        yield Finding(False, "the embedded model is missing", again)
        return
    parts = [
        part for part in ("unet", "vae", "pose_encoder") if not list((folder / part).glob("*.safetensors"))
    ]
    if parts:
        yield Finding(False, f"the embedded model lacks {', '.join(parts)}", again)
        return
    megabytes = sum(file.stat().st_size for file in folder.rglob("*.safetensors")) / 1e6
    yield Finding(
        True, f"the embedded model, {megabytes:.0f} MB, for drawn people at {card.get('default_size')} px"
    )
    world = _imported("scd.world")
    if world is not None and card.get("world_version") != world.VERSION:
        yield Finding(
            False,
            f"the embedded model learnt world version {card.get('world_version')}, this is {world.VERSION}",
            "numbers of `scd evaluate world` will be lower than published", essential=False,
        )  # fmt: skip


def _detectors() -> Iterator[Finding]:
    mend = "pip install 'scd[pose-runtime]' && pip install --no-deps mediapipe==0.10.21"
    if sys.version_info >= (3, 13):
        mend = "use Python 3.10 to 3.12, or pip install 'scd[dwpose]'; pose files need no detector"
    problem = None
    try:
        from scd.pose.detect import MediaPipeDetector

        MediaPipeDetector()
    except Exception as error:  # whatever a broken installation raises is the finding
        problem = " ".join(str(error).split())[:120]
    version = _version("mediapipe")
    text = (
        f"pose detector mediapipe {version}"
        if problem is None
        else f"pose detector mediapipe does not start ({problem})"
    )
    yield Finding(problem is None, text, mend, essential=False)
    there = util.find_spec("rtmlib") is not None
    yield Finding(
        there,
        f"pose detector dwpose {_version('rtmlib') or 'is not installed'}",
        "pip install 'scd[dwpose]'",
        essential=False,
    )


def _kept_poses() -> Iterator[Finding]:
    """Poses that were found once, of clips that drove and of datasets in folders that cannot be written to.
    Nothing deletes them, except what stopped searches left (.part) when they have been ended."""
    from scd.pose.cache import cache_folder

    folder = cache_folder()
    places = [f"{place}/*.{end}" for place in ("poses", "data/*/scd/poses") for end in ("npz", "part")]
    sizes = [file.stat().st_size for place in places for file in folder.glob(place)]
    if sizes:
        yield Finding(
            True,
            f"poses of {len(sizes)} clips are kept, {sum(sizes) / 1e6:.1f} MB in {folder} (may be deleted)",
        )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _imported(name: str):
    try:
        return import_module(name)
    except Exception:  # a broken installation may raise anything; the packages' own lines tell which
        return None
