"""How a command ends when it is asked to: by Ctrl-C, by SIGTERM, by a terminal that is closed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

HANG_UP: list[signal.Signals] = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []  # not on Windows


@contextlib.contextmanager
def answering(answer: Callable[[], None], numbers: list[signal.Signals]) -> Iterator[None]:
    """Inside, `answer` is called for these signals, but for a hang-up that is ignored (nohup), and in the
    main thread alone. A hang-up counts once, for the shell and the kernel may both tell of it, and nobody
    reads what is said to that terminal from then on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    terminal = [number for number in (1, 2) if os.isatty(number)]

    def told(number: int, _: object) -> None:
        if number in HANG_UP:
            signal.signal(number, signal.SIG_IGN)
            for descriptor in terminal:
                with contextlib.suppress(OSError):
                    os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        answer()

    before = {number: signal.getsignal(number) for number in numbers}
    before = {n: h for n, h in before.items() if n not in HANG_UP or h is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, told)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: of another language


@contextlib.contextmanager
def polite_kills() -> Iterator[None]:
    """Inside, SIGTERM and a terminal that is closed end a command as Ctrl-C does: what it has begun to write
    vanishes. Where a program that calls `main` answers to them, they stay as they are."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    free = [n for n in (signal.SIGTERM, *HANG_UP) if signal.getsignal(n) is signal.SIG_DFL]
    with answering(interrupt, free):
        yield
