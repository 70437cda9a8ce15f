"""Depthwise and grouped convolutions: the form for CPUs is that of the library's convolution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.encoders import layers


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_the_sum_is_the_depthwise_convolution(size: int, dtype: str):
    """To rounding: in bfloat16 both round once."""
    x = jax.random.normal(jax.random.key(0), (2, 3, 7, 6)).astype(dtype)
    kernel = jax.random.normal(jax.random.key(1), (size, size, 1, 6))
    ours = layers._depthwise_sum(x, kernel)
    wide = kernel.astype(dtype).astype(jnp.float32)
    expected = layers._depthwise_conv(x.astype(jnp.float32), wide)
    assert ours.dtype == x.dtype and layers._depthwise_conv(x, kernel).dtype == x.dtype
    tolerance = 1e-6 if dtype == "float32" else 2**-8
    difference = np.abs(np.asarray(ours, np.float32) - expected).max()
    assert difference <= tolerance * float(jnp.abs(expected).max())


def test_each_channel_has_its_own_kernel():
    """An image of one lit cell shows the kernel, mirrored, around that cell."""
    x = jnp.zeros((1, 5, 5, 2)).at[0, 2, 2].set(1)
    kernel = jnp.arange(18.0).reshape(3, 3, 1, 2)
    shift = jnp.array([0.0, 100.0])
    y = layers.depthwise({"kernel": kernel, "bias": shift}, x)
    np.testing.assert_array_equal(y[0, 1:4, 1:4], kernel[::-1, ::-1, 0] + shift[None, None])
    assert float(jnp.abs(y[0, 0] - shift[None]).max()) == 0


def test_groups_have_their_own_maps():
    x = jax.random.normal(jax.random.key(0), (1, 2, 3, 6))
    kernel = jax.random.normal(jax.random.key(1), (1, 1, 2, 6))
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=layers.LAYOUT, feature_group_count=3
    )
    ours = layers.grouped_linear({"kernel": kernel}, x, groups=3)
    np.testing.assert_allclose(ours, expected, atol=1e-6)
