"""The gate of the MLP and the product behind it, ``(gelu(gate) * up) @ kernel``.

The gradient is written out, and stores only the two inputs: ``gelu(gate) * up`` is computed again,
which costs little, since its gradient needs the same tanh.

The GELU is the one with tanh: ``gelu(x) = x * h`` with ``h = (1 + tanh(u)) / 2`` and
``u = sqrt(2 / pi) * (x + 0.044715 x^3)``. Its derivative is
``h + 2 x h (1 - h) sqrt(2 / pi) (1 + 3 * 0.044715 x^2)``.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pinxit.models.products import product, product_gradients
from pinxit.models.recomputing import computed_again

CUBIC = 0.044715
"""The factor of the cube inside the tanh."""
ROOT = math.sqrt(2 / math.pi)
"""The factor before the tanh's argument."""


@jax.custom_vjp
def gated_product(
    gate: Float[Array, "*b f"], up: Float[Array, "*b f"], kernel: Float[Array, "f o"]
) -> Float[Array, "*b o"]:
    """Computes ``(gelu(gate) * up) @ kernel``. The kernel and its gradient are fp32."""
    return product(gated(gate, up), kernel)


def gated(gate: Float[Array, "*b f"], up: Float[Array, "*b f"]) -> Float[Array, "*b f"]:
    """Computes ``gelu(gate) * up`` in fp32, and returns it in the dtype of `gate`."""
    wide = gate.astype(jnp.float32)
    return (wide * _half(_argument(wide)) * up.astype(jnp.float32)).astype(gate.dtype)


def _argument(gate: Array) -> Array:
    """Returns ``u``."""
    return ROOT * (gate + CUBIC * gate**3)


def _half(u: Array) -> Array:
    """Returns ``h``."""
    return 0.5 + 0.5 * jnp.tanh(u)


def _forward(gate: Array, up: Array, kernel: Array) -> tuple[Array, tuple[Array, ...]]:
    return gated_product(gate, up, kernel), (gate, up, kernel)


def _backward(saved: tuple[Array, ...], change: Array) -> tuple[Array, Array, Array]:
    gate, up, kernel = saved
    wide, wide_up = gate.astype(jnp.float32), up.astype(jnp.float32)
    half = _half(computed_again(_argument(wide), change))
    hidden = (wide * half * wide_up).astype(gate.dtype)
    d_hidden, d_kernel = product_gradients(hidden, kernel, change)
    d_wide = d_hidden.astype(jnp.float32)
    slope = half + 2 * wide * half * (1 - half) * ROOT * (1 + 3 * CUBIC * jnp.square(wide))
    d_gate = d_wide * wide_up * slope
    return d_gate.astype(gate.dtype), (d_wide * wide * half).astype(up.dtype), d_kernel


gated_product.defvjp(_forward, _backward)
