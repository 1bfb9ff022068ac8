"""How fast samples come from the disk: read and cropped, their poses drawn."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader, Subset

from scd.data.collate import collate
from scd.types import Sample

AHEAD = 4  # samples that every worker makes before the clock starts


def time_samples(
    dataset: Any, num: int, workers: int, advance: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Samples a second of `num` samples in one process, and what they spend on reading and cropping (the
    rest: poses and drawings); with workers, as a training step gets them, too. `advance` is called a sample.
    """
    tell = advance or (lambda: None)
    read, spent = dataset.read, [0.0]

    def timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return read(*arguments)
        finally:
            spent[0] += time.perf_counter() - began

    first: Sample = dataset[0]  # opens files, loads libraries
    dataset.read, pictures = timed, 0
    began, worked = time.perf_counter(), time.process_time()
    for index in range(num):
        sample = dataset[index]
        pictures += len(sample.references) + len(sample.targets)
        tell()
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    dataset.read = read
    figures = {
        "samples": num, "pictures": pictures, "size": list(first.target_drawings.shape[1:3]),
        "read_ms": 1000 * spent[0] / num, "draw_ms": 1000 * (seconds - spent[0]) / num,
        "cpu_ms": 1000 * worked / num,  # of all cores: what else a busy machine does is not in it
        "samples_per_second": num / seconds, "pictures_per_second": pictures / seconds,
        "workers": workers, "samples_per_second_with_workers": None,
    }  # fmt: skip
    if workers:
        figures["samples_per_second_with_workers"] = _with_workers(dataset, num, workers, tell)
    return figures


def _with_workers(dataset: Any, num: int, workers: int, tell: Callable[[], None]) -> float:
    ahead = AHEAD * workers
    loader: DataLoader[Any] = DataLoader(
        Subset(dataset, range(ahead + num)), collate_fn=collate, num_workers=workers, prefetch_factor=1
    )
    iterator = iter(loader)
    for _ in range(ahead):
        next(iterator)
    began = time.perf_counter()
    for _ in range(num):
        next(iterator)
        tell()
    return num / (time.perf_counter() - began)
