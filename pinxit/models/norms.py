"""The norms and the gated sum of a block, with gradients written out.

With ``y = (x - mean) / s`` for the row's deviation ``s``, the gradient of a loss is
``dx = (dy - mean(dy) - y * mean(dy * y)) / s``; the RMS norm has no mean to subtract. So a gradient
needs two means over each row, and the statistics of the forward pass are not computed again. Sums
over tokens are in fp32.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pinxit.models.row_reductions import row_mean

EPSILON = 1e-6
"""Added to the mean square in the norms."""


@jax.custom_vjp
def rms_norm(x: Float[Array, "*batch f"], scale: Float[Array, " f"]) -> Float[Array, "*batch f"]:
    """Computes ``x / rms(x) * scale`` over the last axis, with statistics in fp32."""
    return _rms_forward(x, scale)[0]


def _rms_forward(x: Array, scale: Array) -> tuple[Array, tuple[Array, ...]]:
    wide = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(row_mean(jnp.square(wide)) + EPSILON)
    output = (wide * inverse * _as_row(scale, x.ndim)).astype(x.dtype)
    return output, (x, scale, inverse)


def _rms_backward(saved: tuple[Array, ...], change: Array) -> tuple[Array, Array]:
    x, scale, inverse = saved
    normal = x.astype(jnp.float32) * inverse
    wide = change.astype(jnp.float32)
    d_scale = jnp.sum(wide * normal, axis=tuple(range(x.ndim - 1)))
    inner = wide * _as_row(scale, x.ndim)
    d_x = inverse * (inner - normal * row_mean(inner * normal))
    return d_x.astype(x.dtype), d_scale


rms_norm.defvjp(_rms_forward, _rms_backward)


def _as_row(scale: Array, axes: int) -> Array:
    return jnp.expand_dims(scale, tuple(range(axes - 1)))


@jax.custom_vjp
def modulated_norm(
    x: Float[Array, "b n d"], shift: Float[Array, "b d"], scale: Float[Array, "b d"]
) -> Float[Array, "b n d"]:
    """Computes ``(1 + scale) * layer_norm(x) + shift`` with statistics in fp32.

    The norm has no learned scale or bias of its own.
    """
    return _modulated_forward(x, shift, scale)[0]


def _modulated_forward(x: Array, shift: Array, scale: Array) -> tuple[Array, tuple[Array, ...]]:
    wide = x.astype(jnp.float32)
    mean = row_mean(wide)
    inverse = jax.lax.rsqrt(row_mean(jnp.square(wide - mean)) + EPSILON)
    normal = ((wide - mean) * inverse).astype(x.dtype)
    output = normal * (1 + scale)[:, None, :] + shift[:, None, :]
    return output, (x, scale, mean, inverse)


def _modulated_backward(saved: tuple[Array, ...], change: Array) -> tuple[Array, Array, Array]:
    x, scale, mean, inverse = saved
    normal = (x.astype(jnp.float32) - mean) * inverse
    wide = change.astype(jnp.float32)
    inner = wide * (1 + scale.astype(jnp.float32))[:, None, :]
    d_x = inverse * (inner - row_mean(inner) - normal * row_mean(inner * normal))
    d_scale = jnp.sum(wide * normal, axis=1).astype(scale.dtype)
    return d_x.astype(x.dtype), jnp.sum(wide, axis=1).astype(scale.dtype), d_scale


modulated_norm.defvjp(_modulated_forward, _modulated_backward)


@jax.custom_vjp
def gated_sum(
    x: Float[Array, "b n d"], gate: Float[Array, "b d"], y: Float[Array, "b n d"]
) -> Float[Array, "b n d"]:
    """Computes ``x + gate * y``; the gradient of the gate is summed in fp32."""
    return x + gate[:, None, :] * y


def _gated_forward(x: Array, gate: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
    return gated_sum(x, gate, y), (gate, y)


def _gated_backward(saved: tuple[Array, Array], change: Array) -> tuple[Array, Array, Array]:
    gate, y = saved
    wide = change.astype(jnp.float32)
    d_gate = jnp.sum(wide * y.astype(jnp.float32), axis=1).astype(gate.dtype)
    return change, d_gate, change * gate[:, None, :]


gated_sum.defvjp(_gated_forward, _gated_backward)
