"""Sums and maxima over the last axis, in a form that a CPU computes fast.

XLA on a CPU neither vectorises a maximum over the last axis nor a sum of computed values. So there,
the row is folded: its halves are combined element by element, again and again, which also rounds
less than adding up from one end. Other devices use XLA's own reductions. The form is chosen when a
program is compiled for a platform, not by the machine that traces it.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LANES = 16
"""Values of a row that are left to a reduction."""


def row_sum(x: Float[Array, "*batch f"]) -> Float[Array, "*batch 1"]:
    """Returns the sum over the last axis, which stays with length 1."""
    return jax.lax.platform_dependent(
        x,
        cpu=lambda x: _folded(x, jax.lax.add, 0.0),
        default=lambda x: jnp.sum(x, axis=-1, keepdims=True),
    )


def row_mean(x: Float[Array, "*batch f"]) -> Float[Array, "*batch 1"]:
    """Returns the mean over the last axis, which stays with length 1."""
    return row_sum(x) / x.shape[-1]


def row_max(x: Float[Array, "*batch f"]) -> Float[Array, "*batch 1"]:
    """Returns the maximum over the last axis, which stays with length 1.

    On a CPU, the maximum of a row with NaN may be any of its values.
    """
    return jax.lax.platform_dependent(
        x,
        cpu=lambda x: _folded(x, _larger, -jnp.inf),
        default=lambda x: jnp.max(x, axis=-1, keepdims=True),
    )


def _larger(a: Array, b: Array) -> Array:
    return jax.lax.select(a > b, a, b)


def _folded(
    x: Float[Array, "*batch f"], combine: Callable[[Array, Array], Array], start: float
) -> Float[Array, "*batch 1"]:
    """Combines the halves of the rows until few values are left, and then those.

    The last ones are left to a reduction, which XLA computes once for each row. Sums of slices
    would become part of what uses them, and be computed again for each of its elements.
    """
    while (width := x.shape[-1]) > LANES:
        if width % 2:
            cut = width - width % LANES
            parts = (_folded(part, combine, start) for part in (x[..., :cut], x[..., cut:]))
            return combine(*parts)
        x = combine(x[..., : width // 2], x[..., width // 2 :])
    reduced = jax.lax.reduce(x, jnp.asarray(start, x.dtype), combine, (x.ndim - 1,))
    return jnp.expand_dims(reduced, -1)
