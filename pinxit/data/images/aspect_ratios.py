"""Aspect-ratio buckets: the few sizes that pictures become, so that a batch has one shape.

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
    """Sizes (width, height), the narrowest first, of at most ``size**2`` pixels.

    Sides are multiples of `step`, the longer one at most `max_ratio` times the shorter. Of a
    shorter side the longest fitting one is taken, so that no bucket costs more than the square.
    """
    positive("step", step)
    positive("max_ratio", max_ratio)
    if size < step or size % step:
        raise UsageError("size", size, problem="no bucket", valid=f"a multiple of {step}")
    tall = []
    for short in range(step, size, step):
        long = size * size // short // step * step
        if long <= short * max_ratio:
            tall.append((short, long))
    return (*tall, (size, size), *((long, short) for short, long in reversed(tall)))


def nearest_bucket(original: Size, buckets: Sequence[Size]) -> Size:
    """The bucket whose aspect ratio is nearest, by factor; the first of equals."""
    ratio = math.log(original[0] / original[1])
    return min(buckets, key=lambda bucket: abs(math.log(bucket[0] / bucket[1]) - ratio))
