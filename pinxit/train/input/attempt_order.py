"""The order in which a stream tries its rows, and the rows of it that have ended.

The seed and the epoch decide the order of the source's units, and the rows that pass the filters
are shuffled within their unit (in blocks, if the source holds the images). This order is
deterministic, but attempts finish out of order. So a position stores, for each unit that was begun,
the number of rows tried and the numbers of those that have not ended. Resuming retries exactly
those, then continues, so no row is tried twice. `pinxit.train.input.portions` deals the units to
the processes of a run.

If a unit cannot be read to its end, the rest of it is skipped in this epoch.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pinxit.config import UsageError
from pinxit.data.filters.duplicate_list import open_duplicates
from pinxit.data.filters.row_filter import Filter, FilterConfig
from pinxit.data.network_fault import is_network_fault
from pinxit.data.row import Row, Source, Unit
from pinxit.data.row_images import reason_to_drop
from pinxit.train.input.outage import Outage
from pinxit.train.input.portions import Dealing, Portion, Position, StreamProgress

BLOCK = 256
"""Number of rows that are shuffled together if the source contains the images."""
TRIES = 4
"""Number of attempts to open a unit that cannot be read."""
PAUSE = 2.0
"""Seconds before the second attempt. The pause doubles each time."""
UNREADABLE = 5
"""Number of consecutive unreadable units after which the stream ends with an error."""
EMPTY_EPOCHS = 4
"""Number of times that a process among several goes through as many rows as the source has, without
any that passes the filters, before the stream ends with an error."""


@dataclass(eq=False)
class OpenPortion:
    """A portion that this process has begun."""

    start: Portion
    """The portion as it was at the start."""
    next: int = 0
    """Number of the first row of the unit that has not been looked at since then."""
    open: set[int] = field(default_factory=set)
    """Numbers of the rows that are tried now."""
    whole: bool = False
    """Whether no further row can be read."""
    counted: bool = False
    """Whether its filtered rows are counted."""

    def __post_init__(self) -> None:
        self._waiting = frozenset(self.start.waiting)
        self.counted = self.start.counted

    def remains(self, number: int) -> bool:
        """Returns whether a row of the unit is left to this process."""
        start = self.start
        if number < start.tried:
            return number in self._waiting
        return not start.whole and number % start.shares == start.share

    @property
    def last(self) -> int | None:
        """The number of the last row that is left, or None if it is not known."""
        return max(self.start.waiting, default=-1) if self.start.whole else None

    def now(self) -> Portion:
        """Returns the portion with what has ended until now."""
        rows = list(self.open)
        if not self.whole:
            rows += [row for row in self.start.waiting if row >= self.next]
        return replace(
            self.start,
            tried=max(self.start.tried, self.next),
            waiting=tuple(sorted(rows)),
            whole=self.whole or self.start.whole,
            counted=self.counted,
        )


@dataclass(frozen=True, eq=False)
class Attempt:
    """A row whose image the stream tries to get."""

    row: Row
    number: int
    """Number of the row in its unit."""
    portion: OpenPortion

    def __str__(self) -> str:
        return self.row.key


class Attempts:
    """The rows that a process tries, in order, from a position on, epoch after epoch.

    Iterate over it only once. Each attempt stays open until it is passed to `end`. One thread may
    iterate while another one holds `lock` and calls the other methods.
    """

    def __init__(
        self,
        source: Source,
        filters: FilterConfig,
        *,
        seed: int = 0,
        start: Position | None = None,
        excluded: Iterable[str] = (),
        process: int = 0,
        processes: int = 1,
        sleep: Callable[[float], Any] | None = None,
        say: Callable[[str], None] = lambda line: None,
        outage: Outage | None = None,
    ) -> None:
        """Opens the source at `start`, for process number `process` of `processes`; skips rows
        whose keys are in `excluded`. `say` receives a warning for each unit that cannot be read.
        `outage` waits while no unit can be reached.

        Raises for a source without units.
        """
        self.source = source
        self.filters = filters
        self.seed = seed
        self.units = source.units()
        if not self.units:
            raise UsageError("dataset_path", source.name, problem="a dataset without rows")
        self.process = process
        self.dealing = Dealing(start or Position(), len(self.units), processes=processes)
        self.lock = threading.RLock()
        """Protects the attempts and `filtered`."""
        self.excluded = set(excluded)
        self.duplicates = open_duplicates(source, filters)
        self.filtered: Counter[str] = Counter()
        """Rows that were filtered in newly opened units, by status. The caller clears them."""
        self.examples: dict[str, str] = {}
        """The name of the first row that was filtered, by status."""
        self.epoch = 0
        """The epoch of the last attempt."""
        self.epoch_attempts: int | None = None
        """Number of attempts of this process in the last epoch that it went through completely."""
        self.read = 0
        """Number of rows that this process has read."""
        self.dropped = 0
        """Number of these rows that the filters dropped."""
        self.unreadable: dict[str, str] = {}
        """The error of each unit that could not be read completely."""
        self._in_a_row = 0
        self._sleep = sleep or (time.sleep if outage is None else outage.rest)
        self._say, self._outage = say, outage
        self._last_order: tuple[int, Sequence[int]] = (-1, ())
        self._begun_count = 0
        self._portions: list[OpenPortion] = []
        """The portions that have been begun and may not be finished."""

    def __iter__(self) -> Iterator[Attempt]:
        """Yields attempts without end. Raises if the filters leave no row of an epoch (ValueError),
        or if several consecutive units cannot be read."""
        complete, empty = self.dealing.first_complete_epoch, 0
        portions = self.dealing.of(self.process)
        epochs = itertools.groupby(portions, lambda portion: portion.number // len(self.units))
        for self.epoch, portions_of_epoch in epochs:
            attempts = 0
            for start in portions_of_epoch:
                portion = OpenPortion(start)
                with self.lock:
                    self._begun_count += 1
                    self._portions.append(portion)
                for number, row in self._unit(portion):
                    if self._opened(portion, number, row):
                        attempts += 1
                        yield Attempt(row, number, portion)
                with self.lock:
                    portion.whole = True
            if self.epoch >= complete:
                self.epoch_attempts = attempts
                empty = 0 if attempts else empty + 1
                # a process among several has only some of the rows of each epoch
                if empty > (EMPTY_EPOCHS * self.dealing.processes if self._is_one_of_many else 0):
                    self._refuse()

    @property
    def _is_one_of_many(self) -> bool:
        return self.dealing.processes > 1

    def _opened(self, portion: OpenPortion, number: int, row: Row) -> bool:
        """Notes that a row has been looked at. Returns whether it is to be tried."""
        with self.lock:
            portion.next = number + 1
            if not portion.remains(number) or row.key in self.excluded:
                return False
            portion.open.add(number)
            return True

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
        with self.lock:
            for attempt in attempts:
                attempt.portion.open.discard(attempt.number)

    def progress(self, *, counts: dict[str, int], logged: int) -> StreamProgress:
        """Returns the work of this process since the start. `counts` and `logged` are passed on."""
        with self.lock:
            pairs = [(portion, portion.now()) for portion in self._portions]
            self._portions = [portion for portion, now in pairs if not now.finished]
            unfinished = tuple(now for _, now in pairs if not now.finished)
            return StreamProgress(self._begun_count, unfinished, counts, logged)

    def position(self, *, counts: dict[str, int], logged: int) -> Position:
        """Returns the position after the work of this process, which must be the only one. Another
        stream that starts there repeats all open attempts."""
        return self.dealing.merged([self.progress(counts=counts, logged=logged)])

    def _unit(self, portion: OpenPortion) -> Iterator[tuple[int, Row]]:
        """Yields the rows of a portion's unit that pass the filters, shuffled, with their
        numbers."""
        epoch, place = divmod(portion.start.number, len(self.units))
        order = self._order(epoch)
        unit = self.units[order[place]]
        rng = np.random.default_rng([self.seed, epoch, place, len(self.units)])
        rows, number, last = self._passing(portion, unit), 0, portion.last
        while last is None or number <= last:
            try:
                block = list(itertools.islice(rows, BLOCK if self.source.has_images else None))
            except (OSError, ValueError) as error:
                self._leave(unit, error)
                return
            if not block:
                break
            for i in rng.permutation(len(block)).tolist():
                yield number, block[i]
                number += 1
        self._in_a_row = 0

    def _order(self, epoch: int) -> Sequence[int]:
        """Returns the order of the units in an epoch."""
        if self._last_order[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self._last_order = epoch, rng.permutation(len(self.units)).tolist()
        return self._last_order[1]

    def _passing(self, portion: OpenPortion, unit: Unit) -> Iterator[Row]:
        """Yields the rows of a unit that pass the filters. Counts the others when it has been read
        to its end, once in an epoch over all processes."""
        row_filter = Filter(self.filters, duplicates=self.duplicates)
        missing = Counter[str]()
        for row in self._read(unit):
            reason = reason_to_drop(row, row_filter)
            self.read += 1
            if reason is None:
                yield row
            else:
                self.dropped += 1
                missing[reason] += 1
                self.examples.setdefault(reason, row.shown_name)
        with self.lock:
            if portion.start.share == 0 and not portion.counted:
                portion.counted = True
                self.filtered.update(missing)

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
