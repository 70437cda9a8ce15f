"""The Fréchet distance between two Gaussians, which FID is on Inception's features.

``|mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr sqrtm(S1 S2)`` (Dowson and Landau 1982; as FID in Heusel et
al. 2017, arXiv:1706.08500, equation 6).
"""

from __future__ import annotations

import numpy as np

from pinxit.config import UsageError
from pinxit.evaluate.distances.statistics import Statistics


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """Returns the squared Fréchet distance, at least 0, in float64.

    The trace of ``sqrtm(S1 S2)`` is that of ``sqrtm(sqrt(S1) S2 sqrt(S1))``, which is symmetric.
    That is the sum of the singular values of ``R1 R2^T``, with ``R^T R = S`` from a symmetric
    eigenvalue decomposition. clean-fid and pytorch-fid call `scipy.linalg.sqrtm` on the product
    ``S1 S2``, which is not symmetric. The results differ by rounding alone (below 1e-3 of the value
    for 2048 features, where the error is scipy's). There is no difference in three special cases:
    a singular covariance, with fewer pictures than features, needs no 1e-6 on the diagonals, no
    imaginary part appears that must be dropped, and two identical sets have a distance of 0 up to
    1e-12 of the trace, not of 1e-3.

    Raises `UsageError` if the two have different numbers of features.
    """
    if first.width != second.width:
        raise UsageError(
            f"statistics: {first.width} features of one set and {second.width} of the other; both "
            "sets of pictures must be seen by the same network"
        )
    difference = first.mean - second.mean
    shared = np.linalg.svd(first.root @ second.root.T, compute_uv=False).sum()
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    return max(0.0, float(difference @ difference + traces - 2 * shared))
