"""Transposes that stay apart from the products that read or write the array.

XLA makes a transpose part of a product, and on a CPU it then computes a product of bfloat16 in
fp32, at half the speed or less, from copies in fp32. It leaves a transpose alone if an axis is in
two halves and the values are integers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

BITS = {2: jnp.uint16, 4: jnp.uint32}
"""The integers of the same size as a floating type, by its number of bytes."""


def turned_in_memory(x: Float[Array, "*batch m i"]) -> Float[Array, "*batch i m"]:
    """Returns the transpose of an array with an even number of rows."""
    *batch, rows, columns = x.shape
    halves = _bits(x).reshape(*batch, 2, rows // 2, columns)
    turned = jnp.moveaxis(halves, -1, -3).reshape(*batch, columns, rows)
    return jax.lax.bitcast_convert_type(turned, x.dtype)


@jax.custom_vjp
def heads_first(x: Float[Array, "b n k f"]) -> Float[Array, "b k n f"]:
    """Swaps the axes of tokens and heads, whose number of features is even."""
    if x.dtype != jnp.bfloat16:
        return _swapped(x)
    return jax.lax.platform_dependent(x, cpu=_swapped_in_memory, default=_swapped)


def _swapped(x: Array) -> Array:
    return jnp.swapaxes(x, 1, 2)


def _swapped_in_memory(x: Array) -> Array:
    batch, tokens, heads, features = x.shape
    halves = _bits(x).reshape(batch, tokens, heads, 2, features // 2)
    swapped = _swapped(halves).reshape(batch, heads, tokens, features)
    return jax.lax.bitcast_convert_type(swapped, x.dtype)


def _forward(x: Array) -> tuple[Array, None]:
    return heads_first(x), None


def _backward(_: None, change: Array) -> tuple[Array]:
    return (heads_first(change),)


heads_first.defvjp(_forward, _backward)


def _bits(x: Array) -> Array:
    return jax.lax.bitcast_convert_type(x, BITS[x.dtype.itemsize])
