"""The order in which a stream tries its rows, and a position in it that can be kept.

The units of the source come in an order that follows from the seed and the epoch, and the rows that
pass the filters are shuffled within their unit (in blocks, where rows bear their images). That
order is the same whatever the web answers; when an attempt ends, and how, is not. So a position is
the first attempt that has not ended, and the list of those behind it that have not either: whoever
goes on from there tries these, then what nobody has tried, and none twice.

A unit that cannot be read, or not to its end, is left there, and the next one taken up. Whether it
can be read another day is not certain either, so a position also has the number of rows that each
unit gave: whoever goes on takes as many of it, so that all others keep their numbers.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pinxit.config import UsageError
from pinxit.data.filters.duplicate_list import open_duplicates
from pinxit.data.filters.row_filter import Filter, FilterConfig
from pinxit.data.row import Row, Source, Unit
from pinxit.data.row_images import reason_to_drop

BLOCK = 256
"""Rows that are shuffled together where each bears its image."""
TRIES = 4
"""Times a unit is opened that cannot be read."""
PAUSE = 2.0
"""Seconds before the second time; doubles each time."""
UNREADABLE = 5
"""So many units in a row that cannot be read are no accident."""


@dataclass(frozen=True)
class Position:
    """A place in the order of attempts, and what was counted up to it."""

    epoch: int = 0
    unit: int = 0
    """In the epoch's order of units."""
    row: int = 0
    """In the unit's order of rows: the first attempt that has not ended."""
    tried: int = 0
    """Attempts that were made from that one on."""
    waiting: tuple[int, ...] = ()
    """Those of them that have not ended, counted from that one on."""
    given: tuple[int, ...] = ()
    """Rows that each unit gave, from this one to that of the last attempt, which may have more."""
    opened: int = 0
    """Units, over all epochs, whose filtered rows are in `counts`."""
    counts: dict[str, int] = field(default_factory=dict)
    """Rows by status."""
    logged: int = 0
    """Bytes of the log of outcomes."""


@dataclass(frozen=True, eq=False)
class Attempt:
    """One row whose image is wanted."""

    serial: int
    """Its number in the order, from the position at which the stream was opened."""
    row: Row

    def __str__(self) -> str:
        return self.row.key


class Attempts:
    """The rows of a source in the order of attempts, from a position on, epoch after epoch.

    Iterate over it once. Each attempt is open until it is given to `end`.
    """

    def __init__(
        self,
        source: Source,
        filters: FilterConfig,
        *,
        seed: int = 0,
        start: Position | None = None,
        excluded: Iterable[str] = (),
        sleep: Callable[[float], Any] = time.sleep,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`excluded`: keys of rows to pass over; `say` is told of units that cannot be read.

        Raises for a source without units.
        """
        self.source = source
        self.filters = filters
        self.seed = seed
        self.units = source.units()
        if not self.units:
            raise UsageError("dataset_path", source.name, problem="a dataset without rows")
        self.start = start or Position()
        self.excluded = set(excluded)
        self.duplicates = open_duplicates(source, filters)
        self.filtered: Counter[str] = Counter()
        """Rows that were filtered in newly opened units, by status; for the caller to take."""
        self.opened = self.start.opened
        self.epoch_attempts: int | None = None
        """Attempts in the last epoch that was gone through from its beginning."""
        self.read = 0
        """Rows read so far, by this process."""
        self.dropped = 0
        """Of them, those that the filters dropped."""
        self.unreadable: dict[str, str] = {}
        """Units that could not be read to their end, and why."""
        self._in_a_row = 0
        self._sleep, self._say = sleep, say
        first = self._number(self.start.epoch, self.start.unit)
        self._given = dict(enumerate(self.start.given, first))
        """Unit, over all epochs, to the rows that it gave."""
        self._last = first + len(self.start.given) - 1
        """The last one of them, which may give more than it did."""
        self._serial = 0
        self._next = (self.start.epoch, self.start.unit, self.start.row)
        self._open: dict[int, tuple[int, int, int]] = {}

    def __iter__(self) -> Iterator[Attempt]:
        """Ends only with an error: where the filters leave nothing of an epoch (ValueError), or
        several units in a row cannot be read."""
        waiting, first = set(self.start.waiting), True
        for epoch in itertools.count(self.start.epoch):
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.units))
            made, start = 0, self.start if first else Position(epoch)
            for place in range(start.unit, len(order)):
                unit, number = self.units[order[place]], self._number(epoch, place)
                skipped, before = start.row if place == start.unit else 0, self._serial
                for row, item in self._unit(epoch, place, unit, skipped):
                    serial, self._serial = self._serial, self._serial + 1
                    self._next = (epoch, place, row + 1)
                    self._given[number] = max(row + 1, self._given.get(number, 0))
                    ended = serial < self.start.tried and serial not in waiting
                    if ended or item.key in self.excluded:
                        continue
                    self._open[serial] = (epoch, place, row)
                    made += 1
                    yield Attempt(serial, item)
                # what it gave once and gives no more is lost, and keeps its numbers
                given = self._given.setdefault(number, 0)
                self._serial = max(self._serial, before + given - skipped)
                self._next = (epoch, place, max(given, skipped))
            if not first or start == Position():
                self.epoch_attempts = made
                if not made:
                    self._refuse()
            first = False

    def _refuse(self) -> None:
        """An epoch without one attempt would be followed by others."""
        ends = ", ".join(f"{status} {count}" for status, count in self.filtered.most_common())
        lost = [f"; unit {unit} cannot be read: {why}" for unit, why in self.unreadable.items()]
        raise UsageError(
            f"{self.source.name}: not one row is left to train on: filtered {ends or 'none'}, "
            f"held out {len(self.excluded)}{''.join(lost[:3])}; loosen the filters (--filters.*), "
            "hold out fewer rows (--evaluation.images), or give a larger dataset"
        )

    def end(self, attempts: Iterable[Attempt]) -> None:
        """These attempts have ended: they are not made again."""
        for attempt in attempts:
            self._open.pop(attempt.serial, None)

    def position(self, *, counts: dict[str, int], logged: int) -> Position:
        """Where another stream goes on from: all open attempts are made again."""
        # of those that were waiting at the start, some may not have been made again yet
        ahead = [serial for serial in self.start.waiting if serial >= self._serial]
        low = next(iter(self._open), self._serial)  # attempts are opened in order
        place = self._open.get(low, self._next)
        units = range(self._number(*place[:2]), max(self._given, default=-1) + 1)
        self._given = {unit: self._given[unit] for unit in units}
        return Position(
            *place,
            given=tuple(self._given.values()),
            tried=max(self._serial, self.start.tried) - low,
            waiting=tuple(serial - low for serial in (*self._open, *ahead)),
            opened=self.opened,
            counts=counts,
            logged=logged,
        )

    def _number(self, epoch: int, place: int) -> int:
        """Of a unit, over all epochs."""
        return epoch * len(self.units) + place

    def _unit(self, epoch: int, place: int, unit: Unit, skipped: int) -> Iterator[tuple[int, Row]]:
        """The unit's rows that pass the filters, shuffled and numbered, from `skipped` on."""
        row_filter = Filter(self.filters, duplicates=self.duplicates)
        missing = Counter[str]()

        def kept() -> Iterator[Row]:
            for row in self._read(unit):
                reason = reason_to_drop(row, row_filter)
                self.read += 1
                if reason is None:
                    yield row
                else:
                    self.dropped += 1
                    missing[reason] += 1
            if this >= self.opened:
                self.opened = this + 1
                self.filtered.update(missing)

        this = self._number(epoch, place)
        rng = np.random.default_rng([self.seed, epoch, place, len(self.units)])
        rows, number = kept(), 0
        most = self._given.get(this) if this < self._last else None
        while most is None or number < most:
            try:
                block = list(itertools.islice(rows, BLOCK if self.source.bears_images else None))
            except (OSError, ValueError) as error:
                self._leave(unit, error)
                return
            if not block:
                break
            for i in rng.permutation(len(block)).tolist():
                if skipped <= number and (most is None or number < most):
                    yield number, block[i]
                number += 1
        self._in_a_row = 0

    def _leave(self, unit: Unit, error: OSError | ValueError) -> None:
        """Counts a unit that cannot be read, or raises where it is one of too many."""
        self._in_a_row += 1
        if self._in_a_row >= UNREADABLE:
            kind = OSError if isinstance(error, OSError) else UsageError
            raise kind(
                f"{self.source.name}: {UNREADABLE} units in a row cannot be read; the last, "
                f"{unit.id}: {error}"
            ) from error
        if unit.id not in self.unreadable:
            self._say(f"warning: unit {unit.id} cannot be read to its end and is left: {error}")
        self.unreadable[unit.id] = str(error)

    def _read(self, unit: Unit) -> Iterator[Row]:
        """The rows of a unit; one that cannot be read is opened again, after a while."""
        taken = 0
        for attempt in range(TRIES):
            try:
                for row in itertools.islice(self.source.read(unit), taken, None):
                    taken += 1
                    yield row
                return
            except OSError:
                if attempt + 1 == TRIES:
                    raise
                self._sleep(PAUSE * 2**attempt)
