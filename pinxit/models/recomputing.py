"""Keeps the compiler from storing what the backward pass computes again.

XLA merges equal computations. If the blocks are not in a loop, what the backward pass computes
again from stored arrays is equal to what the forward pass has computed, and XLA keeps that instead.
JAX's barrier prevents this, except on a CPU, where XLA removes the barriers first.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def computed_again(x: Float[Array, "*shape"], change: Float[Array, "*any"]) -> Array:
    """Returns `x` for a computation that starts when the gradient `change` is there.

    On a CPU, a zero is added that depends on `change`.
    """
    return jax.lax.platform_dependent(x, change, cpu=_plus_zero, default=_behind_barrier)


def _plus_zero(x: Array, change: Array) -> Array:
    first = change[(0,) * change.ndim]
    return x + (first > jnp.inf).astype(x.dtype)  # nothing is more, which XLA does not know


def _behind_barrier(x: Array, change: Array) -> Array:
    return jax.lax.optimization_barrier((x, change))[0]
