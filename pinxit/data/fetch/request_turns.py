"""Whose turn it is: limits on requests at once, per host and in all, and on memory.

A few rules keep thousands of strangers' servers from holding one another up:

- A request takes its host's place first and only then one of the common places, so that those who
  wait for a slow host keep no place from the rest.
- A request that takes longer than `PATIENCE` moves to one of the spare places, as long as there
  are any: a connection that hangs costs next to nothing, so it need not cost a place either.
- A host that asks for quiet (429, Retry-After) gets it, for all of its URLs; one that could not be
  reached several times in a row is not asked again for a while (`Unreachable`), and one that asks
  for more quiet than anybody waits for is not asked again before that is over (`Resting`).
- A long body is read only when memory for all of it is set aside (`Memory`, `Share`), and keeps it
  until it is taken.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pinxit.config import UsageError

PATIENCE = 1.0
"""Seconds for which a request may keep a common place."""
LATE = 0.25
"""Seconds; when a timer is later than this, the machine is overloaded."""
SPARE = 4
"""Spare places for each common one, where the limit of open files allows."""
UNREACHABLE_AFTER = 3
"""So many failed connections in a row make a host unreachable ..."""
UNREACHABLE_FOR = 60.0
"""... for so many seconds."""


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


class Memory:
    """Bytes to set aside, given out in the order in which they are asked for."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, amount: int) -> int:
        """Waits for `amount` bytes (at most all there are); returns what is to be given back."""
        amount = min(amount, self._size)
        if not self._waiting and amount <= self._free:
            self._free -= amount
            return amount
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, future))
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():  # it was granted in the same moment
                self.give(amount)
            raise
        finally:
            self._serve()
        return amount

    def give(self, amount: int) -> None:
        """Returns bytes."""
        self._free += amount
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            amount, future = self._waiting[0]
            if not future.cancelled():
                if amount > self._free:
                    return
                self._free -= amount
                future.set_result(None)
            self._waiting.popleft()


class Share:
    """The memory that one body holds, from when it is read until somebody takes it.

    A body that does not say how long it is gets the next of a few sizes when it has outgrown the
    last; each size has memory of its own. Nobody who holds the largest waits for anything but to
    be taken, so those who wait for it get it some day.
    """

    def __init__(self, sizes: Sequence[tuple[int, Memory]], *, free: int) -> None:
        """`sizes` are the longest body and the memory of each, in rising order; `free` bytes need
        no memory."""
        self._sizes = sizes
        self._held: tuple[Memory, int] | None = None
        self.room = free
        """So long may the body become before it has to `grow`."""

    async def grow(self, size: int, announced: int | None) -> None:
        """Waits for room for a body of `size` bytes, or of `announced` bytes where it says so."""
        needed = max(size, announced or 0)
        limit, memory = next(pair for pair in self._sizes if pair[0] >= needed)
        taken = await memory.take(announced or limit)
        self.release()
        self._held, self.room = (memory, taken), limit

    def shrink(self, size: int) -> None:
        """Keeps what a body of `size` bytes needs, which is all that there is."""
        if self._held is not None:
            memory, taken = self._held
            kept = min(size, taken)
            self._held = (memory, kept)
            memory.give(taken - kept)

    def release(self) -> None:
        """Gives all back; again is fine."""
        if self._held is not None:
            memory, taken = self._held
            self._held = None
            memory.give(taken)


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
