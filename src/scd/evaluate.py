"""Evaluation on held-out truth."""

from __future__ import annotations

from pathlib import Path


def sample_grid(pipe, path: Path, size: int) -> dict[str, float]:
    return {}
