"""Limits on a learner's code: seconds for a call, and characters that it prints."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


class TimeLimitError(BaseException):
    """A call ran longer than it may. No Exception: code that catches those does not catch it."""


#: Waiting may take this many times the processor time that is allowed: the machine may be busy.
WAITING = 10


@contextlib.contextmanager
def time_limit(seconds: int | float) -> Iterator[None]:
    """Raise TimeLimitError in the block once it has used so much processor time, and again if the
    code catches the error and continues; or once it has waited `WAITING` times as long.

    Only in the main thread and where there are such alarms (not on Windows); elsewhere no limit.
    One long operation of a library in C ends first.
    """
    there = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not there:
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeLimitError(f"it ran for more than {seconds:g} seconds")

    with (
        _alarm(signal.ITIMER_PROF, signal.SIGPROF, seconds, stop),
        _alarm(signal.ITIMER_REAL, signal.SIGALRM, WAITING * seconds, stop),
    ):
        yield


@contextlib.contextmanager
def _alarm(
    timer: int, number: int, seconds: int | float, stop: Callable[..., None]
) -> Iterator[None]:
    start = time.monotonic()
    before = signal.signal(number, stop)
    left, interval = signal.setitimer(timer, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(number, before)
        if left:  # somebody else's alarm was set: it goes on
            signal.setitimer(timer, max(left - (time.monotonic() - start), 1e-3), interval)


class _Bounded(io.TextIOBase):
    """Passes on the first characters, then drops what comes."""

    def __init__(self, target: Any, characters: int) -> None:
        self._target, self._left = target, characters

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._left > 0:
            self._target.write(text[: self._left])
            if len(text) > self._left:
                self._target.write("\n(the rest of the output was dropped)\n")
        self._left = max(0, self._left - len(text))
        return len(text)

    def flush(self) -> None:
        self._target.flush()


@contextlib.contextmanager
def output_limit(characters: int) -> Iterator[None]:
    """Drop what the block prints after this many characters."""
    with contextlib.redirect_stdout(_Bounded(sys.stdout, characters)):
        yield
