"""Pictures and clips in and out: whatever people have becomes uint8 RGB; no half-written file remains.

Names load when first used: who writes a pose file needs neither OpenCV nor PyAV.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scd.media.clip import ClipReader, open_clip
    from scd.media.files import content_hash, file_hash, replacing
    from scd.media.picture import (
        LARGEST_SIDE,
        MOST_PIXELS,
        SETTINGS_KEY,
        SMALLEST_SIDE,
        read_image,
        read_settings,
        write_image,
    )
    from scd.media.placement import PixelBox, Placement, contact_sheet, fit, framed, place
    from scd.media.writing import write_clip

_HOME = {
    "ClipReader": "clip",
    "LARGEST_SIDE": "picture",
    "MOST_PIXELS": "picture",
    "PixelBox": "placement",
    "Placement": "placement",
    "SETTINGS_KEY": "picture",
    "SMALLEST_SIDE": "picture",
    "contact_sheet": "placement",
    "content_hash": "files",
    "file_hash": "files",
    "fit": "placement",
    "framed": "placement",
    "open_clip": "clip",
    "place": "placement",
    "read_image": "picture",
    "read_settings": "picture",
    "replacing": "files",
    "write_clip": "writing",
    "write_image": "picture",
}
__all__ = [
    "LARGEST_SIDE",
    "MOST_PIXELS",
    "SETTINGS_KEY",
    "SMALLEST_SIDE",
    "ClipReader",
    "PixelBox",
    "Placement",
    "contact_sheet",
    "content_hash",
    "file_hash",
    "fit",
    "framed",
    "open_clip",
    "place",
    "read_image",
    "read_settings",
    "replacing",
    "write_clip",
    "write_image",
]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'scd.media' has no attribute {name!r}")
    return getattr(import_module(f"scd.media.{_HOME[name]}"), name)
