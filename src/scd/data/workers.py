"""The same work on many items, in this process or in several."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from scd.types import UserError


def each(work: Callable[..., Any], items: Iterable[tuple], workers: int = 1) -> Iterator[tuple[int, Any]]:
    """(number, `work(*item)`) of every item, as they are done; with one worker in order, in this process.

    Errors of the work pass, and what was not begun is left. Raises UserError when a process is gone. New
    processes are spawned: a detector's threads do not survive a fork.
    """
    items = list(items)
    if workers < 2 or len(items) < 2:
        for number, item in enumerate(items):
            yield number, work(*item)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(items)), context, _begin)
    try:
        futures = {pool.submit(_work, work, item): number for number, item in enumerate(items)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process was ended from outside, for want of memory perhaps: the same command with "
            "fewer --workers goes on"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _work(work: Callable[..., Any], item: tuple) -> Any:
    try:
        return work(*item)
    except KeyboardInterrupt:  # else the process would hand this back and take the next item
        os._exit(130)


def _begin() -> None:
    """In a new process: its notes look like the main one's; it ends when that is killed, for which the pool's
    queue alone would wait for ever."""
    logging.basicConfig(format="scd: %(message)s", level=logging.ERROR)
    logging.getLogger("scd").setLevel(logging.INFO)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
