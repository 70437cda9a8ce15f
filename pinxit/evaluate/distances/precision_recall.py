"""Fidelity and variety apart: precision and recall, density and coverage.

The manifold of a set is the union of balls around its features; a ball reaches to the k-th nearest
other feature of the set. *Precision* is the fraction of drawn pictures inside the manifold of the
reference, *recall* the fraction of reference pictures inside the manifold of the drawn ones
(Kynkäänniemi et al. 2019, arXiv:1904.06991). *Density* counts how many balls of the reference
contain a drawn picture, divided by k, and *coverage* is the fraction of balls of the reference that
contain one (Naeem et al. 2020, arXiv:2002.09797); outliers of the reference matter less to them.

Balls shrink as sets grow, so all four depend on the number of pictures, and precision and recall
more than the others: with a few hundred, balls are wide and both are too high. Compare figures of
equal numbers only, and the noise column's first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pinxit.config import UsageError
from pinxit.evaluate.distances.feature_rows import FeatureRows, same_width

NEIGHBOURS = 3
"""The number k of neighbours within a ball, that of Kynkäänniemi et al."""
SAME = 1e-12
"""Squared distances below this, relative to the squared lengths, are rounding errors of 0."""


@dataclass(frozen=True)
class PrecisionRecall:
    """The four figures; the first two and the last are between 0 and 1."""

    precision: float
    """The fraction of drawn pictures inside the manifold of the reference."""
    recall: float
    """The fraction of reference pictures inside the manifold of the drawn ones."""
    density: float
    """The mean number of balls around a drawn picture, divided by k; 1 is expected of a reference
    set, and more is possible."""
    coverage: float
    """The fraction of the balls of the reference that contain a drawn picture."""


def precision_recall(
    drawn: FeatureRows, reference: FeatureRows, *, k: int = NEIGHBOURS
) -> PrecisionRecall:
    """Returns the four figures. Distances are computed in blocks and in float64.

    Points on a ball's edge are inside. Raises `UsageError` unless both sets have more than k
    pictures and the same number of features.
    """
    same_width(drawn, reference)
    fewest = min(len(drawn), len(reference))
    if fewest <= k:
        valid = f"at least {k + 1}"
        raise UsageError(
            "pictures", fewest, problem="too few for precision and recall", valid=valid
        )
    of_reference, of_drawn = _radii(reference, k), _radii(drawn, k)
    balls, inside = np.zeros(len(drawn)), np.zeros(len(reference), bool)
    covered = np.zeros(len(reference), bool)
    for i, a in _numbered(reference):
        for j, b in _numbered(drawn):
            squared = _squared_distances(a, b)
            within = squared <= of_reference[i, None]
            balls[j] += within.sum(axis=0)
            covered[i] |= within.any(axis=1)
            inside[i] |= (squared <= of_drawn[None, j]).any(axis=1)
    return PrecisionRecall(
        precision=float((balls > 0).mean()),
        recall=float(inside.mean()),
        density=float(balls.mean() / k),
        coverage=float(covered.mean()),
    )


def _radii(rows: FeatureRows, k: int) -> Float[np.ndarray, " n"]:
    """Returns the squared distance of each row to its k-th nearest other row."""
    radii = np.empty(len(rows))
    for i, a in _numbered(rows):
        nearest = np.empty((len(a), 0))
        for _, b in _numbered(rows):
            both = np.concatenate([nearest, _squared_distances(a, b)], axis=1)
            nearest = np.partition(both, k, axis=1)[:, : k + 1] if both.shape[1] > k else both
        radii[i] = nearest.max(axis=1)  # of k + 1, since the row itself is the nearest
    return radii


def _numbered(rows: FeatureRows) -> Iterator[tuple[slice, Float[np.ndarray, "b d"]]]:
    """Yields blocks as float64, with their positions."""
    start = 0
    for block in rows.blocks():
        yield slice(start, start + len(block)), block.astype(np.float64)
        start += len(block)


def _squared_distances(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "n m"]:
    lengths = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None, :]
    squared = lengths - 2 * (a @ b.T)
    return np.where(squared <= SAME * lengths, 0.0, squared)
