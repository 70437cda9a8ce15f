"""The products of a linear layer, in forms for which processors have fast programs.

XLA on a CPU computes products of bfloat16 at full speed (AVX512-BF16, AMX) if their result is fp32
and rows of the first factor meet columns of the second. Other products of bfloat16 are computed in
fp32, at half the speed or less. So there, results are fp32 and rounded afterwards, and the factor
whose columns would be needed is transposed first. Other devices choose for themselves. The form is
chosen when a program is compiled for a platform, not by the machine that traces it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

PRODUCT = "product"
"""The name of the results that rematerialisation may keep."""


@jax.custom_vjp
def product(x: Float[Array, "*batch i"], kernel: Float[Array, "i o"]) -> Float[Array, "*batch o"]:
    """Computes ``x @ kernel`` in the dtype of `x`. The kernel and its gradient are fp32.

    The backward pass stores `x` as it is, once for all products of the same array.
    """
    return _forward(x, kernel)[0]


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    output = _contracted(_rows(x), kernel.astype(x.dtype), (1, 0))
    return checkpoint_name(output.reshape(*x.shape[:-1], -1), PRODUCT), (x, kernel)


def _backward(saved: tuple[Array, Array], change: Array) -> tuple[Array, Array]:
    return product_gradients(*saved, change)


def product_gradients(x: Array, kernel: Array, change: Array) -> tuple[Array, Array]:
    """Returns the gradients of `product` for `x` and the kernel; `change` is that of its output."""
    d_x = _contracted(_rows(change), kernel.astype(x.dtype), (1, 1)).reshape(x.shape)
    return d_x, turned_product(_rows(x), _rows(change)).astype(kernel.dtype)


def _rows(x: Float[Array, "*batch i"]) -> Float[Array, "m i"]:
    """Joins all axes but the last. With more, XLA on a CPU copies gradients to transpose them."""
    return x.reshape(-1, x.shape[-1])


product.defvjp(_forward, _backward)


def _contracted(a: Array, b: Array, axes: tuple[int, int]) -> Array:
    """Multiplies and sums over an axis of each factor, and returns the result in their dtype."""
    numbers = (((axes[0],), (axes[1],)), ((), ()))

    def direct(a: Array, b: Array) -> Array:
        return jax.lax.dot_general(a, b, numbers)

    def rounded(a: Array, b: Array) -> Array:
        wide = jax.lax.dot_general(a, b, numbers, preferred_element_type=jnp.float32)
        return wide.astype(a.dtype)

    if a.dtype != jnp.bfloat16:
        return direct(a, b)
    return jax.lax.platform_dependent(a, b, cpu=rounded, default=direct)


def turned_product(
    a: Float[Array, "*batch m i"], b: Float[Array, "*batch m o"]
) -> Float[Array, "*batch i o"]:
    """Computes the transpose of `a` times `b`, in fp32."""
    batch = tuple(range(a.ndim - 2))

    def direct(a: Array, b: Array) -> Array:
        numbers = (((a.ndim - 2,), (a.ndim - 2,)), (batch, batch))
        return jax.lax.dot_general(a, b, numbers, preferred_element_type=jnp.float32)

    def turned(a: Array, b: Array) -> Array:
        numbers = (((a.ndim - 1,), (a.ndim - 2,)), (batch, batch))
        return jax.lax.dot_general(_turned(a), b, numbers, preferred_element_type=jnp.float32)

    if a.dtype != jnp.bfloat16 or a.shape[-2] % 2:
        return direct(a, b)
    return jax.lax.platform_dependent(a, b, cpu=turned, default=direct)


def _turned(a: Float[Array, "*batch m i"]) -> Float[Array, "*batch i m"]:
    """Returns the transpose of a bfloat16 array. In two halves, XLA does not fold it into the
    product that follows, and as integers, it does not convert it to fp32."""
    *batch, rows, columns = a.shape
    bits = jax.lax.bitcast_convert_type(a, jnp.uint16)
    halves = bits.reshape(*batch, 2, rows // 2, columns)
    turned = jnp.moveaxis(halves, -1, -3).reshape(*batch, columns, rows)
    return jax.lax.bitcast_convert_type(turned, a.dtype)
