"""Which hosts are not asked for a while: those out of reach, and those that asked for quiet.

One that could not be reached several times in a row is not asked again for a while
(`Unreachable`). One that asks for more quiet than is waited for (429, Retry-After) is not asked
again before that is over (`Resting`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

UNREACHABLE_AFTER = 3
"""So many failed connections in a row make a host unreachable ..."""
UNREACHABLE_FOR = 60.0
"""... for so many seconds."""


class Unreachable:
    """Which hosts could not be connected to lately; a bounded table."""

    def __init__(self, size: int = 20_000) -> None:
        self._size = size
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def is_known(self, origin: str) -> bool:
        """Whether asking again is pointless at the moment."""
        count, until = self._failed.get(origin, (0, 0.0))
        return count >= UNREACHABLE_AFTER and asyncio.get_running_loop().time() < until

    def failed(self, origin: str) -> None:
        """A connection could not be made."""
        now = asyncio.get_running_loop().time()
        count, until = self._failed.pop(origin, (0, now))
        # What was known has run out: the next failure alone does not close the host again.
        count = 1 if now > until else count + 1
        self._failed[origin] = (count, now + UNREACHABLE_FOR)
        while len(self._failed) > self._size:
            self._failed.popitem(last=False)

    def reached(self, origin: str) -> None:
        """A connection was made."""
        self._failed.pop(origin, None)


class Resting:
    """Which servers asked to be left alone for longer than is waited; a bounded table."""

    def __init__(self, size: int = 20_000) -> None:
        self._size = size
        self._asked: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def ask(self, origin: str, status: str, seconds: float) -> None:
        """The server answered with this status, and asked for so many seconds of quiet."""
        until = asyncio.get_running_loop().time() + seconds
        _, before = self._asked.pop(origin, (status, until))
        self._asked[origin] = (status, max(until, before))
        while len(self._asked) > self._size:
            self._asked.popitem(last=False)

    def status(self, origin: str) -> str | None:
        """What the server answered when it asked; None where it may be asked again."""
        status, until = self._asked.get(origin, ("", 0.0))
        if status and asyncio.get_running_loop().time() < until:
            return status
        self._asked.pop(origin, None)
        return None
