"""Memory for the bodies of responses: a body is read only when there is room for all of it.

A long body is read only when memory for all of it is reserved (`BodyMemory`, `BodyShare`), and
keeps that memory until it is taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence


class BodyMemory:
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


class BodyShare:
    """The memory that one body holds, from when it is read until somebody takes it.

    A body that does not say how long it is gets the next of a few sizes when it has outgrown the
    last; each size has memory of its own. Nobody who holds the largest waits for anything but to
    be taken, so those who wait for it get it some day.
    """

    def __init__(self, sizes: Sequence[tuple[int, BodyMemory]], *, free: int) -> None:
        """`sizes` are the longest body and the memory of each, in rising order; `free` bytes need
        no memory."""
        self._sizes = sizes
        self._held: tuple[BodyMemory, int] | None = None
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
