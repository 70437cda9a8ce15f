"""The Fréchet distance against its closed forms, and where it is 0."""

from __future__ import annotations

import numpy as np
import pytest
from array_rows import ArrayRows, correlated

from pinxit.config import UsageError
from pinxit.evaluate.distances.frechet import frechet_distance
from pinxit.evaluate.distances.statistics import Statistics, statistics_of


def by_eigenvalues(x: Statistics, y: Statistics) -> float:
    """torch-fidelity's and torchmetrics' form: the roots of the eigenvalues of the product."""
    eigenvalues = np.linalg.eigvals(x.covariance @ y.covariance)
    shared = np.sqrt(eigenvalues.astype(complex)).real.sum()
    traces = np.trace(x.covariance) + np.trace(y.covariance)
    return float(np.square(x.mean - y.mean).sum() + traces - 2 * shared)


def test_it_is_exact_for_diagonal_covariances():
    x = Statistics(np.array([0.0, 1.0]), np.diag([4.0, 9.0]))
    y = Statistics(np.array([3.0, 1.0]), np.diag([1.0, 25.0]))
    assert frechet_distance(x, y) == pytest.approx(9 + (2 - 1) ** 2 + (3 - 5) ** 2, rel=1e-14)


@pytest.mark.parametrize(("n", "d"), [(200, 24), (24, 24), (10, 24), (2, 24)])
def test_it_is_the_eigenvalue_form(n: int, d: int):
    """Also with fewer pictures than features, where the covariances are singular."""
    x = statistics_of(ArrayRows(correlated(n, d)))
    y = statistics_of(ArrayRows(correlated(n + 3, d, seed=1, shift=0.3)))
    value = frechet_distance(x, y)
    assert value == pytest.approx(by_eigenvalues(x, y), rel=1e-6)
    assert frechet_distance(y, x) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("n", [300, 20])
def test_identical_sets_are_at_distance_0(n: int):
    x = statistics_of(ArrayRows(100 * correlated(n, 32)))
    y = statistics_of(ArrayRows(100 * correlated(n, 32)))
    assert frechet_distance(x, y) <= 1e-11 * np.trace(x.covariance)


def test_sets_that_do_not_vary():
    x = statistics_of(ArrayRows(np.ones((5, 3), np.float32)))
    y = statistics_of(ArrayRows(np.zeros((4, 3), np.float32)))
    assert frechet_distance(x, y) == 3.0 and frechet_distance(x, x) == 0.0


def test_different_widths_are_refused():
    x, y = (Statistics(np.zeros(d), np.eye(d)) for d in (2, 3))
    with pytest.raises(UsageError, match="2 features of one set and 3 of the other"):
        frechet_distance(x, y)
