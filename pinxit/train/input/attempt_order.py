"""The order in which a stream tries its rows, and a position in it that can be kept.

The seed and the epoch decide the order of the source's units, and the rows that pass the filters
are shuffled within their unit (in blocks, if the source holds the images). This order is
deterministic, but attempts finish out of order. So a position stores the first unfinished attempt
and the indices of later unfinished ones. Resuming retries exactly those, then continues, so no row
is tried twice.

If a unit cannot be read to its end, the rest of it is skipped. A later run may be able to read more
of it, or less. So a position also stores how many rows each unit has yielded. A resumed run takes
the same number from each, so that all other rows keep their serial numbers.
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
from pinxit.data.network_fault import is_network_fault
from pinxit.data.row import Row, Source, Unit
from pinxit.data.row_images import reason_to_drop
from pinxit.train.input.outage import Outage

BLOCK = 256
"""Number of rows that are shuffled together if the source contains the images."""
TRIES = 4
"""Number of attempts to open a unit that cannot be read."""
PAUSE = 2.0
"""Seconds before the second attempt. The pause doubles each time."""
UNREADABLE = 5
"""Number of consecutive unreadable units after which the stream ends with an error."""


@dataclass(frozen=True)
class Position:
    """A position in the order of attempts, with the counts up to it."""

    epoch: int = 0
    unit: int = 0
    """Index of the unit in the epoch's order of units."""
    row: int = 0
    """Index of the first unfinished attempt in the unit's order of rows."""
    tried: int = 0
    """Number of attempts made from that one on."""
    waiting: tuple[int, ...] = ()
    """Offsets of the unfinished attempts among them, counted from that one."""
    yielded: tuple[int, ...] = ()
    """Number of rows that each unit has yielded, from this unit to that of the last attempt."""
    opened: int = 0
    """Number of units, over all epochs, whose filtered rows are in `counts`."""
    counts: dict[str, int] = field(default_factory=dict)
    """Number of rows by status."""
    logged: int = 0
    """Size of the log of outcomes, in bytes."""


@dataclass(frozen=True, eq=False)
class Attempt:
    """A row whose image the stream tries to get."""

    serial: int
    """Index in the order of attempts, counted from the position at which the stream was opened."""
    row: Row

    def __str__(self) -> str:
        return self.row.key


class Attempts:
    """The rows of a source in the order of attempts, from a position on, epoch after epoch.

    Iterate over it only once. Each attempt stays open until it is passed to `end`.
    """

    def __init__(
        self,
        source: Source,
        filters: FilterConfig,
        *,
        seed: int = 0,
        start: Position | None = None,
        excluded: Iterable[str] = (),
        sleep: Callable[[float], Any] | None = None,
        say: Callable[[str], None] = lambda line: None,
        outage: Outage | None = None,
    ) -> None:
        """Opens the source at `start`; skips rows whose keys are in `excluded`. `say` receives a
        warning for each unit that cannot be read. `outage` waits while no unit can be reached.

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
        """Rows that were filtered in newly opened units, by status. The caller clears them."""
        self.examples: dict[str, str] = {}
        """The name of the first row that was filtered, by status."""
        self.opened = self.start.opened
        self.epoch_attempts: int | None = None
        """Number of attempts in the last epoch that was read from its beginning."""
        self.read = 0
        """Number of rows that this process has read."""
        self.dropped = 0
        """Number of these rows that the filters dropped."""
        self.unreadable: dict[str, str] = {}
        """The error of each unit that could not be read completely."""
        self._in_a_row = 0
        self._sleep = sleep or (time.sleep if outage is None else outage.rest)
        self._say, self._outage = say, outage
        first = self._number(self.start.epoch, self.start.unit)
        self._yielded = dict(enumerate(self.start.yielded, first))
        """Number of rows that each unit has yielded, by unit number over all epochs."""
        self._last = first + len(self.start.yielded) - 1
        """Number of the last such unit, which may yield more rows."""
        self._serial = 0
        self._next = (self.start.epoch, self.start.unit, self.start.row)
        self._open: dict[int, tuple[int, int, int]] = {}

    def __iter__(self) -> Iterator[Attempt]:
        """Yields attempts without end. Raises if the filters leave no row of an epoch (ValueError),
        or if several consecutive units cannot be read."""
        waiting, first = set(self.start.waiting), True
        for epoch in itertools.count(self.start.epoch):
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.units))
            attempts, start = 0, self.start if first else Position(epoch)
            for place in range(start.unit, len(order)):
                unit, number = self.units[order[place]], self._number(epoch, place)
                skipped, before = start.row if place == start.unit else 0, self._serial
                for row, item in self._unit(epoch, place, unit, skipped):
                    serial, self._serial = self._serial, self._serial + 1
                    self._next = (epoch, place, row + 1)
                    self._yielded[number] = max(row + 1, self._yielded.get(number, 0))
                    ended = serial < self.start.tried and serial not in waiting
                    if ended or item.key in self.excluded:
                        continue
                    self._open[serial] = (epoch, place, row)
                    attempts += 1
                    yield Attempt(serial, item)
                # rows this unit no longer yields are skipped, but still use up their serial numbers
                yielded = self._yielded.setdefault(number, 0)
                self._serial = max(self._serial, before + yielded - skipped)
                self._next = (epoch, place, max(yielded, skipped))
            if not first or start == Position():
                self.epoch_attempts = attempts
                if not attempts:
                    self._refuse()
            first = False

    def _refuse(self) -> None:
        """Raises an error because an epoch has no attempts, so no later epoch would have any."""
        statuses = ", ".join(
            f"{status} {count}, such as {self.examples[status]}"
            if status in self.examples
            else f"{status} {count}"
            for status, count in self.filtered.most_common(5)
        )
        lost = [f", unit {unit} cannot be read: {why}" for unit, why in self.unreadable.items()]
        raise UsageError(
            f"{self.source.name}: no row is left to train on (filtered: {statuses or 'none'}, "
            f"held out: {len(self.excluded)}{''.join(lost[:3])}). Loosen the filters "
            "(--filters.*), hold out fewer rows (--evaluation.images), or use a larger dataset"
        )

    def end(self, attempts: Iterable[Attempt]) -> None:
        """Records that these attempts have ended, so that they are not made again."""
        for attempt in attempts:
            self._open.pop(attempt.serial, None)

    def position(self, *, counts: dict[str, int], logged: int) -> Position:
        """Returns the position from which another stream continues. It repeats all open
        attempts."""
        # some attempts that were unfinished at the start may not have been repeated yet
        ahead = [serial for serial in self.start.waiting if serial >= self._serial]
        low = next(iter(self._open), self._serial)  # attempts are opened in order
        place = self._open.get(low, self._next)
        units = range(self._number(*place[:2]), max(self._yielded, default=-1) + 1)
        self._yielded = {unit: self._yielded[unit] for unit in units}
        return Position(
            *place,
            yielded=tuple(self._yielded.values()),
            tried=max(self._serial, self.start.tried) - low,
            waiting=tuple(serial - low for serial in (*self._open, *ahead)),
            opened=self.opened,
            counts=counts,
            logged=logged,
        )

    def _number(self, epoch: int, place: int) -> int:
        """Returns the number of a unit, counted over all epochs."""
        return epoch * len(self.units) + place

    def _unit(self, epoch: int, place: int, unit: Unit, skipped: int) -> Iterator[tuple[int, Row]]:
        """Yields the rows that pass the filters, shuffled and numbered, without the first
        `skipped`."""
        row_filter = Filter(self.filters, duplicates=self.duplicates)
        missing = Counter[str]()

        def passing() -> Iterator[Row]:
            for row in self._read(unit):
                reason = reason_to_drop(row, row_filter)
                self.read += 1
                if reason is None:
                    yield row
                else:
                    self.dropped += 1
                    missing[reason] += 1
                    self.examples.setdefault(reason, row.shown_name)
            if this >= self.opened:
                self.opened = this + 1
                self.filtered.update(missing)

        this = self._number(epoch, place)
        rng = np.random.default_rng([self.seed, epoch, place, len(self.units)])
        rows, number = passing(), 0
        most = self._yielded.get(this) if this < self._last else None
        while most is None or number < most:
            try:
                block = list(itertools.islice(rows, BLOCK if self.source.has_images else None))
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
        """Counts a unit that cannot be read. Raises if too many consecutive units cannot be
        read."""
        self._in_a_row += 1
        if self._in_a_row >= UNREADABLE:
            kind = OSError if isinstance(error, OSError) else UsageError
            raise kind(
                f"{self.source.name}: {UNREADABLE} consecutive units cannot be read. The last is "
                f"{unit.id}: {error}"
            ) from error
        if unit.id not in self.unreadable:
            self._say(
                f"warning: skipping the rest of unit {unit.id}, which cannot be read: {error}"
            )
        self.unreadable[unit.id] = str(error)

    def _read(self, unit: Unit) -> Iterator[Row]:
        """Yields the rows of a unit. If it cannot be read, opens it again after a pause, or waits
        until the source can be reached again."""
        passed = attempt = 0
        while True:
            try:
                for row in itertools.islice(self.source.read(unit), passed, None):
                    passed += 1
                    yield row
                return
            except OSError as error:
                attempt += 1
                if attempt < TRIES:
                    self._sleep(PAUSE * 2 ** (attempt - 1))
                    continue
                if self._outage is None or not is_network_fault(error):
                    raise
                if not self._await_source(self._outage, unit, passed, error):
                    raise
                attempt = 0

    def _await_source(self, outage: Outage, unit: Unit, passed: int, error: OSError) -> bool:
        """Waits until any unit can be read. Returns whether it is this one, from its row number
        `passed` on."""
        units = [unit, *[other for other in self.units if other.path != unit.path][-1:]]
        readable: list[Unit] = []

        def is_over() -> bool:
            for one in units:
                try:
                    next(
                        itertools.islice(self.source.read(one), passed * (one is unit), None), None
                    )
                except (OSError, ValueError):
                    continue
                readable.append(one)
                return True
            return False

        if not outage.tested(is_over):
            outage.wait(
                f"{self.source.name}: unit {unit.id} cannot be read: {error}",
                f"the source of {self.source.name}",
                is_over,
            )
        return readable[0] is unit
