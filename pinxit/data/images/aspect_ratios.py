"""Chooses aspect-ratio buckets: a few image sizes, so that all images of a batch have one shape.

All pairs of sizes are (width, height).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from pinxit.config import UsageError, positive

Size = tuple[int, int]


@functools.lru_cache
def make_buckets(size: int, *, max_ratio: float = 2.0, step: int = 64) -> tuple[Size, ...]:
    """Returns bucket sizes (width, height) of at most ``size**2`` pixels, the narrowest first.

    Sides are multiples of `step`, and the longer side is at most `max_ratio` times the shorter.
    Each shorter side gets the longest side that fits, so no bucket costs more than the square.
    """
    positive("step", step)
    positive("max_ratio", max_ratio)
    if size < step or size % step:
        raise UsageError("size", size, problem="not a bucket size", valid=f"a multiple of {step}")
    tall = []
    for short in range(step, size, step):
        long = size * size // short // step * step
        if long <= short * max_ratio:
            tall.append((short, long))
    return (*tall, (size, size), *((long, short) for short, long in reversed(tall)))


def nearest_bucket(original: Size, buckets: Sequence[Size]) -> Size:
    """Returns the bucket whose aspect ratio differs by the smallest factor; the first of a tie."""
    ratio = math.log(original[0] / original[1])
    return min(buckets, key=lambda bucket: abs(math.log(bucket[0] / bucket[1]) - ratio))
