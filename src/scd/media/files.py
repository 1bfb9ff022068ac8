"""Files as such: read, hashed, listed in order, and replaced whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scd.types import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")  # endings of frames in a folder
VIDEOS = (
    ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".m2v", ".ts", ".mts", ".m2ts", ".vob",
    ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".mxf",
)  # fmt: skip
RATE_FILE = "clip.json"  # in a folder of frames that scd wrote: {"fps": "30000/1001"}

_OWN_FRAME = re.compile(r"\d{6,}\.png")
_PNG_END = b"IEND\xaeB`\x82"
_CHUNK = 1 << 20  # bytes; a clip of 10 GB is hashed in 1 MB of memory

_WRITE_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EEXIST: "a file stands where its folder should be",
    errno.ENOTDIR: "a file stands where its folder should be",
}


def read_bytes(path: Path) -> bytes:
    """The whole file. UserError, in one line, when it is missing, a folder or may not be read."""
    with reading(path):
        return path.read_bytes()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Errors of the system while `path` is read become UserErrors of one line."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check the name") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: name a file in it") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


@contextmanager
def replacing(path: str | Path, force: bool = False) -> Iterator[Path]:
    """A temporary name to write to: it becomes `path` when the block ends well, else it vanishes.

    The missing folders above are made, and a link stays a link. UserError, in one line, when `path` exists
    and `force` is not given, when it is a folder, and when the disk is full or may not be written to.
    """
    path = Path(path)
    try:
        home = path.resolve()  # a link goes on standing for its file
    except (OSError, RuntimeError):  # of a circle of links; Python below 3.13 raises the latter
        raise UserError(f"{path} is a link that leads nowhere: choose another name") from None
    temporary = _temporary(home)
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder: name a file in it")
        if path.exists() and not force:
            raise exists_already(path)
        home.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, home)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def replacing_folder(path: str | Path, force: bool = False, card: str | None = None) -> Iterator[Path]:
    """A temporary folder to fill: it becomes `path` when the block ends well, else it vanishes.

    `force` replaces a folder of frames that `write_clip` wrote (with `card` one that holds that file), and
    nothing else: a slip of the hand must not delete somebody's pictures. An empty folder is taken without
    asking, a link stays one. UserErrors as in `replacing`.
    """
    path = Path(path)
    home = path.resolve()  # of a link the folder that it stands for; "." has a name then
    temporary, old = _temporary(home), _temporary(home)
    try:
        require_replaceable_folder(path, force, card)
        temporary.mkdir(parents=True)
        yield temporary
        if home.exists():
            os.replace(home, old)
        try:
            os.replace(temporary, home)
        except BaseException:
            if old.exists():
                os.replace(old, home)
            raise
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def require_replaceable_folder(path: Path, force: bool, card: str | None = None) -> None:
    """UserError where `replacing_folder` may not put a folder."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file: name a new folder")
    if path.is_dir() and any(path.iterdir()):
        if not ((path / card).is_file() if card else _only_frames(path)):
            what = f"has no {card} of scd's" if card else "holds more than frames written by scd"
            raise UserError(f"{path} {what}: name a new folder")
        if not force:
            raise exists_already(path)


def _only_frames(path: Path) -> bool:
    return all(file.name == RATE_FILE or _OWN_FRAME.fullmatch(file.name) for file in path.iterdir())


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def exists_already(path: Path) -> UserError:
    return UserError(f"{path} exists already: choose another name, or --force to replace it")


def cannot_write(path: Path, error: OSError) -> UserError:
    """The UserError of one line for an error of the system."""
    reason = _WRITE_ERRORS.get(error.errno or 0) or error.strerror or str(error)
    return UserError(f"{path} cannot be written: {reason}")


def is_whole(path: Path) -> bool:
    """Whether a file is there and, if it is .npz or .png, was written to its end; told from its end alone."""
    if path.suffix == ".npz":
        return zipfile.is_zipfile(path)
    if path.suffix != ".png" or not path.is_file():
        return path.exists()
    with reading(path), path.open("rb") as file:
        file.seek(-min(len(_PNG_END), path.stat().st_size), os.SEEK_END)
        return file.read() == _PNG_END


def frame_files(folder: Path) -> list[Path]:
    """The pictures in a folder in the order people mean: frame2 before frame10. Hidden files do not count.

    UserError when there are none, or when the folder may not be read.
    """
    with reading(folder):
        files = [
            file for file in folder.iterdir()
            if file.suffix.lower() in PICTURES and not file.name.startswith(".") and file.is_file()
        ]  # fmt: skip
    if not files:
        raise UserError(f"{folder} holds no pictures: put the frames there, named in their order (0001.png)")
    return sorted(files, key=natural_order)


def natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Numbers compare as numbers; the name itself decides between 1.png and 01.png."""
    parts = re.split(r"(\d+)", path.name.lower())
    # Odd places hold the digits: `int` would also take other scripts' digits, which `\d` finds too.
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)], path.name


def file_hash(path: str | Path) -> str:
    """SHA-256 of the file's bytes, in hex, read piece by piece. UserError when it cannot be read."""
    path, digest = Path(path), hashlib.sha256()
    with reading(path), path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def content_hash(path: str | Path) -> str:
    """SHA-256, in hex, of what a clip shows: of a file its bytes, of a folder its frames in their order.

    Names do not count, so a renamed clip has the hash it had; a copied folder of frames too, unless the
    order changes. UserError as in `file_hash` and `frame_files`.
    """
    path = Path(path)
    if not path.is_dir():
        return file_hash(path)
    frames = "".join(file_hash(file) + "\n" for file in frame_files(path))
    return hashlib.sha256(frames.encode()).hexdigest()
