"""Convolutions and linear maps of the autoencoders, on grids whose last axis is the channels.

``params`` is ``{"kernel": ..., "bias": ...}`` in the layout of `weights.py`; the bias may be
absent. Parameters are converted to the dtype of the activations.

In a depthwise convolution each channel has its own kernel K,

    y[i, j] = sum_uv K[u, v] x[i + u, j + v],

and on CPUs this sum over the kernel's few cells is computed as it is written: XLA makes one loop of
it. Other devices use the convolution of their library.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pinxit.encoders import winograd
from pinxit.encoders.weights import Tree

LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv(
    params: Tree, x: Float[Array, "b h w d"], *, stride: int = 1, padding: Any = "SAME"
) -> Float[Array, "b ho wo e"]:
    """Convolves with a kernel of any size."""
    kernel = params["kernel"].astype(x.dtype)
    y = jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT)
    return y + bias(params, x)


def conv3x3_layer(
    params: Tree, x: Float[Array, "b h w d"], *, double: bool = False
) -> Float[Array, "b ho wo e"]:
    """Convolves with a kernel of 3x3, padded with zeros; `double` repeats each cell first."""
    kernel = params["kernel"].astype(x.dtype)
    if "bias" in params:
        shift = params["bias"].astype(x.dtype)
    else:
        shift = jnp.zeros(kernel.shape[-1], x.dtype)
    return winograd.conv3x3(x, kernel, shift, double=double)


def linear(params: Tree, x: Float[Array, "... d"]) -> Float[Array, "... e"]:
    """Applies a linear map to the channels; a kernel of 1x1 is one too."""
    kernel = params["kernel"].astype(x.dtype)
    return x @ kernel.reshape(kernel.shape[-2:]) + bias(params, x)


def grouped_linear(params: Tree, x: Float[Array, "... d"], *, groups: int) -> Float[Array, "... d"]:
    """Applies to each of `groups` equal parts of the channels a linear map of its own."""
    kernel = params["kernel"].astype(x.dtype)
    kernel = kernel.reshape(kernel.shape[-2], groups, -1)
    parts = x.reshape(*x.shape[:-1], groups, -1)
    return jnp.einsum("...gi,igo->...go", parts, kernel).reshape(x.shape) + bias(params, x)


def depthwise(params: Tree, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
    """Convolves each channel with its own kernel of odd size, padded with zeros."""
    kernel = params["kernel"]
    y = jax.lax.platform_dependent(x, kernel, cpu=_depthwise_sum, default=_depthwise_conv)
    return y + bias(params, x)


def bias(params: Tree, x: Float[Array, "... d"]) -> Array:
    """Returns the bias in the rank of `x`, or 0 if there is none."""
    if "bias" not in params:
        return jnp.zeros((1,) * x.ndim, x.dtype)
    return jnp.expand_dims(params["bias"].astype(x.dtype), tuple(range(x.ndim - 1)))


def _depthwise_sum(
    x: Float[Array, "b h w d"], kernel: Float[Array, "k k 1 d"]
) -> Float[Array, "b h w d"]:
    """Adds the shifted grids in float32."""
    size, (height, width) = kernel.shape[0], x.shape[1:3]
    edge = (size // 2, size // 2)
    grid = jnp.pad(x, ((0, 0), edge, edge, (0, 0))).astype(jnp.float32)
    weights = kernel.astype(x.dtype).astype(jnp.float32)
    total = jnp.zeros(x.shape, jnp.float32)
    for i in range(size):
        for j in range(size):
            total += grid[:, i : i + height, j : j + width] * weights[i, j][None, None]
    return total.astype(x.dtype)


def _depthwise_conv(
    x: Float[Array, "b h w d"], kernel: Float[Array, "k k 1 d"]
) -> Float[Array, "b h w d"]:
    return jax.lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (1, 1),
        "SAME",
        dimension_numbers=LAYOUT,
        feature_group_count=x.shape[-1],
    )
