"""The order in which a stream tries its rows, and a position in it that can be kept.

The units of the source come in an order that follows from the seed and the epoch, and the rows that
pass the filters are shuffled within their unit (in blocks, where rows bear their images). That
order is the same whatever the web answers; when an attempt ends, and how, is not. So a position is
the first attempt that has not ended, and the list of those behind it that have not either: whoever
goes on from there tries these, then what nobody has tried, and none twice.
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
from pinxit.data.duplicates import open_duplicates
from pinxit.data.filters import Filter, FilterConfig
from pinxit.data.schema import Row, Source, Unit

BLOCK = 256
"""Rows that are shuffled together where each bears its image."""
TRIES = 4
"""Times a unit is opened that cannot be read."""
PAUSE = 2.0
"""Seconds before the second time; doubles each time."""


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
    ) -> None:
        """`excluded`: keys of rows to pass over. Raises for a source without units."""
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
        self._sleep = sleep
        self._serial = 0
        self._next = (self.start.epoch, self.start.unit, self.start.row)
        self._open: dict[int, tuple[int, int, int]] = {}

    def __iter__(self) -> Iterator[Attempt]:
        """Ends only with an error: ValueError where the filters leave nothing of an epoch."""
        waiting, first = set(self.start.waiting), True
        for epoch in itertools.count(self.start.epoch):
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.units))
            made, start = 0, self.start if first else Position(epoch)
            for place in range(start.unit, len(order)):
                unit = self.units[order[place]]
                skipped = start.row if place == start.unit else 0
                for row, item in self._unit(epoch, place, unit, skipped):
                    serial, self._serial = self._serial, self._serial + 1
                    self._next = (epoch, place, row + 1)
                    ended = serial < self.start.tried and serial not in waiting
                    if ended or item.key in self.excluded:
                        continue
                    self._open[serial] = (epoch, place, row)
                    made += 1
                    yield Attempt(serial, item)
            if not first or start == Position():
                self.epoch_attempts = made
                if not made:
                    self._refuse()
            first = False

    def _refuse(self) -> None:
        """An epoch without one attempt would be followed by others."""
        ends = ", ".join(f"{status} {count}" for status, count in self.filtered.most_common())
        raise ValueError(
            f"{self.source.name}: not one row is left to train on: filtered {ends or 'none'}, "
            f"held out {len(self.excluded)}; loosen the filters (--filters.*), hold out fewer "
            "rows (--evaluation.images), or give a larger dataset"
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
        return Position(
            *self._open.get(low, self._next),
            tried=max(self._serial, self.start.tried) - low,
            waiting=tuple(serial - low for serial in (*self._open, *ahead)),
            opened=self.opened,
            counts=counts,
            logged=logged,
        )

    def _unit(self, epoch: int, place: int, unit: Unit, skipped: int) -> Iterator[tuple[int, Row]]:
        """The unit's rows that pass the filters, shuffled and numbered, from `skipped` on."""
        row_filter = Filter(self.filters, duplicates=self.duplicates)
        missing = Counter[str]()

        def kept() -> Iterator[Row]:
            for row in self._read(unit):
                reason = row_filter.check(row) if row.caption.strip() else "no_caption"
                self.read += 1
                if reason is None:
                    yield row
                else:
                    self.dropped += 1
                    missing[reason] += 1
            if epoch * len(self.units) + place >= self.opened:
                self.opened = epoch * len(self.units) + place + 1
                self.filtered.update(missing)

        rng = np.random.default_rng([self.seed, epoch, place, len(self.units)])
        rows, number = kept(), 0
        while block := list(itertools.islice(rows, BLOCK if self.source.bears_images else None)):
            for i in rng.permutation(len(block)).tolist():
                if number >= skipped:
                    yield number, block[i]
                number += 1

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
