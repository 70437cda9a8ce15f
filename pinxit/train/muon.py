"""Muon (Jordan et al. 2024): the update of a matrix is its orthogonalised momentum.

For a momentum ``U S V^T`` the update is approximately ``U V^T``, so all its directions move by the
same amount. An odd polynomial of the matrix, applied a few times, moves every singular value
towards 1. Before that, the matrix is divided by its Schatten norm of order four, so that no
singular value exceeds 1 and the largest ones are close to 1.

Kernels of the blocks are stacked over depth, ``(depth, in, out)``, and each layer is orthogonalised
separately. Kernels that produce attention heads are one map per head, side by side, so each head is
orthogonalised separately as well (Zhang et al. 2026, arXiv:2605.08933). This costs less than
orthogonalising the whole matrix, and needs no communication on a mesh that shards heads.
"""

from __future__ import annotations

from typing import Any

import jax
import optax
from optax import contrib

INTO_HEADS = ("query", "key", "value", "text_key", "text_value")
"""Layers whose kernels have the shape ``(depth, in, heads * head_dim)``."""

LOWEST = 0.01
"""Singular values from here to 1 (after scaling) end near 1. Smaller ones grow by the same
factor."""
POLYNOMIALS = (
    (8.0934, -23.6204, 17.4462),
    (3.6366, -2.7219, 0.5365),
    (2.6613, -1.9772, 0.4526),
)
"""Coefficients of ``a x + b x^3 + c x^5``, in order of application. Each polynomial is the closest
to 1 on the range to which the previous ones map ``[LOWEST, 1]`` (Amsel et al. 2025,
arXiv:2505.16932). On momenta of heads and hidden layers, these three come as close to ``U V^T`` as
the usual five applications of one polynomial (LOG.md)."""


def scale_by_muon(momentum: float, *, num_heads: int) -> optax.GradientTransformation:
    """Returns a transformation of gradients to Muon updates, whose root mean square is 0.2.

    Adam's updates have the same root mean square (arXiv:2502.16982, equation 4). The momentum is
    Nesterov's. Its state is one array for each kernel, with the kernel's shape.
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
        updates, _ = orthogonal.update(matrices, orthogonal.init(matrices))
        return jax.tree.map(lambda u, m: (u * _size(u)).reshape(m.shape), updates, momenta)

    return optax.chain(optax.trace(momentum, nesterov=True), optax.stateless(direction))


def _size(orthogonal: jax.Array) -> float:
    """Returns the factor that gives an orthogonal matrix a root mean square of 0.2."""
    return 0.2 * max(orthogonal.shape[1], orthogonal.shape[-1]) ** 0.5


def _by_head(kernels: Any, num_heads: int) -> Any:
    """Reshapes the kernels of `INTO_HEADS` to ``(depth, in, heads, head_dim)``."""

    def of(path: tuple[Any, ...], kernel: Any) -> Any:
        layer = str(getattr(path[-2], "key", "")) if len(path) > 1 else ""
        if layer not in INTO_HEADS:
            return kernel
        return kernel.reshape(*kernel.shape[:2], num_heads, -1)

    return jax.tree_util.tree_map_with_path(of, kernels)


def _matrices(kernels: Any) -> Any:
    """Returns the axes of the matrices: the input is the axis after depth, the output the last."""
    return jax.tree.map(
        lambda kernel: contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=kernel.ndim - 1),
        kernels,
    )
