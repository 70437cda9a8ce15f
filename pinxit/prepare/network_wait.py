"""Waits for the network while units are prepared, for a limited time, and says so.

An outage is one outage for all units that a process has open: `SharedWait` tests the connection,
and waits, once for all of them.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from pinxit.data.outage_wait import TooLong, wait_out
from pinxit.progress import duration

FIRST_PAUSE = 0.5
"""Seconds before the first test of the connection."""


class Offline(OSError):
    """No host can be reached, which says nothing about the rows, so no outcome is recorded."""


class LongOutage(Offline):
    """No host could be reached for as long as the user wants to wait, so the stage stops."""


class Doubtful(Offline):
    """Far more hosts of a unit could not be reached than of the other units, so no outcome is
    recorded before a second attempt says the same."""


class NetworkWait:
    """Waits until a connection is possible again."""

    def __init__(
        self,
        seconds: float,
        *,
        say: Callable[[str], None] | None = None,
        sleep: Callable[[float], Any] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Sets the longest wait. `say` receives the messages; None writes them to stderr, which
        the processes of an engine share."""
        self.seconds = seconds
        self._say = say or _to_stderr
        self._sleep, self._clock = sleep, clock

    def __call__(self, problem: str, is_over: Callable[[], bool]) -> None:
        """Waits until `is_over` returns True; `problem` is a clause that says what cannot be
        reached. Raises `Offline` after the limit."""
        if not self.seconds:
            raise Offline(f"{problem} (--outage_hours)")
        try:
            wait_out(
                problem,
                "the network",
                is_over,
                activity="Preparing",
                limit=self.seconds,
                first_pause=FIRST_PAUSE,
                say=self._say,
                rest=self._sleep,
                clock=self._clock,
            )
        except TooLong:
            limit = duration(self.seconds)
            raise LongOutage(f"{problem}, for {limit} (--outage_hours)") from None


class _Outage:
    """An outage that one unit waits out for all."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.error: BaseException | None = None


class SharedWait:
    """Tests the connection, and waits for it, for all units that a process has open."""

    def __init__(
        self,
        wait: Callable[[str, Callable[[], bool]], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Waits with `wait`, as `NetworkWait` does."""
        self._wait, self._clock = wait, clock
        self._testing, self._choosing = threading.Lock(), threading.Lock()
        self._tested: tuple[float, bool] = (-math.inf, False)
        """The end of the last test, and its result."""
        self._outage: _Outage | None = None

    def tested(self, is_up: Callable[[], bool]) -> bool:
        """Returns the result of a test that ends after this call: of `is_up`, or of another unit's
        test that is under way."""
        asked = self._clock()
        with self._testing:
            ended, result = self._tested
            if ended < asked:
                result = is_up()
                self._tested = self._clock(), result
            return result

    def __call__(self, problem: str, is_over: Callable[[], bool]) -> None:
        """Waits like `NetworkWait`, or until another unit that waits already has done so. Raises
        what that wait raises."""
        with self._choosing:
            outage = self._outage
            is_first = outage is None
            outage = self._outage = outage or _Outage()
        if not is_first:
            outage.over.wait()
            if outage.error is not None:
                raise type(outage.error)(*outage.error.args)
            return
        try:
            self._wait(problem, is_over)
        except BaseException as error:
            outage.error = error
            raise
        finally:
            with self._choosing:
                self._outage = None
            outage.over.set()


def _to_stderr(line: str) -> None:
    print(f"pinxit: {line}", file=sys.stderr, flush=True)
