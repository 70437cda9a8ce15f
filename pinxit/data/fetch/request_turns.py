"""Whose turn it is: limits on requests at once, per host and in all.

A few rules keep thousands of strangers' servers from holding one another up:

- A request takes its host's place first and only then one of the common places, so that those who
  wait for a slow host keep no place from the rest.
- A request that takes longer than `PATIENCE` moves to one of the spare places, as long as there
  are any: a connection that hangs costs next to nothing, so it need not cost a place either.
- A host that asks for quiet (429, Retry-After) gets it, for all of its URLs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pinxit.config import UsageError

PATIENCE = 1.0
"""Seconds for which a request may keep a common place."""
LATE = 0.25
"""Seconds; when a timer is later than this, the machine is overloaded."""
SPARE = 4
"""Spare places for each common one, where the limit of open files allows."""


@dataclass(slots=True)
class _Host:
    places: asyncio.Semaphore
    users: int = 0
    quiet_until: float = 0.0
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)


class Turns:
    """Places for requests. To be used inside one event loop."""

    def __init__(self, concurrency: int, per_host: int, *, spare: int) -> None:
        self._per_host = per_host
        self._common = asyncio.Semaphore(concurrency)
        self._spare = spare
        self._hosts: dict[str, _Host] = {}
        self._open = asyncio.Event()
        self._open.set()

    def pause(self) -> None:
        """From now on nobody gets a turn; turns that were given go on."""
        self._open.clear()

    def resume(self) -> None:
        """Turns are given again."""
        self._open.set()

    def quiet(self, host: str, seconds: float) -> None:
        """Gives no turn for this host for a while."""
        record = self._hosts.get(host)
        if record is not None:
            until = asyncio.get_running_loop().time() + seconds
            record.quiet_until = max(record.quiet_until, until)

    def awaited(self, host: str) -> bool:
        """Whether somebody waits for a turn for this host: its connection is worth keeping."""
        record = self._hosts.get(host)
        return record is not None and record.users > self._per_host

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """A turn to send one request to this host."""
        record = self._hosts.get(host)
        if record is None:
            record = self._hosts[host] = _Host(asyncio.Semaphore(self._per_host))
        record.users += 1
        try:
            async with record.places:
                await self._silence(record)
                async with self._common_place():
                    yield
        finally:
            record.users -= 1
            self._forget(host)

    async def _silence(self, record: _Host) -> None:
        loop = asyncio.get_running_loop()
        while (wait := record.quiet_until - loop.time()) > 0:
            await asyncio.sleep(wait)

    @asynccontextmanager
    async def _common_place(self) -> AsyncIterator[None]:
        await self._common.acquire()
        while not self._open.is_set():
            self._common.release()
            await self._open.wait()
            await self._common.acquire()
        place = _Place(self)
        try:
            yield
        finally:
            place.leave()

    def _forget(self, host: str) -> None:
        """Drops the record of a host that nobody uses, when its quiet time is over."""
        record = self._hosts.get(host)
        if record is None or record.users or record.timer is not None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= record.quiet_until:
            del self._hosts[host]
        else:
            record.timer = loop.call_at(record.quiet_until, self._over, host)

    def _over(self, host: str) -> None:
        self._hosts[host].timer = None
        self._forget(host)


class _Place:
    """A common place, until it is exchanged for a spare one."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._loop = asyncio.get_running_loop()
        self._moved = False
        self._wait()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(PATIENCE, self._move, self._loop.time() + PATIENCE)

    def _move(self, due: float) -> None:
        if self._loop.time() - due > LATE:  # we are slow, not the server: more would not help
            self._wait()
        elif self._turns._spare > 0:
            self._turns._spare -= 1
            self._moved = True
            self._turns._common.release()

    def leave(self) -> None:
        self._timer.cancel()
        if self._moved:
            self._turns._spare += 1
        else:
            self._turns._common.release()


def spare_places(concurrency: int) -> int:
    """How many requests more than `concurrency` the limit of open files leaves room for.

    Refuses a concurrency that the limit does not allow at all.
    """
    try:
        import resource
    except ImportError:  # no such limit on this system
        return SPARE * concurrency
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return SPARE * concurrency
    room = limit * 3 // 4
    if concurrency > room:
        raise UsageError(
            "concurrency",
            concurrency,
            problem=f"more than this process may open (its limit is {limit} files)",
            valid=f"at most {room}, or a higher limit (ulimit -n)",
        )
    return min(SPARE * concurrency, room - concurrency)
