"""Work in a thread that the main thread attends: it may be given up after a signal or a time.

A compilation, a sampling program or a dead disk cannot be interrupted from inside. So such work
runs in a thread, while the main thread waits and listens. When the main thread gives up, it sets an
event that the work may check, waits a moment, and goes on. A thread that does not end is left
behind, and `end_without_waiting` ends the process.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from pinxit.devices.processes import Stopped, disconnect

T = TypeVar("T")
POLL = 0.1
"""Seconds between two looks at the clock and at signals while the work runs."""

_abandoned: list[threading.Thread] = []
_own = threading.local()


class NotEnded(TimeoutError):
    """Raised when work has not ended in time. Its thread still runs."""

    def __init__(self, thread: threading.Thread, seconds: float) -> None:
        super().__init__(f"not finished after {seconds:g} seconds")
        self.thread = thread


def end_if_asked() -> None:
    """Raises `Stopped` if the main thread has given up the work of this thread. Work calls it
    between its parts."""
    giving_up: threading.Event | None = getattr(_own, "giving_up", None)
    if giving_up is not None and giving_up.is_set():
        raise Stopped


def attended(
    act: Callable[[], T],
    *,
    name: str,
    stop: Callable[[], Any] = lambda: None,
    seconds: float | None = None,
    grace: float = 0.0,
) -> T:
    """Runs `act` in a thread and returns its result, or raises its exception.

    Once `stop` returns a true value, raises `Stopped`. After `seconds`, raises `NotEnded`. Before
    either, it makes `end_if_asked` raise in the thread, and waits for at most `grace` seconds.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    done, giving_up = threading.Event(), threading.Event()

    def work() -> None:
        _own.giving_up = giving_up
        try:
            results.append(act())
        except BaseException as error:  # raised again by the main thread
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=work, name=f"pinxit-{name}", daemon=True)
    thread.start()
    deadline = None if seconds is None else time.monotonic() + seconds
    while not done.wait(POLL):
        stopped = bool(stop())
        late = deadline is not None and time.monotonic() >= deadline
        if not stopped and not late:
            continue
        giving_up.set()
        if done.wait(grace):
            break
        leave_behind(thread)
        if stopped or seconds is None:
            raise Stopped
        raise NotEnded(thread, seconds)
    if errors:
        raise errors.pop()
    return results.pop()


def left_behind() -> list[str]:
    """Returns the names of abandoned threads that still run."""
    return [thread.name for thread in _abandoned if thread.is_alive()]


def leave_behind(thread: threading.Thread) -> None:
    """Notes that a thread was given up."""
    _abandoned.append(thread)


def end_without_waiting(code: int) -> None:
    """Ends the process at once if threads were left behind. Python would wait for the programs that
    they have started, or end in an error."""
    if not left_behind():
        return
    disconnect()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
