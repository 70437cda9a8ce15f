"""Waits for the network while a unit is prepared, for a limited time, and says so."""

from __future__ import annotations

import sys
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


def _to_stderr(line: str) -> None:
    print(f"pinxit: {line}", file=sys.stderr, flush=True)
