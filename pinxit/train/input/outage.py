"""Waits while the network, or the source of a stream, cannot be reached.

A run of days outlives an outage of hours: it stops asking, tests the connection now and then, and
goes on by itself. It says what it waits for, since when, and how much longer. A signal ends the
wait at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from pinxit.config import UsageError
from pinxit.data.network_fault import is_network_fault
from pinxit.data.outage_wait import TooLong, wait_out
from pinxit.devices.processes import Stopped
from pinxit.progress import duration
from pinxit.train.attended_work import attended

T = TypeVar("T")

LEAST = 90.0
"""Seconds that are always waited, whatever the setting."""
FIRST_PAUSE = 1.0
"""Seconds before the first test of the connection."""
LOOK_SECONDS = 0.1
"""Seconds between two looks whether the run is to stop."""


class Ended(UsageError):
    """The reason why a stream has no more images."""


class Outage:
    """Waits for a connection, for a limited time."""

    def __init__(
        self,
        *,
        hours: float,
        say: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], Any] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the setting outage_hours as `hours`. `say` receives the messages."""
        self.limit = max(LEAST, hours * 3600)
        """Longest wait, in seconds."""
        self.stopping: Callable[[], bool] = lambda: False
        """Called while waiting. Returns True if the run should stop, which ends the wait."""
        self.total = 0.0
        """Seconds waited in all outages."""
        self.say = say
        self._sleep, self._clock = sleep, clock

    def wait(
        self, problem: str, subject: str, is_over: Callable[[], bool], *, limit: float | None = None
    ) -> None:
        """Waits until `is_over` returns True, for at most `limit` seconds (None: `self.limit`).

        `problem` is a clause that says what cannot be reached, `subject` a name for it. Raises
        `Ended` after the limit, and once the run should stop.
        """
        start = self._clock()
        try:
            wait_out(
                problem,
                subject,
                lambda: self.tested(is_over),
                activity="Training",
                limit=self.limit if limit is None else limit,
                first_pause=FIRST_PAUSE,
                say=self.say,
                rest=self.rest,
                clock=self._clock,
            )
        except TooLong as error:
            raise Ended(
                f"{problem}, for {duration(error.seconds)} since {error.since} (--outage_hours). "
                "Is there a network connection?"
            ) from None
        finally:
            self.total += self._clock() - start

    def rest(self, seconds: float) -> None:
        """Waits for that long. Raises `Ended` once the run should stop."""
        until = self._clock() + seconds
        while (rest := until - self._clock()) > 0:
            self._check()
            self._sleep(min(rest, LOOK_SECONDS))
        self._check()

    def tested(self, is_over: Callable[[], bool]) -> bool:
        """Returns the result of `is_over`, which runs in a thread, since a connection may hang.
        Raises `Ended` once the run should stop."""
        try:
            return attended(is_over, name="outage", stop=self.stopping)
        except Stopped:
            raise Ended("closed") from None

    def _check(self) -> None:
        if self.stopping():
            raise Ended("closed")


def patiently(act: Callable[[], T], outage: Outage, subject: str) -> T:
    """Returns the result of `act`, and waits while the network makes it fail."""
    results: list[T] = []
    reason: list[Exception] = []

    def is_over() -> bool:
        try:
            results.append(act())
        except (OSError, ValueError) as error:
            if not is_network_fault(error):
                raise
            reason[:] = [error]
        return bool(results)

    if not is_over():
        outage.wait(f"{subject} cannot be reached: {reason[0]}", f"the source {subject}", is_over)
    return results[0]
