"""Computes the number of units for a number of rows, even if a source cannot count its rows."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

from pinxit.data.row import Source, Unit


def units_for(
    source: Source, rows: int, *, known: Callable[[Unit], int | None] = lambda unit: None
) -> int:
    """Returns the smallest number of units, from the first on, that hold at least `rows` rows.

    If the source has fewer rows, returns the number of all units. For a unit that does not state
    its number of rows, `known` is asked, and if it returns None, the source.
    """
    limit, counted = 1, []
    while True:
        units = source.units(limit=limit)
        for unit in units[len(counted) :]:
            counted.append(_rows(source, unit, known))
            if sum(counted) >= rows:
                return len(counted)
        if len(units) < limit:
            return max(1, len(units))
        total = max(1, sum(counted))
        limit += max(1, math.ceil((rows - total) / total * limit))


def _rows(source: Source, unit: Unit, known: Callable[[Unit], int | None]) -> int:
    """Returns the number of rows of a unit, or 0 if the unit is damaged and cannot be read."""
    if unit.rows is not None:
        return unit.rows
    if (count := known(unit)) is not None:
        return count
    with contextlib.suppress(ValueError):
        return source.count(unit)
    return 0
