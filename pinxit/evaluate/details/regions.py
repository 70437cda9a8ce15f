"""Connected regions of a mask, and maxima of a line: the parts that are counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class Region(NamedTuple):
    """A connected region of a mask."""

    area: int
    """The number of its pixels."""
    x: float
    """The mean column of its pixels, from 0 at the left edge of the picture."""
    y: float
    """The mean row of its pixels, from 0 at the upper edge of the picture."""
    width: int
    """The number of columns that it extends over."""
    height: int
    """The number of rows that it extends over."""


def regions(mask: Bool[np.ndarray, "h w"]) -> list[Region]:
    """Returns the regions of a mask, connected by sides or corners of pixels, left to right."""
    height, width = mask.shape
    label = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    framed = np.zeros((height + 2, width + 2), label.dtype)
    while True:
        framed[1:-1, 1:-1] = label
        tallest = np.maximum(np.maximum(framed[:-2], framed[1:-1]), framed[2:])
        spread = np.maximum(np.maximum(tallest[:, :-2], tallest[:, 1:-1]), tallest[:, 2:])
        spread[~mask] = 0
        if np.array_equal(spread, label):
            break
        # A label is the number of a pixel, whose own label may already be larger.
        label = np.append(0, spread)[spread]
    y, x = np.nonzero(mask)
    values = label[y, x]
    results = []
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=0))
    for here in np.split(order, starts[1:]) if len(values) else []:
        xs, ys = x[here], y[here]
        extent = int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1
        results.append(Region(len(xs), xs.mean() + 0.5, ys.mean() + 0.5, *extent))
    return sorted(results, key=lambda region: region.x)


def close_to(
    picture: Float[np.ndarray, "h w 3"], colours: Sequence[Float[np.ndarray, " 3"]], limit: float
) -> Bool[np.ndarray, "h w"]:
    """Returns where a picture has one of these colours, within `limit` summed over channels."""
    distances = [np.abs(picture - colour) @ np.ones(3) for colour in colours]
    return np.minimum.reduce(distances) < limit


def maxima(line: Float[np.ndarray, " w"], *, prominence: float) -> list[int]:
    """Returns the positions of the maxima that rise by `prominence` above the valleys beside them.

    The ends of the line count as valleys of any depth.
    """
    tops, best, lowest, rising = [], 0, line[0], True
    for i, value in enumerate(line):
        if rising:
            if value > line[best]:
                best = i
            elif value <= line[best] - prominence:
                tops.append(best)
                lowest, rising = value, False
        elif value < lowest:
            lowest = value
        elif value >= lowest + prominence:
            best, rising = i, True
    return [*tops, best] if rising and line[best] > line.min() else tops
