"""Displays the progress of a job in words: its name, the units done, and the time left.

On a terminal this is a line with a bar, ``encoding 16,000 images: batch 62 of 250, 1m03s left``.
Elsewhere (a log, a pipe) it is the same line without the bar, at most once every `EVERY` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

EVERY = 10.0
"""The minimum number of seconds between two lines if the output is not a terminal."""


def duration(seconds: float) -> str:
    """Formats a duration in its two largest units, for example "2d03h", "1m03s" or "7s"."""
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
    """Reports a job's progress in lines: at its start, every `EVERY` seconds, and at its end."""

    def __init__(
        self, say: Callable[[str], object], text: str, *, unit: str, at_once: bool = True
    ) -> None:
        """Writes lines with `say`. If not `at_once`, a job shorter than `EVERY` writes none."""
        self.say = say
        self.text = text
        self.unit = unit
        self._started = self._last = time.monotonic()
        self._silent, self._written = at_once, False

    def show(self, done: int, total: int) -> None:
        """Writes a progress line, unless the last one is less than `EVERY` seconds old."""
        now = time.monotonic()
        if self._silent:
            self._silent, self._written = False, True
            self.say(self.text)
        if now - self._last >= EVERY and done < total:
            self._last, self._written = now, True
            far = how_far(done, total, unit=self.unit, seconds=now - self._started)
            self.say(f"{self.text}: {far}")

    def end(self) -> None:
        """Writes how long the job took."""
        if self._written or self._silent:
            self.say(f"{self.text}: done in {duration(time.monotonic() - self._started)}")


@contextmanager
def showing(
    console: Console, text: str, *, unit: str = "batch"
) -> Iterator[Callable[[int, int], None]]:
    """Shows the progress of one job: a bar on a terminal, `Lines` elsewhere.

    Yields a function that takes the number of units done and their total.
    """

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    if not console.is_terminal:
        lines = Lines(say, text, unit=unit)
        yield lines.show
        lines.end()
        return
    from rich.progress import BarColumn, Progress, TextColumn

    started = time.monotonic()
    columns = (TextColumn("{task.description}", markup=False), BarColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(text, total=None)

        def show(done: int, total: int) -> None:
            far = how_far(done, total, unit=unit, seconds=time.monotonic() - started)
            bar.update(task, description=f"{text}: {far}", completed=done, total=total)

        yield show
    say(f"{text}: done in {duration(time.monotonic() - started)}")
