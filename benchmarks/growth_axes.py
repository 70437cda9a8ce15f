"""The shape of an axis of `benchmarks/growth.py`: what grows, how its inputs are made, and what is
measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Extras = dict[str, float]
Act = Callable[[], Extras | None]


@dataclass(frozen=True)
class Axis:
    """Something that grows."""

    name: str
    """The axis as the table names it."""
    group: str
    """One of training, data, runs, and processes, which also has processes of its own."""
    values: tuple[int, ...]
    """The sizes, each two or four times the one before."""
    prepare: Callable[[Path, int], Act]
    """Makes the inputs of a size in a folder if `make` has not, and returns what is measured."""
    make: Callable[[Path, int], None] | None = None
    """Makes files in a process of its own, so that their memory is not measured."""
    environment: Callable[[int], dict[str, str]] = lambda size: {}
    """Environment variables of a point."""
    because: str = ""
    """The reason if time or memory grow faster than the size, and the growth is accepted."""
    repeats: int = 2
    """Number of times that a point is measured; the least time counts."""


def doubling(first: int, last: int, factor: int = 2) -> tuple[int, ...]:
    """Returns first, first * factor … up to last."""
    count = round(math.log(last / first, factor))
    return tuple(first * factor**i for i in range(count + 1))


def exponent(
    sizes: Sequence[int], figures: Sequence[float], *, noise: float, within: float
) -> float | None:
    """Returns the power with which a figure grows over the last four sizes, apart from a constant.

    It is the smallest p for which ``a + b n^p`` with a and b of at least 0 is `within` that share
    of each figure, or the nearest one if none is. None means that the figure grows by less than
    `noise` or a tenth, so that no power can be told.
    """
    import numpy as np

    n, y = np.array(sizes[-4:], float), np.array(figures[-4:], float)
    if y[-1] - y[0] < max(noise, 0.1 * y[0]):
        return None
    best = (math.inf, 0.0)
    for p in np.arange(0.05, 3.0, 0.01):
        grown = (n / n[-1]) ** p / y
        for constant in np.linspace(0, y.min(), 41):
            rest = 1 - constant / y
            error = np.abs(rest - (rest @ grown) / (grown @ grown) * grown).max()
            best = min(best, (float(error), float(p)))
        if best[0] <= within:
            break
    return best[1]


def record(**values: Any) -> Extras:
    """Returns further figures of a point as plain numbers."""
    return {name: float(value) for name, value in values.items()}
