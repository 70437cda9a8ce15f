"""Waits for the network while a unit is prepared, for a limited time, and says so."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pinxit.progress import duration

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the first test of the connection, and the longest pause between two tests."""
FIRST_NEWS, LONGEST_NEWS = 60.0, 600.0
"""Seconds until the wait is mentioned again, and the longest time between two such messages."""


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
        start, pause, news = self._clock(), FIRST_PAUSE, FIRST_NEWS
        since = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}"
        limit = duration(self.seconds)
        self._say(
            f"{problem}. Preparing waits for the network since {since}, for at most {limit} "
            "(--outage_hours), and then goes on. No row is lost"
        )
        while (left := self.seconds - (self._clock() - start)) > 0:
            self._sleep(min(pause, left))
            waited = self._clock() - start
            if is_over():
                self._say(f"the network can be reached again after {duration(waited)}")
                return
            if waited >= news:
                self._say(f"still waiting for the network: {duration(waited)} since {since}")
                news = waited + min(news, LONGEST_NEWS)
            pause = min(2 * pause, LONGEST_PAUSE)
        raise LongOutage(f"{problem}, for {limit} (--outage_hours)")


def _to_stderr(line: str) -> None:
    print(f"pinxit: {line}", file=sys.stderr, flush=True)
