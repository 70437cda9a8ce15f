"""The rows of a run for its page, thinned while they arrive.

A page shows at most `MOST_POINTS` values of a curve. Here no more than twice as many stay in
memory, so that a page costs the same time and memory after a day of training as after an hour.

The values of a curve are divided into stretches of 1, 2, 4, 8 … values, whichever length gives at
most `PIECES` stretches, and of each stretch the smallest and the largest value stay. A stretch of
twice the length has the extremes of its halves among theirs. So the curve depends on the values
alone and not on when it was thinned, and up to `MOST_POINTS` values it is exact.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, NamedTuple

from pinxit.train.report.run_rows import MOST_POINTS, RowPlaces, listed, of_evaluators

PIECES = (MOST_POINTS - 2) // 2
"""Number of stretches of a thinned curve; the first and the last value are kept besides."""
MOST_PROFILES = 128
"""Number of lists over t that stay in memory, of which a page shows a few."""


class RowPosition(NamedTuple):
    """The position of a row."""

    number: int
    """The row's number in the run."""
    step: int
    seconds: float
    images: int


class Point(NamedTuple):
    """A value of a curve."""

    number: int
    """The value's number among those of the curve."""
    place: RowPosition
    value: float | None


@dataclass
class ThinnedCurve:
    """The values of one name."""

    count: int = 0
    """Number of values that were added."""
    steps: int = 0
    """Number of different steps among them."""
    points: list[Point] = field(default_factory=list)
    """The values that are kept, in order."""
    _length: int = 0
    """Length of the stretches when the curve was thinned last."""
    _done: int = 0
    """Number of points in stretches that were complete then, which need no second look."""

    def add(self, place: RowPosition, value: float | None) -> None:
        """Adds the next value."""
        if not self.points or self.points[-1].place.step != place.step:
            self.steps += 1
        self.points.append(Point(self.count, place, value))
        self.count += 1
        if len(self.points) > 2 * MOST_POINTS:
            self.thin()

    def thin(self) -> None:
        """Drops all values but the first, the last, and the extremes of the stretches."""
        if self.count <= MOST_POINTS:
            return
        length = 2
        while -(-self.count // length) > PIECES:
            length *= 2
        start = self._done if length == self._length else 0
        extremes = {self.points[-1], *self.points[:1][start:]}
        for _, stretch in groupby(self.points[start:], key=lambda point: point.number // length):
            extremes |= _extremes(list(stretch))
        self.points[start:] = sorted(extremes, key=lambda point: point.number)
        last = (self.count - 1) // length * length
        self._done = bisect_left(self.points, last, key=lambda point: point.number)
        self._length = length


def _extremes(stretch: list[Point]) -> set[Point]:
    """Returns the points of the smallest and the largest value, or the first one if no value is
    known."""
    known = [(point.value, point.number, point) for point in stretch if point.value is not None]
    return {min(known)[2], max(known)[2]} if known else {stretch[0]}


@dataclass
class ThinnedRows(RowPlaces):
    """The rows of a run as thinned curves, with what else its page shows of them."""

    count: int = 0
    """Number of rows that were added."""
    by_name: dict[str, ThinnedCurve] = field(default_factory=dict)
    _latest: dict[str, float] = field(default_factory=dict)
    _measured: dict[str, float] = field(default_factory=dict)
    _measured_at: int | None = None
    _profiles: list[tuple[int, int, list[float | None]]] = field(default_factory=list)
    """The number, the step and the values of lists over t."""
    _profile_count: int = 0

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows of metrics.jsonl."""
        for row in rows:
            self._add(self.placed(row))

    def _add(self, row: Mapping[str, Any]) -> None:
        values = row["values"]
        place = RowPosition(self.count, row["step"], row["seconds"], row["images"])
        self.count += 1
        for name, value in values.items():
            self.by_name.setdefault(name, ThinnedCurve()).add(place, value)
            if value is not None:
                self._latest[name] = value
        if measured := of_evaluators(values):
            self._measured |= measured
            self._measured_at = row["step"]
        if profile := listed(values, "loss_by_t"):
            self._profiles.append((self._profile_count, row["step"], profile))
            self._profile_count += 1
            if len(self._profiles) > 2 * MOST_PROFILES:
                self._thin_profiles()

    def _thin_profiles(self) -> None:
        """Keeps every second, fourth, eighth … of the lists over t, and the newest."""
        every = 1
        while self._profile_count // every > MOST_PROFILES:
            every *= 2
        newest = self._profiles[-1]
        self._profiles = [one for one in self._profiles if one[0] % every == 0 or one is newest]

    def copied(self) -> ThinnedRows:
        """Returns a copy to which other rows can be added."""
        same = copy.copy(self)
        same.warnings, same._profiles = list(self.warnings), list(self._profiles)
        same._latest, same._measured = dict(self._latest), dict(self._measured)
        same.by_name = {
            name: replace(curve, points=list(curve.points)) for name, curve in self.by_name.items()
        }
        return same

    @property
    def steps_by_name(self) -> dict[str, int]:
        """The number of different steps of each value, by name in the order of the first row."""
        return {name: curve.steps for name, curve in self.by_name.items()}

    def curves(self) -> dict[str, Any]:
        """Returns the curves as `RunRows.curves` does."""
        for curve in self.by_name.values():
            curve.thin()
        used = sorted({point.place for curve in self.by_name.values() for point in curve.points})
        number = {place.number: n for n, place in enumerate(used)}
        names = ("step", "seconds", "images")
        axis = {name: [getattr(place, name) for place in used] for name in names}
        curves = {
            name: {
                "at": [number[point.place.number] for point in curve.points],
                "values": [point.value for point in curve.points],
            }
            for name, curve in self.by_name.items()
        }
        return {"axis": axis, "curves": curves, "thinned": len(used) < self.count}

    def profiles(self, most: int = 5) -> list[dict[str, Any]]:
        """Returns a list of values over t for a few rows from the first to the newest."""
        count = min(most, len(self._profiles))
        last = len(self._profiles) - 1
        chosen = [self._profiles[i * last // max(1, count - 1)] for i in range(count)]
        return [{"step": step, "values": values} for _, step, values in chosen]

    def latest(self, name: str) -> float | None:
        """Returns the newest value of a name, if there is one."""
        return self._latest.get(name)

    def measured(self) -> tuple[dict[str, float], int | None]:
        """Returns the newest values of the evaluators by name, and the step of the newest one."""
        return dict(self._measured), self._measured_at
