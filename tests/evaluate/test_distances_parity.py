"""FID, KID and CMMD against the formulas of clean-fid, torchmetrics and Google's CMMD.

Their packages are not needed: the formulas are written out with SciPy's and torch's functions, in
the authors' precision. `sqrtm` is called without ``disp``, which SciPy 1.18 no longer has.
"""

from __future__ import annotations

import numpy as np
import pytest
from array_rows import ArrayRows, correlated

from pinxit.evaluate.distances.frechet import frechet_distance
from pinxit.evaluate.distances.kernel import gaussian_mmd, kernel_distance
from pinxit.evaluate.distances.statistics import statistics_of

pytestmark = pytest.mark.parity
Pair = tuple[np.ndarray, np.ndarray]


def gaussians(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """The squared distance of the means, the traces, and both covariances by `numpy.cov`."""
    s1, s2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    difference = x.mean(0) - y.mean(0)
    return difference @ difference, np.trace(s1) + np.trace(s2), s1, s2


def clean_fid(x: np.ndarray, y: np.ndarray) -> float:
    """clean-fid's `frechet_distance`, with 1e-6 on the diagonals if the root is not finite."""
    from scipy import linalg

    means, traces, s1, s2 = gaussians(x, y)
    root = linalg.sqrtm(s1 @ s2)
    if not np.isfinite(root).all():
        offset = 1e-6 * np.eye(len(s1))
        root = linalg.sqrtm((s1 + offset) @ (s2 + offset))
    return float(means + traces - 2 * np.trace(root).real)


def torchmetrics_fid(x: np.ndarray, y: np.ndarray) -> float:
    """torchmetrics' and torch-fidelity's form, by torch's eigenvalues of the product."""
    import torch

    means, traces, s1, s2 = gaussians(x, y)
    eigenvalues = torch.linalg.eigvals(torch.from_numpy(s1) @ torch.from_numpy(s2))
    return float(means + traces - 2 * eigenvalues.sqrt().real.sum(dim=-1))


def clean_kid(x: np.ndarray, y: np.ndarray, subsets: int = 100, size: int = 1000) -> float:
    """clean-fid's `kernel_distance`, in float32 and with random subsets of its own."""
    m, d = min(len(x), len(y), size), x.shape[1]
    rng, values = np.random.default_rng(123), []
    for _ in range(subsets):
        a = y[rng.choice(len(y), m, replace=False)]
        b = x[rng.choice(len(x), m, replace=False)]
        inside = (a @ a.T / d + 1) ** 3 + (b @ b.T / d + 1) ** 3
        between = (a @ b.T / d + 1) ** 3
        values.append((inside.sum() - np.trace(inside)) / (m - 1) - 2 * between.sum() / m)
    return float(np.mean(values) / m)


def google_cmmd(x: np.ndarray, y: np.ndarray) -> float:
    """google-research/cmmd's `mmd` of normalised embeddings, in torch and float64."""
    import torch

    def mean(a, b):
        squares = a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T
        return torch.exp(-squares / (2 * 10**2)).mean()

    a, b = (torch.nn.functional.normalize(torch.from_numpy(r).double(), dim=1) for r in (x, y))
    return float(1000 * (mean(a, a) + mean(b, b) - 2 * mean(a, b)))


def sets(n: int, d: int, shift: float = 0.15) -> Pair:
    return correlated(n, d), correlated(n + 5, d, seed=1, shift=shift)


def ours(x: np.ndarray, y: np.ndarray) -> float:
    return frechet_distance(statistics_of(ArrayRows(x)), statistics_of(ArrayRows(y)))


@pytest.mark.parametrize("formula", [clean_fid, torchmetrics_fid])
@pytest.mark.parametrize(("n", "d"), [(300, 64), (64, 64), (40, 64), (100, 256)])
def test_fid_of_small_features(n: int, d: int, formula):
    x, y = sets(n, d)
    assert ours(x, y) == pytest.approx(formula(x, y), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1500, 4000])
def test_fid_of_2048_features(n: int, record_property):
    """With fewer pictures than features, and with more."""
    x, y = sets(n, 2048)
    value, expected = ours(x, y), clean_fid(x, y)
    record_property("relative", value / expected - 1)
    print(f"{n} pictures: {value:.8g}, by sqrtm {expected:.8g}")
    assert value == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("n", "size"), [(200, 1000), (200, 60)])
def test_kid(n: int, size: int):
    """Random subsets differ, so that only whole sets agree to 1e-4."""
    x, y = correlated(n, 64), correlated(n, 64, seed=1, shift=0.3)
    value = kernel_distance(ArrayRows(x), ArrayRows(y), size=size)
    rel = 1e-4 if size > n else 0.05
    assert value == pytest.approx(clean_kid(x, y, size=size), rel=rel)


def test_cmmd():
    x, y = sets(150, 32)
    assert gaussian_mmd(ArrayRows(x), ArrayRows(y)) == pytest.approx(google_cmmd(x, y), rel=1e-6)
