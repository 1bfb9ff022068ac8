"""A memory that pickles: where DataLoader's workers are no forks (macOS, Windows, Linux from Python 3.14 on)
the dataset travels to them pickled, which `lru_cache` on a bound method refuses."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any


class Memory:
    """`function`, whose last `maxsize` results are remembered. Pickled it is empty again."""

    def __init__(self, function: Callable[..., Any], maxsize: int):
        self.made_of = (function, maxsize)
        self.cached = lru_cache(maxsize=maxsize)(function)

    def __call__(self, *arguments: Any) -> Any:
        return self.cached(*arguments)

    def __reduce__(self) -> tuple[type[Memory], tuple[Callable[..., Any], int]]:
        return Memory, self.made_of
