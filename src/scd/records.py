"""What a run writes down while it learns: `log.jsonl`, the loss by noise level, the batch that broke it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from scd.checkpoint import WRITE_ERRORS
from scd.media.files import cannot_write, reading, replacing
from scd.types import Batch, UserError

NUM_LEVELS = 4  # equal parts of the schedule, from little noise to much


@dataclass
class Tally:
    """The losses since the last row of the log."""

    losses: list[float] = field(default_factory=list)  # of every step that was not left out
    matches: list[float] = field(default_factory=list)  # the part of it that is scd.matching's, unweighted
    # Of every part of the schedule: the sum of the targets' errors, and of their weights (process.errors)
    sums: list[float] = field(default_factory=lambda: [0.0] * NUM_LEVELS)
    weights: list[float] = field(default_factory=lambda: [0.0] * NUM_LEVELS)

    def count(self, levels: Tensor, sums: Tensor, weights: Tensor) -> None:
        """Add the targets of a batch; `levels` (B,) are timesteps over the schedule's length, in [0, 1)."""
        part = (levels * NUM_LEVELS).long().clamp(max=NUM_LEVELS - 1)
        for index, one, weight in zip(part.tolist(), sums.tolist(), weights.tolist(), strict=True):
            if not math.isfinite(one):  # the step will be left out, or end the run
                continue
            self.sums[index] += one
            self.weights[index] += weight

    def share(self, added: Callable[[list[float]], list[float]], keeps: bool) -> None:
        """Bring what all processes counted to the one that `keeps` it; `added` gives the sums over them."""
        *levels, matches, number = added([*self.sums, *self.weights, sum(self.matches), len(self.matches)])
        if not keeps:
            levels, number = [0.0] * (2 * NUM_LEVELS), 0
        self.sums, self.weights = levels[:NUM_LEVELS], levels[NUM_LEVELS:]
        self.matches = [matches / max(number, 1)] * int(number)

    def row(self) -> dict[str, float]:
        """`loss`, the mean of the steps; `loss_t0` .. `loss_t3`, of targets with little noise .. with much,
        where there were any."""
        row = {"loss": sum(self.losses) / len(self.losses)} if self.losses else {}
        if self.matches:
            row["loss_matches"] = sum(self.matches) / len(self.matches)
        for index, (one, weight) in enumerate(zip(self.sums, self.weights, strict=True)):
            if weight:
                row[f"loss_t{index}"] = one / weight
        return row


def append(run: Path, row: dict[str, Any]) -> None:
    """A row of `log.jsonl`. Raises UserError where the disk is full."""
    path = run / "log.jsonl"
    try:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise cannot_write(path, error) from None


def cut(run: Path, step: int) -> None:
    """Drop the rows of `log.jsonl` after `step`, which a run that goes on from there writes again, and a row
    that a kill left half-written."""
    path = run / "log.jsonl"
    if not path.exists():
        return
    kept = [row for row in read(run) if row["step"] <= step]
    with replacing(path, force=True) as temporary:
        temporary.write_text("".join(f"{json.dumps(row)}\n" for row in kept))


def read(run: Path) -> list[dict[str, Any]]:
    """The whole rows of `log.jsonl`. Raises UserError for a damaged file."""
    path = run / "log.jsonl"
    with reading(path):
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        if line.endswith("}"):
            try:
                rows.append(json.loads(line))
                int(rows[-1]["step"])
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{path}, line {number}: is damaged; remove this line") from None
    return rows


def broken(run: Path, name: str, batches: list[Batch], **about: Any) -> UserError:
    """The error of a step whose loss or gradient is not a number. What it saw is kept in
    RUN/bad-batch-NAME-PART.safetensors, one for each part of the accumulation, `about` in their headers."""
    kept = f"what it saw is in bad-batch-{name}-*"
    for part, batch in enumerate(batches):
        tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
        tensors = {key: t.detach().cpu().contiguous() for key, t in tensors.items() if t is not None}
        path = run / f"bad-batch-{name}-{part}.safetensors"
        try:
            save_file(tensors, path, {key: str(value) for key, value in about.items()})
        except WRITE_ERRORS:
            path.unlink(missing_ok=True)
            kept = "what it saw could not be written"
    return UserError(
        f"{run}: the loss of step {about['step']}, or its gradient, is not a number, and nothing was learnt "
        f"from it; {kept}; the last checkpoint is whole: lower --lr, and run the same command again"
    )
