"""Progress in words: what is being done, how far it is, and how long it will still take.

On a terminal that is a line with a bar, ``encoding 16,000 images: batch 62 of 250, 1m03s left``;
anywhere else (a log, a pipe) it is such a line without the bar, at most one in `EVERY` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

EVERY = 10.0
"""Seconds between two lines where there is no terminal."""


def duration(seconds: float) -> str:
    """Returns days and hours, hours and minutes, minutes and seconds, or seconds."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def counted(number: int, name: str) -> str:
    """Returns for example "1 picture" or "16,000 pictures"."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def how_far(done: int, total: int, *, unit: str, seconds: float) -> str:
    """Returns for example "batch 62 of 250, 1m03s left"; `seconds` is the time taken so far."""
    text = f"{unit} {done:,} of {total:,}"
    if not 0 < done < total:
        return text
    return f"{text}, {duration(seconds / done * (total - done))} left"


class Lines:
    """Says how far a job is in lines: when it is first shown, now and then, and at its end."""

    def __init__(self, say: Callable[[str], object], text: str, *, unit: str) -> None:
        self.say = say
        self.text = text
        self.unit = unit
        self._begun = self._last = time.monotonic()
        self._silent = True

    def show(self, done: int, total: int) -> None:
        """Says how far the job is, unless the last line is younger than `EVERY` seconds."""
        now = time.monotonic()
        if self._silent:
            self._silent = False
            self.say(self.text)
        if now - self._last >= EVERY and done < total:
            self._last = now
            far = how_far(done, total, unit=self.unit, seconds=now - self._begun)
            self.say(f"{self.text}: {far}")

    def end(self) -> None:
        """Says how long the job took."""
        self.say(f"{self.text}: done in {duration(time.monotonic() - self._begun)}")


@contextmanager
def showing(
    console: Console, text: str, *, unit: str = "batch"
) -> Iterator[Callable[[int, int], None]]:
    """Shows one job: a bar on a terminal, `Lines` elsewhere. Yields the function that is called
    with how many units are done, and of how many."""

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    if not console.is_terminal:
        lines = Lines(say, text, unit=unit)
        yield lines.show
        lines.end()
        return
    from rich.progress import BarColumn, Progress, TextColumn

    begun = time.monotonic()
    columns = (TextColumn("{task.description}", markup=False), BarColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(text, total=None)

        def show(done: int, total: int) -> None:
            far = how_far(done, total, unit=unit, seconds=time.monotonic() - begun)
            bar.update(task, description=f"{text}: {far}", completed=done, total=total)

        yield show
    say(f"{text}: done in {duration(time.monotonic() - begun)}")
