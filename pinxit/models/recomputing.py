"""Keeps XLA on a CPU from storing what the backward pass computes again.

XLA merges equal computations. If the blocks are not in a loop, what the backward pass computes
again from stored arrays is equal to what the forward pass has computed, and XLA on a CPU keeps that
instead. It removes JAX's barriers before it merges. Other devices get neither zeros nor barriers:
on a TPU, XLA stores no more without a barrier, and much more with one, since the array behind it
must be in memory.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def computed_again(x: Float[Array, "*shape"], change: Float[Array, "*any"]) -> Array:
    """Returns `x` for a computation that starts when the gradient `change` is there.

    On a CPU, a zero is added that depends on `change`. Elsewhere it is `x` itself.
    """
    return jax.lax.platform_dependent(x, change, cpu=_plus_zero, default=_itself)


def _plus_zero(x: Array, change: Array) -> Array:
    first = change[(0,) * change.ndim]
    return x + (first > jnp.inf).astype(x.dtype)  # nothing is more, which XLA does not know


def _itself(x: Array, change: Array) -> Array:
    return x
