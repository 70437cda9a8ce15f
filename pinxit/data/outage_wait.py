"""Waits while something on the network cannot be reached, and says so, for a limited time.

Training and preparing wait in the same way: they test the connection now and then, mention a long
wait again, and go on by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pinxit.progress import duration

LONGEST_PAUSE = 30.0
"""Longest pause, in seconds, between two tests of the connection."""
FIRST_NEWS, LONGEST_NEWS = 60.0, 600.0
"""Seconds until the wait is mentioned again, and the longest time between two such messages."""
LEAST_PAUSE = 0.1
"""Shortest pause, in seconds, before the limit."""


class TooLong(Exception):
    """Raised when the limit is reached."""

    def __init__(self, seconds: float, since: str) -> None:
        super().__init__(seconds, since)
        self.seconds, self.since = seconds, since


def wait_out(
    problem: str,
    subject: str,
    is_over: Callable[[], bool],
    *,
    activity: str,
    limit: float,
    first_pause: float,
    say: Callable[[str], Any],
    rest: Callable[[float], Any],
    clock: Callable[[], float],
) -> None:
    """Waits until `is_over` returns True, for at most `limit` seconds. Raises `TooLong` after them.

    `problem` is a clause that says what cannot be reached, `subject` a name for it, and `activity`
    what waits, such as "Training". The first test follows after `first_pause` seconds. `rest`
    pauses for some seconds.
    """
    start, pause = clock(), first_pause
    since = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}"
    say(
        f"{problem}. {activity} waits for {subject} since {since}, for at most {duration(limit)} "
        "(--outage_hours), and then goes on. No row is lost"
    )
    news = step = FIRST_NEWS
    while True:
        rest(min(pause, max(LEAST_PAUSE, limit - (clock() - start))))
        if is_over():
            break
        waited = clock() - start
        if waited >= limit:
            raise TooLong(waited, since)
        if waited >= news:
            say(
                f"still waiting for {subject}: {duration(waited)} since {since}, for at most "
                f"{duration(limit - waited)} more"
            )
            step = min(2 * step, LONGEST_NEWS)
            news = waited + step
        pause = min(2 * pause, LONGEST_PAUSE)
    say(f"{subject} can be reached again after {duration(clock() - start)}")
