"""A queue of units in a file, from one process to the workers of any engine on any machine.

An engine takes a fixed list of units, and which unit is encoded next is only known when its images
are there. So the engine gets numbers, and the worker that has the number n waits for the n-th unit
of the queue. Every number belongs to one worker at a time, so no unit is taken twice. A number that
is tried again, because its worker died, is the same unit again.
"""

from __future__ import annotations

import time
from pathlib import Path

from pinxit.files import append

END = "."
"""The line after which no unit follows. No unit has such an id."""
POLL = 0.1
"""Seconds between two looks at the file. Workers that have nothing to do any more while others
encode their last unit ask for the next number as often as this."""


class UnitQueue:
    """A queue of unit ids. One process writes it, and copies of it (by pickle) read it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.units: list[str] = []
        """The units that have been put, or read, so far."""
        self.ended = self.stopped = False
        self._offset = 0

    def create(self) -> None:
        """Begins an empty queue, in place of that of a killed command."""
        self.remove()
        append(self.path, "")

    def remove(self) -> None:
        """Removes the file. Readers then know that no unit is to be begun or finished."""
        self.path.unlink(missing_ok=True)

    def put(self, unit: str) -> None:
        """Adds a unit. Raises `files.DiskFull` if the disk is full."""
        append(self.path, f"{unit}\n")
        self.units.append(unit)

    def end(self) -> None:
        """Says that no unit follows."""
        append(self.path, f"{END}\n")

    def wait(self, number: int) -> str | None:
        """Waits for the unit with this number, from 0. Returns None if there will be none."""
        while True:
            self._read_on()
            if self.stopped:
                return None
            if number < len(self.units):
                return self.units[number]
            time.sleep(POLL)
            if self.ended:
                return None

    def is_stopped(self) -> bool:
        """Returns whether no unit is to be finished any more."""
        self._read_on()
        return self.stopped

    def _read_on(self) -> None:
        """Reads the lines that were added. A queue whose file is gone has stopped."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            self.stopped = True
            return
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.decode().splitlines():
            if line == END:
                self.ended = True
            else:
                self.units.append(line)
