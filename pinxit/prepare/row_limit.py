"""How many units a number of rows is, whatever a source says of its units beforehand."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

from pinxit.data.row import Source, Unit


def units_for(
    source: Source, rows: int, *, known: Callable[[Unit], int | None] = lambda unit: None
) -> int:
    """The least number of units, from the first on, that hold so many rows; all where they hold
    fewer.

    Where a unit does not say how many rows it has, `known` is asked, and then the source.
    """
    wanted, counted = 1, []
    while True:
        units = source.units(limit=wanted)
        for unit in units[len(counted) :]:
            counted.append(_rows(source, unit, known))
            if sum(counted) >= rows:
                return len(counted)
        if len(units) < wanted:
            return max(1, len(units))
        total = max(1, sum(counted))
        wanted += max(1, math.ceil((rows - total) / total * wanted))


def _rows(source: Source, unit: Unit, known: Callable[[Unit], int | None]) -> int:
    """Rows of a unit: of a damaged one none, since nothing can be read of it."""
    if unit.rows is not None:
        return unit.rows
    if (told := known(unit)) is not None:
        return told
    with contextlib.suppress(ValueError):
        return source.count(unit)
    return 0
