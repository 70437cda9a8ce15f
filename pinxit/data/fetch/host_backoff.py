"""Remembers hosts that are not contacted for a while.

A host that could not be reached several times in a row is skipped for a minute (`Unreachable`), and
so is one that takes connections and answers none of them (`Silent`), by all processes of the
machine: each request to it costs a slot for as long as a request may take. A host that asks for a
longer pause than the fetcher waits for (429 with Retry-After) is skipped until
that pause is over (`Resting`), by all processes of the machine.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from pinxit.data.fetch.shared_pauses import SharedPauses
from pinxit.data.outcome import http_code, http_status

UNREACHABLE_AFTER = 3
"""Number of failed connections in a row that make a host unreachable."""
UNREACHABLE_FOR = 60.0
"""Seconds for which an unreachable host is skipped."""
SILENT_AFTER = 16
"""Number of requests in a row without an answer in time that make a host silent."""
SILENT_FOR = 60.0
"""Seconds for which a silent host is skipped, after the last such request."""


class Unreachable:
    """A bounded table of hosts that could not be connected to lately."""

    def __init__(self, size: int = 20_000) -> None:
        self._size = size
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def is_known(self, origin: str) -> bool:
        """Returns whether the host is to be skipped now."""
        count, until = self._failed.get(origin, (0, 0.0))
        return count >= UNREACHABLE_AFTER and asyncio.get_running_loop().time() < until

    def failed(self, origin: str) -> None:
        """Records a failed connection."""
        now = asyncio.get_running_loop().time()
        count, until = self._failed.pop(origin, (0, now))
        # An expired entry starts again from one failure.
        count = 1 if now > until else count + 1
        self._failed[origin] = (count, now + UNREACHABLE_FOR)
        while len(self._failed) > self._size:
            self._failed.popitem(last=False)

    def reached(self, origin: str) -> None:
        """Records a connection that was made."""
        self._failed.pop(origin, None)

    def clear(self) -> None:
        """Forgets all hosts."""
        self._failed.clear()


class Silent:
    """The hosts that do not answer in time, which all processes of the machine count together."""

    def __init__(self, shared: SharedPauses) -> None:
        """Keeps the numbers of unanswered requests in `shared`, in place of status codes. What
        others counted before now does not count: a test of the network asks afresh."""
        self._shared = shared
        self._forgot_at = shared.now()

    def is_known(self, origin: str) -> bool:
        """Returns whether the host is to be skipped now."""
        return self._unanswered(origin) >= SILENT_AFTER

    def failed(self, origin: str) -> None:
        """Records a request that was not answered in time."""
        self._shared.ask(origin, self._unanswered(origin) + 1, SILENT_FOR)

    def answered(self, origin: str) -> None:
        """Records an answer."""
        if self._shared.left(origin) is not None:
            self._shared.drop(origin)

    def clear(self) -> None:
        """Forgets all hosts for this fetcher, since the network is back."""
        self._forgot_at = self._shared.now()

    def _unanswered(self, origin: str) -> int:
        seconds, count = self._shared.left(origin) or (0.0, 0)
        is_newer = self._shared.now() + seconds - SILENT_FOR > self._forgot_at
        return count if is_newer else 0


class Resting:
    """A bounded table of servers that asked for a longer pause than the fetcher waits for."""

    def __init__(self, size: int = 20_000, *, shared: SharedPauses | None = None) -> None:
        """Keeps `size` servers. The pauses that other processes were asked for are in `shared`."""
        self._size = size
        self._shared = shared or SharedPauses(None)
        self._asked: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def ask(self, origin: str, status: str, seconds: float) -> None:
        """Records that the server returned `status` and asked for a pause of `seconds`."""
        self._shared.ask(origin, http_code(status) or 0, seconds)
        until = asyncio.get_running_loop().time() + seconds
        _, before = self._asked.pop(origin, (status, until))
        self._asked[origin] = (status, max(until, before))
        while len(self._asked) > self._size:
            self._asked.popitem(last=False)

    def status(self, origin: str) -> str | None:
        """Returns the status with which the server asked for a pause, or None if it is over."""
        status, until = self._asked.get(origin, ("", 0.0))
        if status and asyncio.get_running_loop().time() < until:
            return status
        self._asked.pop(origin, None)
        shared = self._shared.left(origin)
        return http_status(shared[1]) if shared is not None else None
