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
    """One of training, data and runs."""
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


def exponent(sizes: Sequence[int], figures: Sequence[float], *, noise: float) -> float | None:
    """Returns the power with which a figure grows over the last three sizes, apart from a constant.

    For ``a + b n^p`` at n, r n and r² n, p is the logarithm of the ratio of the two differences, to
    the base r. None means that the figure grows by less than `noise` or a tenth, so that no power
    can be told. A difference that shrinks has at least the power of 0.
    """
    (_, first), (n, middle), (last_n, last) = list(zip(sizes, figures, strict=True))[-3:]
    if last - first < max(noise, 0.1 * first):
        return None
    before, after = middle - first, last - middle
    if after <= 0:
        return 0.0
    power = math.log(after / max(before, noise / 4)) / math.log(last_n / n)
    whole = math.log(last / first) / math.log(last_n / sizes[-3])
    return max(0.0, power if before > noise / 2 else whole)


def record(**values: Any) -> Extras:
    """Returns further figures of a point as plain numbers."""
    return {name: float(value) for name, value in values.items()}
