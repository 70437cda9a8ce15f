"""Bounds the memory that response bodies occupy.

A long body is read only when memory for all of it is reserved (`BodyMemory`, `BodyShare`). It
occupies that memory until the caller has consumed it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence


class BodyMemory:
    """A budget of bytes, granted in the order of the requests."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, amount: int) -> int:
        """Waits for `amount` bytes (at most the whole budget) and returns the number granted."""
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
        """Gives bytes back to the budget."""
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


class BodyShare:
    """The memory that one body occupies, from its first byte until it is consumed.

    A response without Content-Length moves to the next size class when it outgrows its current
    one. Each class has its own budget. Holders of the largest class never wait for memory, so
    waiters cannot deadlock.
    """

    def __init__(self, sizes: Sequence[tuple[int, BodyMemory]], *, free: int) -> None:
        """Takes size classes in rising order, each with its largest body and its budget; the first
        `free` bytes of a body need no memory."""
        self._sizes = sizes
        self._held: tuple[BodyMemory, int] | None = None
        self.room = free
        """Bytes that the body may reach before it has to `grow`."""

    async def grow(self, size: int, announced: int | None) -> None:
        """Waits for room for a body of `size` bytes, or of `announced` bytes if that is known."""
        needed = max(size, announced or 0)
        limit, memory = next(pair for pair in self._sizes if pair[0] >= needed)
        granted = await memory.take(announced or limit)
        self.release()
        self._held, self.room = (memory, granted), limit

    def shrink(self, size: int) -> None:
        """Gives back what a complete body of `size` bytes does not need."""
        if self._held is not None:
            memory, granted = self._held
            needed = min(size, granted)
            self._held = (memory, needed)
            memory.give(granted - needed)

    def release(self) -> None:
        """Gives all memory back; may be called more than once."""
        if self._held is not None:
            memory, granted = self._held
            self._held = None
            memory.give(granted)
