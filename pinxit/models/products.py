"""The products of a linear layer, in forms for which processors have fast programs.

XLA on a CPU computes products of bfloat16 at full speed (AVX512-BF16, AMX) if their result is fp32
and rows of the first factor meet columns of the second. Other products of bfloat16 are computed in
fp32, at half the speed or less. So there, results are fp32 and rounded afterwards, and the factor
whose columns would be needed is transposed first (`pinxit.models.transposing`). Other devices
choose for themselves.

The axes of samples and tokens are joined, except in the gradients on a TPU. By the compilers, a
TPU v3-8 takes 6 % more time for a step of `large` if its gradients join them, and 6 % more memory
for one of 4,096 images if the forward pass does not. An A100 takes 16 % more memory for one of
1,024 images if gradients do not. The form is chosen when a program is compiled for a platform, not
by the machine that traces it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pinxit.models.transposing import turned_in_memory

PRODUCT = "product"
"""The name of the results that rematerialisation may keep."""


@jax.custom_vjp
def product(x: Float[Array, "*batch i"], kernel: Float[Array, "i o"]) -> Float[Array, "*batch o"]:
    """Computes ``x @ kernel`` in the dtype of `x`. The kernel and its gradient are fp32.

    The backward pass stores `x` as it is, once for all products of the same array.
    """
    return _forward(x, kernel)[0]


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    arrays = _rows(x), kernel.astype(x.dtype)
    output = jax.lax.platform_dependent(*arrays, cpu=_rounded, default=_contracted)
    return checkpoint_name(output.reshape(*x.shape[:-1], -1), PRODUCT), (x, kernel)


def _backward(saved: tuple[Array, Array], change: Array) -> tuple[Array, Array]:
    return product_gradients(*saved, change)


product.defvjp(_forward, _backward)


def product_gradients(x: Array, kernel: Array, change: Array) -> tuple[Array, Array]:
    """Returns the gradients of `product` for `x` and the kernel; `change` is that of its output."""
    arrays = x, kernel.astype(x.dtype), change
    d_x, d_kernel = jax.lax.platform_dependent(
        *arrays, cpu=_rounded_gradients, tpu=_gradients, default=_joined_gradients
    )
    return d_x, d_kernel.astype(kernel.dtype)


def _gradients(x: Array, kernel: Array, change: Array) -> tuple[Array, Array]:
    """Returns both gradients, that of the kernel in fp32."""
    rows = tuple(range(x.ndim - 1))
    numbers = ((rows, rows), ((), ()))
    d_kernel = jax.lax.dot_general(x, change, numbers, preferred_element_type=jnp.float32)
    return _contracted(change, kernel, 1), d_kernel


def _joined_gradients(x: Array, kernel: Array, change: Array) -> tuple[Array, Array]:
    d_x, d_kernel = _gradients(_rows(x), kernel, _rows(change))
    return d_x.reshape(x.shape), d_kernel


def _rounded_gradients(x: Array, kernel: Array, change: Array) -> tuple[Array, Array]:
    rows = _rows(change)
    return _rounded(rows, kernel, 1).reshape(x.shape), turned_product(_rows(x), rows)


def _contracted(
    x: Float[Array, "*batch i"], kernel: Array, axis: int = 0, wide: DTypeLike | None = None
) -> Float[Array, "*batch o"]:
    """Sums over the last axis of `x` and an axis of the kernel."""
    numbers = (((x.ndim - 1,), (axis,)), ((), ()))
    return jax.lax.dot_general(x, kernel, numbers, preferred_element_type=wide)


def _rounded(x: Array, kernel: Array, axis: int = 0) -> Array:
    """Computes `_contracted` as a CPU does it fast. The result is in the dtype of `x`."""
    wide = jnp.float32 if x.dtype == jnp.bfloat16 else None
    return _contracted(x, kernel, axis, wide).astype(x.dtype)


def _rows(x: Float[Array, "*batch i"]) -> Float[Array, "m i"]:
    """Joins all axes but the last. With more, XLA on a CPU copies gradients to transpose them."""
    return x.reshape(-1, x.shape[-1])


def turned_product(
    a: Float[Array, "*batch m i"], b: Float[Array, "*batch m o"]
) -> Float[Array, "*batch i o"]:
    """Computes the transpose of `a` times `b`, in fp32.

    For bfloat16 on a CPU, one of the arrays is transposed first: `a`, or `b` and the result if both
    together are smaller.
    """
    batch = tuple(range(a.ndim - 2))
    rows, inputs, outputs = a.shape[-2], a.shape[-1], b.shape[-1]

    def direct(a: Array, b: Array) -> Array:
        numbers = (((a.ndim - 2,), (a.ndim - 2,)), (batch, batch))
        return jax.lax.dot_general(a, b, numbers, preferred_element_type=jnp.float32)

    def turned(a: Array, b: Array) -> Array:
        numbers = (((a.ndim - 1,), (a.ndim - 2,)), (batch, batch))
        left = turned_in_memory(a)
        return jax.lax.dot_general(left, b, numbers, preferred_element_type=jnp.float32)

    def turned_twice(a: Array, b: Array) -> Array:
        return turned_in_memory(turned(b, a))

    if a.dtype != jnp.bfloat16 or rows % 2:
        return direct(a, b)
    smaller = outputs % 2 == 0 and outputs * (rows + inputs) < rows * inputs
    return jax.lax.platform_dependent(a, b, cpu=turned_twice if smaller else turned, default=direct)
