"""Waits for the network while a unit is prepared, for a limited time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pinxit.progress import duration

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the first test of the connection, and the longest pause between two tests."""


class Offline(OSError):
    """No host can be reached, which says nothing about the rows, so no outcome is recorded."""


class Doubtful(Offline):
    """Far more hosts of a unit could not be reached than of the other units, so no outcome is
    recorded before a second attempt says the same."""


class NetworkWait:
    """Waits until a connection is possible again."""

    def __init__(
        self,
        seconds: float,
        *,
        sleep: Callable[[float], Any] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Sets the longest wait."""
        self.seconds = seconds
        self._sleep, self._clock = sleep, clock

    def __call__(self, problem: str, is_over: Callable[[], bool]) -> None:
        """Waits until `is_over` returns True; `problem` is a clause that says what cannot be
        reached. Raises `Offline` after the limit."""
        start, pause = self._clock(), FIRST_PAUSE
        while (left := self.seconds - (self._clock() - start)) > 0:
            self._sleep(min(pause, left))
            if is_over():
                return
            pause = min(2 * pause, LONGEST_PAUSE)
        waited = f", for {duration(self.seconds)}" if self.seconds else ""
        raise Offline(f"{problem}{waited} (--outage_minutes)")
