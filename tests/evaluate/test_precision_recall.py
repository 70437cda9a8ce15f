"""Precision, recall, density and coverage on sets whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest
from array_rows import ArrayRows, correlated

from pinxit.config import UsageError
from pinxit.evaluate.distances.precision_recall import precision_recall


def naive(drawn: np.ndarray, reference: np.ndarray, k: int = 3) -> tuple[float, ...]:
    """Naeem et al.'s four figures from whole matrices of distances."""
    x, y = drawn.astype(np.float64), reference.astype(np.float64)
    distance = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=-1)  # noqa: E731
    x_radius, y_radius = (np.sort(distance(a, a), axis=1)[:, k] for a in (x, y))
    between = distance(y, x)
    return (
        (between <= y_radius[:, None]).any(0).mean(),
        (between <= x_radius[None]).any(1).mean(),
        (between <= y_radius[:, None]).sum(0).mean() / k,
        (between.min(1) <= y_radius).mean(),
    )


@pytest.mark.parametrize(("n", "m"), [(40, 40), (23, 40), (4, 30)])
def test_blocks_give_what_whole_matrices_give(n: int, m: int):
    drawn, reference = correlated(n, 4, shift=0.4), correlated(m, 4, seed=1)
    values = precision_recall(ArrayRows(drawn), ArrayRows(reference))
    four = values.precision, values.recall, values.density, values.coverage
    assert four == pytest.approx(naive(drawn, reference), abs=1e-12)
    assert values.precision > 0


def test_identical_sets_have_all():
    values = precision_recall(ArrayRows(correlated(30, 4)), ArrayRows(correlated(30, 4)))
    assert (values.precision, values.recall, values.coverage) == (1, 1, 1)


def test_one_picture_repeated_is_precise_and_recalls_nothing():
    reference = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    repeated = np.repeat(reference[:1], 60, axis=0)
    values = precision_recall(ArrayRows(repeated), ArrayRows(reference))
    assert values.precision == 1.0 and values.recall == pytest.approx(1 / 60)
    assert values.coverage < 0.2


def test_far_pictures_are_outside():
    reference = correlated(20, 3)
    values = precision_recall(ArrayRows(reference + 100), ArrayRows(reference))
    assert (values.precision, values.recall, values.density, values.coverage) == (0, 0, 0, 0)


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(UsageError, match="pictures: 3 is too few for precision and recall"):
        precision_recall(ArrayRows(correlated(3, 4)), ArrayRows(correlated(9, 4)))
    with pytest.raises(UsageError, match="4 of one set and 5 of the other"):
        precision_recall(ArrayRows(correlated(9, 4)), ArrayRows(correlated(9, 5)))
