"""Limits the number of simultaneous requests, per host and in total.

Three rules keep slow servers from delaying the others:

- A request takes a slot of its host first and a common slot second, so that requests waiting for a
  slow host occupy no common slot.
- A request that takes longer than `PATIENCE` moves to a spare slot, as long as there is one. A
  hanging connection costs next to nothing, so it need not cost a common slot.
- A pause that a host asks for (429, Retry-After) holds for all of its URLs.

The limit per host and the pauses hold over all processes of the machine (`machine_limits`). A slot
of the machine is taken last, at the moment of the request, so that a process that waits for
anything else takes none from the others.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pinxit.config import UsageError
from pinxit.data.fetch.machine_limits import MachineLimits

PATIENCE = 1.0
"""Seconds for which a request may occupy a common slot."""
LATE = 0.25
"""Delay of a timer, in seconds, above which this machine counts as overloaded."""
FIRST_POLL, LONGEST_POLL = 0.01, 0.25
"""Seconds after which a slot that other processes use is asked for again, first and later."""
SPARE = 4
"""Number of spare slots per common slot, if the limit of open files allows."""


@dataclass(slots=True)
class _Host:
    places: asyncio.Semaphore
    users: int = 0
    quiet_until: float = 0.0
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)


class _Slots:
    """A number of slots, granted in the order in which they were asked for while it is open."""

    def __init__(self, count: int) -> None:
        self.is_open = True
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Waits for a slot."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self.grant()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Returns a slot."""
        self._free += 1
        self.grant()

    def grant(self) -> None:
        """Grants the free slots to those who wait, if it is open."""
        while self.is_open and self._free and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._free -= 1
                turn.set_result(None)


class Turns:
    """Grants slots for requests. All calls must come from one event loop."""

    def __init__(
        self, concurrency: int, per_host: int, *, spare: int, machine: MachineLimits | None = None
    ) -> None:
        """Limits requests in total and per host. Without `machine`, this limits no one else."""
        self._machine = machine or MachineLimits(None)
        self._per_host = per_host
        self._common = _Slots(concurrency)
        self._spare = spare
        self._hosts: dict[str, _Host] = {}

    def pause(self) -> None:
        """Grants no further turns until `resume`; requests under way continue. No slot of a host
        is left free for this process meanwhile."""
        self._common.is_open = False
        self._machine.give_up_all()

    def resume(self) -> None:
        """Grants turns again."""
        self._common.is_open = True
        self._common.grant()

    def quiet(self, host: str, seconds: float) -> None:
        """Grants no turn for this host for `seconds`, in any process."""
        self._machine.pauses.ask(host, 429, seconds)
        record = self._hosts.get(host)
        if record is not None:
            until = asyncio.get_running_loop().time() + seconds
            record.quiet_until = max(record.quiet_until, until)

    def awaited(self, host: str) -> bool:
        """Returns whether further requests wait for this host, so that its connection is kept."""
        record = self._hosts.get(host)
        return record is not None and record.users > self._per_host

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Waits for a turn to send one request to this host, and holds it."""
        record = self._hosts.get(host)
        if record is None:
            record = self._hosts[host] = _Host(asyncio.Semaphore(self._per_host))
        record.users += 1
        try:
            async with record.places, self._machine_slot(host, record):
                yield
        finally:
            record.users -= 1
            if not record.users:
                self._machine.give_up(host)
            self._forget(host)

    @asynccontextmanager
    async def _machine_slot(self, host: str, record: _Host) -> AsyncIterator[None]:
        """Waits until the host may be asked, for a common slot, and for a slot of the machine."""
        pause = FIRST_POLL
        while True:
            while (wait := self._silence(host, record)) > 0:
                await asyncio.sleep(wait)
            async with self._common_place():
                slot = None
                if self._silence(host, record) <= 0:  # asked for while this request waited
                    slot = self._machine.take(host, self._per_host)
                if slot is not None:
                    try:
                        yield
                    finally:
                        self._machine.give(host, slot)
                    return
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_POLL)

    def _silence(self, host: str, record: _Host) -> float:
        """Returns the seconds for which this host is not asked for anything."""
        shared = self._machine.pauses.left(host)
        own = record.quiet_until - asyncio.get_running_loop().time()
        return max(own, shared[0] if shared is not None else 0.0)

    @asynccontextmanager
    async def _common_place(self) -> AsyncIterator[None]:
        await self._common.acquire()
        place = _Place(self)
        try:
            yield
        finally:
            place.leave()

    def _forget(self, host: str) -> None:
        """Drops the record of an idle host once its pause is over."""
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
    """A common slot that is exchanged for a spare one if the request is slow."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._loop = asyncio.get_running_loop()
        self._moved = False
        self._wait()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(PATIENCE, self._move, self._loop.time() + PATIENCE)

    def _move(self, due: float) -> None:
        if self._loop.time() - due > LATE:  # this machine is slow, not the server
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
    """Returns how many requests beyond `concurrency` the limit of open files leaves room for.

    Raises `UsageError` if the limit does not even allow `concurrency`.
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
