"""The gate of the MLP, ``gelu(gate) * up``, with its gradient written out.

The GELU is the one with tanh: ``gelu(x) = x * h`` with ``h = (1 + tanh(u)) / 2`` and
``u = sqrt(2 / pi) * (x + 0.044715 x^3)``. Its derivative is
``h + 2 x h (1 - h) sqrt(2 / pi) (1 + 3 * 0.044715 x^2)``.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

CUBIC = 0.044715
"""The factor of the cube inside the tanh."""
ROOT = math.sqrt(2 / math.pi)
"""The factor before the tanh's argument."""


@jax.custom_vjp
def gated(gate: Float[Array, "*b f"], up: Float[Array, "*b f"]) -> Float[Array, "*b f"]:
    """Computes ``gelu(gate) * up``."""
    return _forward(gate, up)[0]


def _half(gate: Array) -> Array:
    """Returns ``(1 + tanh(u)) / 2``."""
    return 0.5 + 0.5 * jnp.tanh(ROOT * (gate + CUBIC * gate**3))


def _forward(gate: Array, up: Array) -> tuple[Array, tuple[Array, Array]]:
    wide = gate.astype(jnp.float32)
    output = wide * _half(wide) * up.astype(jnp.float32)
    return output.astype(gate.dtype), (gate, up)


def _backward(saved: tuple[Array, Array], change: Array) -> tuple[Array, Array]:
    gate, up = saved
    wide, change = gate.astype(jnp.float32), change.astype(jnp.float32)
    half = _half(wide)
    slope = half + 2 * wide * half * (1 - half) * ROOT * (1 + 3 * CUBIC * jnp.square(wide))
    d_gate = change * up.astype(jnp.float32) * slope
    return d_gate.astype(gate.dtype), (change * wide * half).astype(up.dtype)


gated.defvjp(_forward, _backward)
