"""Decides which worker begins which unit, for engines with several workers and open units.

A worker gets its first unit before any worker gets a second one. It gets another one when its last
one is drained, up to a number of open units. If a worker dies, all its open units are lost, and one
of them may be at fault. Each is tried again, alone in a worker, so that it fails alone.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pinxit.prepare.engines.base import DIED, UnitResult
from pinxit.prepare.engines.handing_out import HandingOut

W = TypeVar("W")


@dataclass(eq=False)
class _Try:
    """One try of a unit."""

    number: int
    unit: Any
    count: int = 1
    started: float = 0.0


@dataclass(eq=False)
class _Open:
    """The open units of one worker."""

    tries: dict[int, _Try] = field(default_factory=dict)
    reading: int | None = None
    """The number of the unit that is not drained yet."""

    @property
    def is_alone(self) -> bool:
        """Whether a unit is tried again, so that no other one may begin beside it."""
        return any(one.count > 1 for one in self.tries.values())


class Assignment(Generic[W]):
    """Assigns units to workers, and those of dead workers again."""

    def __init__(
        self,
        units: Sequence[Any],
        start: Callable[[], W],
        *,
        workers: int,
        open_units: int,
        attempts: int,
    ) -> None:
        """Takes a function that starts a worker, which is called for at most `workers` at a time,
        the number of units that a worker may have open, and the number of workers that may die on
        a unit before it fails."""
        self._start, self._most = start, workers
        self._open_units, self._attempts = open_units, attempts
        self._fresh = HandingOut(units)
        self._numbers = itertools.count()
        self._again: deque[_Try] = deque()
        self._workers: dict[W, _Open] = {}

    @property
    def is_over(self) -> bool:
        """Whether every unit has a result."""
        return not (self._fresh or self._again or self.busy)

    @property
    def busy(self) -> list[W]:
        """The workers that have open units."""
        return [worker for worker, known in self._workers.items() if known.tries]

    @property
    def idle(self) -> list[W]:
        """The workers that have no open unit."""
        return [worker for worker, known in self._workers.items() if not known.tries]

    def due(self) -> Iterator[tuple[W, int, Any]]:
        """Yields each worker that is to begin a unit now, with the unit's number and the unit."""
        while True:
            worker, one = None, None
            if self._again or self._fresh:
                worker = self._unused()
            if worker is not None and self._again:
                one = self._again.popleft()
            elif worker is None and self._fresh:
                worker = self._free()
            if worker is None:
                return
            one = one or _Try(next(self._numbers), self._fresh.next(worker))
            one.started = time.perf_counter()
            known = self._workers[worker]
            known.tries[one.number], known.reading = one, one.number
            yield worker, one.number, one.unit

    def _unused(self) -> W | None:
        """Returns a worker without open units, which is started if there may be more workers."""
        if not self.idle and len(self._workers) < self._most:
            self._workers[self._start()] = _Open()
        return next(iter(self.idle), None)

    def _free(self) -> W | None:
        """Returns the worker with the fewest open units that may begin one."""
        free = {
            worker: len(known.tries)
            for worker, known in self._workers.items()
            if known.reading is None and len(known.tries) < self._open_units and not known.is_alone
        }
        return min(free, key=free.__getitem__, default=None)

    def drained(self, worker: W, number: int) -> None:
        """Notes that a unit needs no more input, so that its worker may begin another one."""
        known = self._workers[worker]
        if known.reading == number:
            known.reading = None

    def finished(self, worker: W, number: int) -> None:
        """Notes that a unit has a result."""
        self.drained(worker, number)
        del self._workers[worker].tries[number]

    def lost(self, worker: W, reason: str, *, trace: str = "") -> list[UnitResult]:
        """Notes that a worker died, and returns the results of its units that are not tried again.

        `reason` says how it died.
        """
        failed = []
        self._fresh.leave(worker)
        for one in self._workers.pop(worker).tries.values():
            if one.count < self._attempts:
                self._again.append(_Try(one.number, one.unit, one.count + 1))
                continue
            seconds = time.perf_counter() - one.started
            died = UnitResult(one.unit, kind=DIED, reason=reason, trace=trace, seconds=seconds)
            failed.append(died)
        return failed
