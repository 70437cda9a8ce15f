"""Muon (Jordan et al. 2024): a matrix moves along its momentum, made orthogonal.

Of a momentum ``U S V^T`` the step is about ``U V^T``, so all its directions move alike. An odd
polynomial of the matrix, applied a few times, brings every singular value towards 1. Before that
the matrix is divided by its Schatten norm of order four, so that none exceeds 1 and the largest are
not far from it.

Kernels of the blocks are stacked over depth, ``(depth, in, out)``, and each layer is orthogonalised
by itself; so is each head of the kernels that lead into heads, which are as many maps side by side
(Zhang et al. 2026, arXiv:2605.08933). Heads are also cheaper than the matrix that they make up, and
on a mesh that is cut by heads they need no exchange.
"""

from __future__ import annotations

from typing import Any

import jax
import optax
from optax import contrib

INTO_HEADS = ("query", "key", "value", "text_key", "text_value")
"""Layers whose kernels are ``(depth, in, heads * head_dim)``."""

LOWEST = 0.01
"""Relative to the scale, singular values from here to 1 end near 1; smaller ones grow alike."""
POLYNOMIALS = (
    (8.0934, -23.6204, 17.4462),
    (3.6366, -2.7219, 0.5365),
    (2.6613, -1.9772, 0.4526),
)
"""``a x + b x^3 + c x^5``, in this order: each is the nearest to 1 on what those before make of
``[LOWEST, 1]`` (Amsel et al. 2025, arXiv:2505.16932). Three of them are as near to ``U V^T``, on
momenta of heads and hidden layers, as the usual five of one kind are (LOG.md)."""


def scale_by_muon(momentum: float, *, num_heads: int) -> optax.GradientTransformation:
    """Directions with a root mean square of 0.2, as Adam's have (arXiv:2502.16982, equation 4).

    The momentum is Nesterov's, one array for each kernel and of its shape.
    """
    orthogonal = contrib.scale_by_muon(
        POLYNOMIALS,
        len(POLYNOMIALS),
        beta=0.0,
        nesterov=False,
        preconditioning="schatten",
        weight_dimension_numbers=_matrices,
    )

    def direction(momenta: Any, params: Any = None) -> Any:
        del params
        matrices = _by_head(momenta, num_heads)
        found, _ = orthogonal.update(matrices, orthogonal.init(matrices))
        return jax.tree.map(lambda u, m: (u * _size(u)).reshape(m.shape), found, momenta)

    return optax.chain(optax.trace(momentum, nesterov=True), optax.stateless(direction))


def _size(orthogonal: jax.Array) -> float:
    """What an orthogonal matrix is multiplied with, for a root mean square of 0.2."""
    return 0.2 * max(orthogonal.shape[1], orthogonal.shape[-1]) ** 0.5


def _by_head(kernels: Any, num_heads: int) -> Any:
    """Those that lead into heads as ``(depth, in, heads, head_dim)``."""

    def of(path: tuple[Any, ...], kernel: Any) -> Any:
        layer = str(getattr(path[-2], "key", "")) if len(path) > 1 else ""
        if layer not in INTO_HEADS:
            return kernel
        return kernel.reshape(*kernel.shape[:2], num_heads, -1)

    return jax.tree_util.tree_map_with_path(of, kernels)


def _matrices(kernels: Any) -> Any:
    """Which axes make a matrix: the one after depth leads in, the last one out."""
    return jax.tree.map(
        lambda kernel: contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=kernel.ndim - 1),
        kernels,
    )
