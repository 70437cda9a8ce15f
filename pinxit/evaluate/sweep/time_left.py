"""Estimates the time that the remaining cells of a sweep take, from those that are finished."""

from __future__ import annotations

from collections.abc import Sequence

from pinxit.sampling import Sampling

TWICE = ("heun", "midpoint")
"""The solvers that evaluate the network twice in each step."""
FIXED = 4.0
"""The cost of a picture that does not depend on its steps (decoding, features), in evaluations of
the network."""


def cost(sampling: Sampling) -> float:
    """Returns the cost of a picture in evaluations of the network."""
    calls = sampling.steps * (2 if sampling.solver in TWICE else 1)
    return FIXED + calls * (1 if sampling.guidance_scale == 1 else 2)


def seconds_left(
    finished: Sequence[tuple[float, float]], remaining: Sequence[float]
) -> float | None:
    """Returns the seconds that cells of the `remaining` costs take, or None if that is unknown.

    `finished` has the cost and the seconds of each cell that was measured.
    """
    spent = sum(each for each, _ in finished)
    if not spent:
        return None
    return sum(seconds for _, seconds in finished) / spent * sum(remaining)
