"""Intervals that contain a share with a probability of 95 %."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z = 1.959963984540054
"""The quantile of the normal distribution that leaves 2.5 % above it."""


def wilson_score_interval(right: int, total: int) -> tuple[float, float]:
    """Returns Wilson's score interval (1927) of a share, for `total` independent pictures.

    Pictures of the same prompt are not quite independent, so the true interval is somewhat wider.
    """
    if not 0 <= right <= total or total < 1:
        raise ValueError(f"{right} of {total}")
    share, square = right / total, Z * Z / total
    centre = (share + square / 2) / (1 + square)
    half = Z * math.sqrt(share * (1 - share) / total + square / (4 * total)) / (1 + square)
    return centre - half if right else 0.0, centre + half if right < total else 1.0


def interval_of_mean(counts: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Returns the interval of the mean of several independent shares, each (right, total).

    The distances to the bounds of the shares' own intervals are added as squares (the MOVER
    method; Zou and Donner 2008), so the interval never leaves the range from 0 to 1.
    """
    shares = [right / total for right, total in counts]
    bounds = [wilson_score_interval(*count) for count in counts]
    mean = sum(shares) / len(shares)
    below = math.hypot(*(share - low for share, (low, _) in zip(shares, bounds, strict=True)))
    above = math.hypot(*(high - share for share, (_, high) in zip(shares, bounds, strict=True)))
    return mean - below / len(shares), mean + above / len(shares)
