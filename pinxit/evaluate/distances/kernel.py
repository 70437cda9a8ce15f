"""Two distances by kernels: KID, and the MMD that CMMD is on CLIP's embeddings.

Both are estimates of the squared maximum mean discrepancy (Gretton et al. 2012, JMLR 13). They do
not assume that features are Gaussian.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from pinxit.config import UsageError
from pinxit.evaluate.distances.feature_rows import FeatureRows, same_width

SUBSETS = 100
"""Number of subsets whose mean KID is."""
SUBSET_SIZE = 1000
"""Largest number of pictures of a subset."""
SUBSET_SEED = 0
"""The seed from which the subsets are chosen."""
SIGMA = 10.0
"""The bandwidth of CMMD's Gaussian kernel."""
SCALE = 1000.0
"""CMMD's factor, which only makes the figure easier to read."""


def kernel_distance(
    x: FeatureRows,
    y: FeatureRows,
    *,
    subsets: int = SUBSETS,
    size: int = SUBSET_SIZE,
    seed: int = SUBSET_SEED,
) -> float:
    """Returns KID (Binkowski et al. 2018, arXiv:1801.01401) by clean-fid's protocol.

    The kernel is ``(x.y / d + 1)^3`` of d features. Of each set, m pictures are chosen without
    repetition, `subsets` times, where m is `size` or the number of pictures of the smaller set. The
    result is the mean of the unbiased estimates (equation 4 there). So it may be negative, and is
    slightly negative for two identical sets. clean-fid chooses subsets from NumPy's global state;
    here subset i follows from `seed` and i. With all pictures in each subset, all are the same, and
    the result is clean-fid's.

    Raises `UsageError` for fewer than two pictures or different numbers of features.
    """
    same_width(x, y)
    m = min(len(x), len(y), size)
    if m < 2:
        raise UsageError("pictures", m, problem="too few for KID", valid="at least 2")
    all_x, all_y = m == len(x), m == len(y)
    subsets = 1 if all_x and all_y else subsets
    total, inside = 0.0, {"x": 0.0, "y": 0.0}
    rows = {"x": np.empty((0, x.width)), "y": np.empty((0, y.width))}
    for i in range(subsets):
        rng = np.random.default_rng([seed, i])
        for name, store, fixed in (("x", x, all_x), ("y", y, all_y)):
            numbers = np.sort(rng.choice(len(store), m, replace=False))
            if i and fixed:
                continue
            rows[name] = store.take(numbers).astype(np.float64)
            inside[name] = _off_diagonal(rows[name]) / (m - 1)
        total += inside["x"] + inside["y"] - 2 * _cubic(rows["x"], rows["y"]).sum() / m
    return float(total / subsets / m)


def _cubic(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    kernel = x @ y.T
    kernel /= x.shape[1]
    kernel += 1
    return kernel * kernel * kernel


def _off_diagonal(x: Float[np.ndarray, "n d"]) -> float:
    """Returns the sum of the kernel over all pairs of different rows."""
    kernel = _cubic(x, x)
    np.fill_diagonal(kernel, 0.0)
    return float(kernel.sum())


def gaussian_mmd(
    x: FeatureRows, y: FeatureRows, *, sigma: float = SIGMA, scale: float = SCALE
) -> float:
    """Returns CMMD's distance (Jayasumana et al. 2024, arXiv:2401.09603), at least 0.

    Rows are divided by their length. ``scale (mean k(x, x) + mean k(y, y) - 2 mean k(x, y))`` with
    ``k(a, b) = exp(-|a - b|^2 / (2 sigma^2))``. The means include the diagonals, as in Google's
    code, so the estimate is biased: two sets of n pictures of the same kind are about 1 / n apart,
    times a factor. It is 0 for identical sets. The kernel is computed in blocks and in float64; the
    authors' is in float32, so their figure varies by about 1e-4.

    Raises `UsageError` for no picture or different numbers of features.
    """
    same_width(x, y)
    if not (len(x) and len(y)):
        raise UsageError("pictures", 0, problem="too few for MMD", valid="at least 1")
    gamma = 1 / (2 * sigma**2)
    return max(0.0, scale * (_mean(x, x, gamma) + _mean(y, y, gamma) - 2 * _mean(x, y, gamma)))


def _mean(x: FeatureRows, y: FeatureRows, gamma: float) -> float:
    """Returns the mean of ``k(a, b) - 1`` over all pairs, which keeps more digits than ``k``."""
    total = 0.0
    for a in _directions(x):
        for b in _directions(y):
            kernel = a @ b.T
            kernel *= 2
            kernel -= np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None, :]
            kernel *= gamma
            total += float(np.expm1(kernel, out=kernel).sum())
    return total / (len(x) * len(y))


def _directions(rows: FeatureRows) -> Iterator[Float[np.ndarray, "b d"]]:
    """Yields blocks of rows of length 1, as float64; a row of zeros stays zero."""
    for block in rows.blocks():
        values = block.astype(np.float64)
        length = np.linalg.norm(values, axis=1, keepdims=True)
        yield values / np.where(length == 0, 1.0, length)
