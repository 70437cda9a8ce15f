"""KID and CMMD against the authors' formulas, written out over whole matrices."""

from __future__ import annotations

import numpy as np
import pytest
from array_rows import ArrayRows, correlated

from pinxit.config import UsageError
from pinxit.evaluate.distances.kernel import gaussian_mmd, kernel_distance


def whole_kid(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate from all pictures of two sets of one size."""
    m, d = x.shape
    kernel = [[(float(a @ b) / d + 1) ** 3 for b in (*x, *y)] for a in (*x, *y)]
    inside = sum(kernel[i][j] + kernel[m + i][m + j] for i in range(m) for j in range(m) if i != j)
    between = sum(kernel[i][m + j] for i in range(m) for j in range(m))
    return inside / (m * (m - 1)) - 2 * between / m**2


def whole_mmd(x: np.ndarray, y: np.ndarray, sigma: float = 10.0) -> float:
    x, y = (a / np.linalg.norm(a, axis=1)[:, None] for a in (x, y))

    def mean(a: np.ndarray, b: np.ndarray) -> np.floating:
        squared = np.array([[(p - q) @ (p - q) for q in b] for p in a])
        return np.exp(-squared / (2 * sigma**2)).mean()

    return float(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)))


def float64(n: int, **kwargs) -> np.ndarray:
    return correlated(n, 12, **kwargs).astype(np.float64)


def test_kid_of_whole_sets_is_the_unbiased_estimate():
    x, y = float64(20), float64(20, seed=1, shift=0.2)
    value = kernel_distance(ArrayRows(x), ArrayRows(y))
    assert value == pytest.approx(whole_kid(x, y), rel=1e-10)
    assert kernel_distance(ArrayRows(y), ArrayRows(x)) == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize(("n", "size"), [(15, 1000), (15, 6), (6, 6)])
def test_kid_is_the_mean_over_subsets_from_a_seed(n: int, size: int):
    """In one case all of the smaller set is in every subset, in another none is whole."""
    x, y = float64(n), float64(20, seed=1, shift=0.2)
    m, values = min(n, size), []
    for i in range(4):
        rng = np.random.default_rng([5, i])
        chosen = [rng.choice(len(rows), m, replace=False) for rows in (x, y)]
        values.append(whole_kid(x[chosen[0]], y[chosen[1]]))
    value = kernel_distance(ArrayRows(x), ArrayRows(y), subsets=4, size=size, seed=5)
    assert value == pytest.approx(np.mean(values), rel=1e-10)
    assert value != kernel_distance(ArrayRows(x), ArrayRows(y), subsets=4, size=size, seed=6)


def test_kid_of_identical_sets_is_what_the_estimate_gives():
    """The unbiased estimate leaves the diagonal out on one side alone: it is slightly below 0."""
    x = float64(30)
    value = kernel_distance(ArrayRows(x), ArrayRows(x))
    diagonal = np.mean((np.square(x).sum(1) / 12 + 1) ** 3)
    mean = np.mean((x @ x.T / 12 + 1) ** 3)
    assert value == pytest.approx(-2 * (diagonal - mean) / 29, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (9, 31), (1, 2)])
def test_cmmd_is_the_authors_formula(n: int, m: int):
    x, y = float64(n, shift=0.1), float64(m, seed=1, shift=0.4)
    value = gaussian_mmd(ArrayRows(x), ArrayRows(y))
    assert value == pytest.approx(whole_mmd(x, y), rel=1e-6)
    assert gaussian_mmd(ArrayRows(3 * x), ArrayRows(y)) == pytest.approx(value, rel=1e-5)


def test_cmmd_of_identical_sets_is_0():
    assert gaussian_mmd(ArrayRows(float64(40)), ArrayRows(float64(40))) < 1e-10


@pytest.mark.parametrize("distance", [kernel_distance, gaussian_mmd])
def test_sets_that_cannot_be_compared_are_refused(distance):
    with pytest.raises(UsageError, match="12 of one set and 5 of the other"):
        distance(ArrayRows(float64(5)), ArrayRows(correlated(5, 5)))
    few = 1 if distance is kernel_distance else 0
    with pytest.raises(UsageError, match=f"pictures: {few} is too few"):
        distance(ArrayRows(float64(few)), ArrayRows(float64(5)))
