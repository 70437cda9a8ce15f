"""Deals the rows of a stream to the processes of a run, and records which of them have ended.

The units of all epochs form one list, in the order of the seed. A portion is a unit of that list,
or some of its rows if there are fewer units than processes. Process p of n takes the portions p,
p + n, p + 2n … and goes through them at its own speed: when it has finished those of an epoch, it
begins the next epoch, whatever the other processes do.

A `Position` lists the portions that were begun and not finished, those that were passed over, and
the first unit of which no row was taken. It does not say which process took what. So any number of
processes can continue from it: they deal the listed portions first, and then the remaining units.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Portion:
    """Some or all rows of a unit in one epoch. Rows are numbered in the shuffled order of the
    unit."""

    number: int
    """Index of the unit in the list of all epochs: its place in the epoch's order, plus the number
    of units for each earlier epoch."""
    share: int = 0
    shares: int = 1
    """Number of parts of the unit. The portion has the rows whose numbers leave the remainder
    `share` when divided by it."""
    tried: int = 0
    """Number below which every row of the portion has been tried."""
    waiting: tuple[int, ...] = ()
    """Numbers of the rows among them that have not ended, in increasing order."""
    whole: bool = False
    """Whether the unit was read to its end, so that no row from `tried` on is tried."""
    counted: bool = False
    """Whether the filtered rows of the unit have been counted."""

    @property
    def finished(self) -> bool:
        """Returns whether all rows have ended."""
        return self.whole and not self.waiting

    def split(self, shares: int) -> list[Portion]:
        """Cuts the portion of a whole unit into `shares` parts, without those that are finished."""
        if self.shares > 1 or shares == 1:
            return [self]
        parts = [
            replace(
                self,
                share=share,
                shares=shares,
                waiting=tuple(row for row in self.waiting if row % shares == share),
            )
            for share in range(shares)
        ]
        return [part for part in parts if not part.finished]


@dataclass(frozen=True)
class Position:
    """The rows of a stream that have ended, on all processes together, with the counts up to it."""

    portions: tuple[Portion, ...] = ()
    """The portions before `next` that are not finished, in order."""
    next: int = 0
    """Number of the first unit, over all epochs, of which no other portion exists yet."""
    counts: dict[str, int] = field(default_factory=dict)
    """Number of rows by status."""
    logged: dict[str, int] = field(default_factory=dict)
    """Size of each process's log of outcomes in bytes, by the number of the process."""

    @property
    def waiting(self) -> int:
        """Returns the number of rows that were tried and have not ended."""
        return sum(len(portion.waiting) for portion in self.portions)


@dataclass(frozen=True)
class StreamProgress:
    """The work of one process since the position at which it started."""

    begun_count: int = 0
    """Number of its portions that it has begun."""
    portions: tuple[Portion, ...] = ()
    """The portions among them that are not finished."""
    counts: dict[str, int] = field(default_factory=dict)
    """Number of rows that have ended, or were filtered, by status."""
    logged: int = 0
    """Size of its log of outcomes, in bytes."""


class Dealing:
    """The portions of a source's units from a position on, dealt to a number of processes."""

    def __init__(self, start: Position, units: int, *, processes: int = 1) -> None:
        """Takes the number of units in an epoch."""
        self.start = start
        self.units = units
        self.processes = processes
        self.shares = -(-processes // units)
        """Number of portions that a unit is cut into."""
        parts = itertools.chain.from_iterable(one.split(self.shares) for one in start.portions)
        self._listed = sorted(parts, key=lambda part: (part.number, part.share))

    def __getitem__(self, index: int) -> Portion:
        """Returns a portion of the list that is dealt, which has no end."""
        if index < len(self._listed):
            return self._listed[index]
        unit, share = divmod(index - len(self._listed), self.shares)
        return Portion(self.start.next + unit, share, self.shares)

    def of(self, process: int) -> Iterator[Portion]:
        """Yields the portions of a process, without end."""
        return (self[index] for index in itertools.count(process, self.processes))

    @property
    def first_complete_epoch(self) -> int:
        """Returns the first epoch of which no row was tried before the start."""
        return -(-self.start.next // self.units)

    def merged(self, progress: Sequence[StreamProgress]) -> Position:
        """Returns the position after the work of all processes."""
        begun_counts = [one.begun_count for one in progress]
        ends = [
            (count - 1) * self.processes + p + 1 for p, count in enumerate(begun_counts) if count
        ]
        new = max([0, *(end - len(self._listed) for end in ends)])
        units = -(-new // self.shares)
        stop = len(self._listed) + units * self.shares
        first = min(count * self.processes + p for p, count in enumerate(begun_counts))
        portions = [
            self[index]
            for index in range(first, stop)
            if index // self.processes >= begun_counts[index % self.processes]
        ]
        portions += itertools.chain.from_iterable(one.portions for one in progress)
        counts = Counter(self.start.counts)
        for one in progress:
            counts.update(one.counts)
        # the logs of processes that the run no longer has keep their sizes
        logged = self.start.logged | {str(p): one.logged for p, one in enumerate(progress)}
        return Position(
            tuple(sorted(portions, key=lambda part: (part.number, part.share, part.shares))),
            self.start.next + units,
            dict(counts),
            logged,
        )


def from_serial_numbers(packed: Mapping[str, object], units: int) -> Position:
    """Returns the position that an older version stored, which numbered the attempts of all units
    one after the other, as `Portion`s. `units` is the number of units in an epoch."""
    epoch, place, row, tried, opened = (
        int(packed[name])  # pyrefly: ignore
        for name in ("epoch", "unit", "row", "tried", "opened")
    )
    waiting = set[int](packed["waiting"])  # pyrefly: ignore
    yielded = list[int](packed["yielded"]) or [row]  # pyrefly: ignore
    first, serial, portions = epoch * units + place, 0, list[Portion]()
    for number, rows in enumerate(yielded, first):
        skipped = min(row, rows) if number == first else 0
        numbers = range(skipped, rows)
        open_rows = [
            one
            for one, index in zip(numbers, itertools.count(serial))
            if index in waiting or index >= tried
        ]
        serial += len(numbers)
        last = number == first + len(yielded) - 1
        portion = Portion(
            number,
            tried=max(rows, row) if number == first else rows,
            waiting=tuple(open_rows),
            whole=not last,
            counted=number < opened,
        )
        if not portion.finished:
            portions.append(portion)
    return Position(tuple(portions), first + len(yielded))
