"""3x3 convolutions with fewer multiplications, for CPUs.

Two outputs of a filter with three taps need four multiplications instead of six (Winograd's minimal
filtering; Lavin and Gray 2015, arXiv:1509.09308):

    m0 = (x0 - x2) k0        m1 = (x1 + x2) (k0 + k1 + k2) / 2        y0 = m0 + m1 + m2
    m3 = (x1 - x3) k2        m2 = (x2 - x1) (k0 - k1 + k2) / 2        y1 = m1 - m2 - m3

Along both axes, four outputs need 16 multiplications instead of 36. With channels, these are 16
matrix products over all tiles of two by two outputs. If each cell of the grid is doubled first,
x1 = x2 and m2 vanishes, so nine products remain, and they are computed from the grid before
doubling. The grid is processed in strips that are small enough to stay in the cores' caches. The
rounding error is about three times that of a direct sum.
"""

from __future__ import annotations

import math
import os
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FEWEST_CHANNELS = 128
"""The fewest input and output channels for this method; with fewer, the direct convolution is as
fast."""
STRIP = 2**17
"""The number of grid values in a strip, per core: half a megabyte."""


def conv3x3(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "3 3 c co"],
    bias: Float[Array, " co"],
    *,
    double: bool = False,
) -> Float[Array, "b ho wo co"]:
    """Convolves `x` with `kernel`, padded with zeros; `double` repeats each cell first.

    Float32 on CPUs uses Winograd's method (see the module) where it is faster.
    """
    direct = partial(_direct, double=double)
    if x.dtype != jnp.float32 or min(kernel.shape[2:]) < FEWEST_CHANNELS:
        return direct(x, kernel, bias)
    return jax.lax.platform_dependent(
        x, kernel, bias, cpu=partial(_winograd, double=double), default=direct
    )


def _direct(x: Float[Array, "b h w c"], kernel: Array, bias: Array, *, double: bool) -> Array:
    if double:
        b, h, w, c = x.shape
        x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
        x = x.reshape(b, 2 * h, 2 * w, c)
    y = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y + bias[None, None, None]


def _winograd(x: Float[Array, "b h w c"], kernel: Array, bias: Array, *, double: bool) -> Array:
    """Convolves strip by strip, in tiles of two by two outputs.

    A tile covers two by two cells of `x`, or with `double` one cell.
    """
    batch, height, width, channels = x.shape
    side = 1 if double else 2
    rows, columns = (math.ceil(cells / side) for cells in (height, width))
    strips = math.ceil(height * width * channels / (STRIP * (os.cpu_count() or 1)))
    rows_each = math.ceil(rows / strips)
    strips = math.ceil(rows / rows_each)
    below, right = (side * n + 1 - m for n, m in ((strips * rows_each, height), (columns, width)))
    zero = jnp.where(x[0, 0, 0, 0] > jnp.inf, 1, 0)  # nothing is, but XLA does not know it
    factors = _kernel_factors(_rows_after(kernel, zero), double=double)
    grid = jnp.pad(x, ((0, 0), (1, below), (0, 0), (0, 0)))
    size = (1, side * rows_each + 2, width, channels)

    def add_strip(i: Array, y: Float[Array, "n ty 2 tx 2 co"]) -> Float[Array, "n ty 2 tx 2 co"]:
        image, first = i // strips, i % strips
        part = jax.lax.dynamic_slice(grid, (image, first * side * rows_each, 0, 0), size)[0]
        # Padding the columns here instead of above makes XLA copy the strip, and is a fifth faster.
        part = jnp.pad(part, ((0, 0), (1, right), (0, 0)))
        tiles = _tiles(part, factors, double=double) + bias[None, None, None, None]
        return jax.lax.dynamic_update_index_in_dim(y, tiles, i, 0)

    # With zeros that depend on `x`, XLA does not make the outputs of all convolutions of a network
    # from the same zeros, which it would keep.
    shape = (batch * strips, rows_each, 2, columns, 2, kernel.shape[3])
    y = jnp.full(shape, zero, x.dtype)
    y = jax.lax.fori_loop(0, batch * strips, add_strip, y)
    y = y.reshape(batch, strips * rows_each * 2, columns * 2, -1)
    return y[:, : height * 2 // side, : width * 2 // side]


def _tiles(
    part: Float[Array, "h w c"], factors: list[list[Array]], *, double: bool
) -> Float[Array, "ty 2 tx 2 co"]:
    """Returns the outputs of a strip; `part` has one more cell on every side."""
    side, taps = (1, 3) if double else (2, 4)
    rows, columns = ((cells - 2) // side for cells in part.shape[:2])
    transform = _doubled_inputs if double else _inputs

    def tap(i: int, j: int) -> Float[Array, "ty tx c"]:
        return part[i : i + side * rows : side, j : j + side * columns : side]

    by_column = [transform([tap(i, j) for i in range(taps)]) for j in range(taps)]
    products = [
        [value @ factor for value, factor in zip(transform(list(row)), factors_of, strict=True)]
        for row, factors_of in zip(zip(*by_column, strict=True), factors, strict=True)
    ]
    by_row = [_outputs(list(column)) for column in zip(*products, strict=True)]
    outputs = [_outputs([pair[y] for pair in by_row]) for y in range(2)]
    return jnp.stack([jnp.stack(row, axis=2) for row in outputs], axis=1)


def _inputs(x: list[Array]) -> list[Array]:
    return [x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]]


def _doubled_inputs(x: list[Array]) -> list[Array]:
    """Returns `_inputs` of (x0, x1, x1, x2) without the third value, which is zero."""
    return [x[0] - x[1], 2 * x[1], x[1] - x[2]]


def _outputs(m: list[Array]) -> list[Array]:
    """Combines four products, or three if the third vanishes, into two outputs."""
    first, second, *third, last = m
    y0, y1 = first + second, second - last
    return [y0 + third[0], y1 - third[0]] if third else [y0, y1]


def _rows_after(kernel: Float[Array, "3 3 c co"], zero: Array) -> list[Float[Array, "3 c co"]]:
    """Returns the rows of `kernel`, which XLA can read only when `zero` is known.

    Otherwise it computes the factors of all convolutions of a network first, and keeps them.
    """
    return [jax.lax.dynamic_index_in_dim(kernel, i + zero, keepdims=False) for i in range(3)]


def _kernel_factors(rows: list[Float[Array, "3 c co"]], *, double: bool) -> list[list[Array]]:
    """Returns the factors of the transformed inputs, transformed along rows and columns."""

    def factors(k0: Array, k1: Array, k2: Array) -> list[Array]:
        outer, middle = (k0 + k2) / 2, k1 / 2
        return [k0, outer + middle, *([] if double else [outer - middle]), k2]

    by_row = [factors(*(row[j] for row in rows)) for j in range(3)]
    return [factors(*column) for column in zip(*by_row, strict=True)]
