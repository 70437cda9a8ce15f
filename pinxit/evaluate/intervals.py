"""Confidence intervals of an accuracy whose pictures come in groups, one group for each prompt.

Pictures of one prompt are right or wrong together more often than independent ones. So 200 pictures
of 50 prompts say less than 200 pictures of 200 prompts. The *design effect* (Kish 1965) is the
factor by which this increases the variance; the number of pictures divided by it is the *effective
number* of independent pictures, and Wilson's interval (1927) is computed for that number. Wilson's
interval has a sensible width at 0 % and at 100 % too, where the usual one has none.

The design effect is estimated from the variance between prompts. That estimate fails where nearly
all pictures are right, since no variance is seen there. So a quarter of a prompt whose pictures are
all right, and a quarter of one whose pictures are all wrong, are added for this estimate. At 100 %
each prompt then counts as one picture, which is the worst case.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

Z = 1.959963984540054
"""The quantile of the normal distribution for an interval of 95 %."""
ADDED = 0.25
"""The number of prompts, all right and all wrong each, that are added to estimate the effect."""


def interval(right: Bool[np.ndarray, "prompts seeds"]) -> tuple[float, float]:
    """Returns the bounds of the 95 % interval of an accuracy, between 0 and 1."""
    return wilson(float(right.mean()), effective_number(right))


def effective_number(right: Bool[np.ndarray, "prompts seeds"]) -> float:
    """Returns the number of independent pictures that are worth as much as these.

    It is between the number of prompts and the number of pictures.
    """
    prompts, seeds = right.shape
    of_prompts: Float[np.ndarray, " prompts"] = right.mean(axis=1)
    weight = prompts + 2 * ADDED
    mean = (of_prompts.sum() + ADDED) / weight
    squares = np.square(of_prompts - mean).sum() + ADDED * ((1 - mean) ** 2 + mean**2)
    effect = seeds * squares / (weight - 1) / (mean * (1 - mean))
    return right.size / float(np.clip(effect, 1, seeds))


def wilson(fraction: float, number: float) -> tuple[float, float]:
    """Returns the bounds of Wilson's 95 % interval for a fraction of `number` pictures."""
    share = Z**2 / number
    centre = fraction + share / 2
    half = Z * np.sqrt(fraction * (1 - fraction) / number + share / (4 * number))
    low, high = (centre - half) / (1 + share), (centre + half) / (1 + share)
    return max(0.0, min(float(low), fraction)), min(1.0, max(float(high), fraction))


def mean_interval(
    means: Sequence[float], bounds: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """Returns the bounds of the 95 % interval of the mean of independent accuracies.

    The squared distances between each accuracy and its bound are added, separately for lower and
    upper bounds (Zou and Donner 2008), so that the result is sensible near 0 % and 100 %.
    """
    mean, lows, highs = float(np.mean(means)), *np.array(bounds, float).T
    below = np.sqrt(np.square(np.array(means) - lows).sum()) / len(means)
    above = np.sqrt(np.square(highs - np.array(means)).sum()) / len(means)
    return max(0.0, mean - float(below)), min(1.0, mean + float(above))
