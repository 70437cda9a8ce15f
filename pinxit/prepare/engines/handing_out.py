"""Hands out units to workers so that units which share a download stay with one worker.

Units with the same `group` that follow one another are a run: a row group of a remote table, for
example. A worker gets the units of one run after another. Once all runs are begun, a worker without
a run takes over half of the longest one.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable, Iterable
from typing import Any


class HandingOut:
    """The units that wait for a worker."""

    def __init__(self, units: Iterable[Any]) -> None:
        """Sets the units; the runs are begun in their order."""
        self._new = deque(deque(run) for run in runs_of(units))
        self._begun: dict[Hashable, deque[Any]] = {}

    def __len__(self) -> int:
        """Returns the number of units that wait."""
        runs = itertools.chain(self._new, self._begun.values())
        return sum(map(len, runs))

    def __bool__(self) -> bool:
        """Returns whether a unit waits."""
        return bool(self._new or self._begun)

    def next(self, worker: Hashable) -> Any:
        """Returns the next unit for a worker.

        It is the next one of the worker's run, or else of a new run, or else of the later half of
        the longest run of another worker. Raises IndexError if no unit waits.
        """
        run = self._begun.pop(worker, None)
        if run is None and self._new:
            run = self._new.popleft()
        if run is None:
            run = self._half_of_the_longest()
        unit = run.popleft()
        if run:
            self._begun[worker] = run
        return unit

    def leave(self, worker: Hashable) -> None:
        """Makes the run of a worker that has died the next new one."""
        if (run := self._begun.pop(worker, None)) is not None:
            self._new.appendleft(run)

    def _half_of_the_longest(self) -> deque[Any]:
        """Takes the later half of the longest run, or its only unit."""
        if not self._begun:
            raise IndexError("no unit waits")
        owner = max(self._begun, key=lambda worker: len(self._begun[worker]))
        run = self._begun.pop(owner)
        half = deque(run.pop() for _ in range((len(run) + 1) // 2))
        half.reverse()
        if run:
            self._begun[owner] = run
        return half


def runs_of(units: Iterable[Any]) -> list[list[Any]]:
    """Returns the runs of units that have the same group. A unit without a group is a run."""
    runs: list[list[Any]] = []
    last = ""
    for unit in units:
        group = getattr(unit, "group", "")
        if group and group == last:
            runs[-1].append(unit)
        else:
            runs.append([unit])
        last = group
    return runs
