"""Which dataset lies somewhere: clips or try-on pairs, in a folder or listed by a manifest."""

from __future__ import annotations

from pathlib import Path

from scd.data.layouts import LAYOUTS, Layout, find_clips
from scd.data.manifest import is_manifest, layout_in
from scd.data.pairs import TryOnLayout
from scd.data.tryon import TRYON_LAYOUTS, find_pairs, guess_tryon
from scd.types import UserError

KINDS = (*LAYOUTS, *TRYON_LAYOUTS)


def kind_of(root: str | Path) -> str | None:
    """The layout that a manifest names, or that a folder seems to have; None = none. Raises UserError for a
    manifest that is missing, damaged or empty."""
    path = Path(root).expanduser()
    if is_manifest(path) and not path.is_dir():
        return layout_in(path)
    if not path.is_dir():
        return None
    if kind := guess_tryon(path):
        return kind
    for kind, layout in LAYOUTS.items():
        try:
            layout(path)
        except UserError:
            continue
        return kind
    return None


def find_dataset(
    root: str | Path, kind: str | None = None, manifest: Path | None = None
) -> Layout | TryOnLayout:
    """The dataset in a folder, or of a manifest; without a kind, the layout that seems to lie there.
    `manifest`: another one than the dataset's own, to be written. Raises UserError; where the layout is
    another than `kind`, it says which one it looks like."""
    found = kind or (kind_of(root) if str(root) else None)
    try:
        if kind == "tiktok" and (pairs := kind_of(root)) in TRYON_LAYOUTS:  # folders called images, too
            raise UserError(f"{root}: holds the pairs of {pairs}, no clips")
        if found in TRYON_LAYOUTS:
            return find_pairs(root, found)
        return find_clips(root, found, manifest)
    except UserError as error:
        looks_like = kind_of(root) if kind and str(root) else None
        if looks_like in (kind, None):
            raise
        raise UserError(f"{error}; it looks like {looks_like}") from None
