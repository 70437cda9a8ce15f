"""The Inception v3 of the Frechet inception distance: TensorFlow's inception-2015-12-05, in JAX.

The network is that of Szegedy et al. (arXiv:1512.00567) in the version of 2015 that Heusel et al.
(arXiv:1706.08500) used. It differs from torchvision's: average pooling inside a block leaves out
the zeros of the padding, and the last block pools with the maximum. Tensors have the names of
pytorch-fid's state dict, ``Mixed_5b.branch5x5_2.conv.weight``. The network is described once, by
`LAYERS`, from which both the shapes of its parameters and its function follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pinxit.arrays import ArrayLike
from pinxit.encoders.weights import Tree

WIDTH = 2048
"""The number of features."""
EPSILON = 1e-3
"""The number that is added to the variances of the batch normalisation."""


@dataclass(frozen=True)
class Conv:
    """A convolution without bias, then batch normalisation and a ReLU."""

    name: str
    width: int
    """The number of output channels."""
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    valid: bool = False
    """Whether the input is not padded. Otherwise the output has the size of the input."""


Pool = Literal["average", "maximum", "halve"]
"""A 3 x 3 pooling: with stride 1 and padding ("average", "maximum"), or with the maximum, stride 2
and no padding ("halve")."""
Step = Conv | Pool | tuple[Conv, ...]
"""A step of a branch; the convolutions of a tuple all see the same input, and are concatenated."""


@dataclass(frozen=True)
class Mixed:
    """Branches that see the same input; their outputs are concatenated."""

    name: str
    branches: tuple[tuple[Step, ...], ...]


def _block_a(name: str, pooled: int) -> Mixed:
    return Mixed(
        name,
        (
            (Conv("branch1x1", 64),),
            (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))),
            (
                Conv("branch3x3dbl_1", 64),
                Conv("branch3x3dbl_2", 96, (3, 3)),
                Conv("branch3x3dbl_3", 96, (3, 3)),
            ),
            ("average", Conv("branch_pool", pooled)),
        ),
    )


def _block_b(name: str) -> Mixed:
    return Mixed(
        name,
        (
            (Conv("branch3x3", 384, (3, 3), 2, valid=True),),
            (
                Conv("branch3x3dbl_1", 64),
                Conv("branch3x3dbl_2", 96, (3, 3)),
                Conv("branch3x3dbl_3", 96, (3, 3), 2, valid=True),
            ),
            ("halve",),
        ),
    )


def _block_c(name: str, width: int) -> Mixed:
    return Mixed(
        name,
        (
            (Conv("branch1x1", 192),),
            (
                Conv("branch7x7_1", width),
                Conv("branch7x7_2", width, (1, 7)),
                Conv("branch7x7_3", 192, (7, 1)),
            ),
            (
                Conv("branch7x7dbl_1", width),
                Conv("branch7x7dbl_2", width, (7, 1)),
                Conv("branch7x7dbl_3", width, (1, 7)),
                Conv("branch7x7dbl_4", width, (7, 1)),
                Conv("branch7x7dbl_5", 192, (1, 7)),
            ),
            ("average", Conv("branch_pool", 192)),
        ),
    )


def _block_d(name: str) -> Mixed:
    return Mixed(
        name,
        (
            (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), 2, valid=True)),
            (
                Conv("branch7x7x3_1", 192),
                Conv("branch7x7x3_2", 192, (1, 7)),
                Conv("branch7x7x3_3", 192, (7, 1)),
                Conv("branch7x7x3_4", 192, (3, 3), 2, valid=True),
            ),
            ("halve",),
        ),
    )


def _block_e(name: str, pool: Pool) -> Mixed:
    def crossed(prefix: str) -> tuple[Conv, ...]:
        return Conv(f"{prefix}a", 384, (1, 3)), Conv(f"{prefix}b", 384, (3, 1))

    return Mixed(
        name,
        (
            (Conv("branch1x1", 320),),
            (Conv("branch3x3_1", 384), crossed("branch3x3_2")),
            (
                Conv("branch3x3dbl_1", 448),
                Conv("branch3x3dbl_2", 384, (3, 3)),
                crossed("branch3x3dbl_3"),
            ),
            (pool, Conv("branch_pool", 192)),
        ),
    )


LAYERS: tuple[Conv | Pool | Mixed, ...] = (
    Conv("Conv2d_1a_3x3", 32, (3, 3), 2, valid=True),
    Conv("Conv2d_2a_3x3", 32, (3, 3), valid=True),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    "halve",
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, (3, 3), valid=True),
    "halve",
    _block_a("Mixed_5b", 32),
    _block_a("Mixed_5c", 64),
    _block_a("Mixed_5d", 64),
    _block_b("Mixed_6a"),
    _block_c("Mixed_6b", 128),
    _block_c("Mixed_6c", 160),
    _block_c("Mixed_6d", 160),
    _block_c("Mixed_6e", 192),
    _block_d("Mixed_7a"),
    _block_e("Mixed_7b", "average"),
    _block_e("Mixed_7c", "maximum"),
)
"""The network from the picture to the last grid of 8 x 8 cells, whose mean is the features."""


def inception_shapes() -> Tree:
    """Returns the tree of parameter shapes, without the classifier, which features do not need."""
    shapes: Tree = {}
    width = 3
    for layer in LAYERS:
        if isinstance(layer, Conv):
            shapes[layer.name], width = _conv_shape(layer, width), layer.width
        elif isinstance(layer, Mixed):
            shapes[layer.name] = {}
            widths = [
                _branch_shapes(branch, width, shapes[layer.name]) for branch in layer.branches
            ]
            width = sum(widths)
    return shapes


def _conv_shape(conv: Conv, width: int) -> Tree:
    vectors = ("scale", "bias", "running_mean", "running_var")
    return {
        "conv": {"kernel": (*conv.kernel, width, conv.width)},
        "bn": {name: (conv.width,) for name in vectors},
    }


def _branch_shapes(branch: tuple[Step, ...], width: int, shapes: Tree) -> int:
    """Adds the shapes of a branch to those of its block, and returns its output's width."""
    for step in branch:
        if isinstance(step, str):
            continue
        parallel = (step,) if isinstance(step, Conv) else step
        for conv in parallel:
            shapes[conv.name] = _conv_shape(conv, width)
        width = sum(conv.width for conv in parallel)
    return width


def folded(params: Tree) -> Tree:
    """Returns a kernel and a bias for each convolution, with its normalisation multiplied in.

    The product is computed in float64.
    """
    if "conv" not in params:
        return {name: folded(inner) for name, inner in params.items()}
    values = {name: np.asarray(value, np.float64) for name, value in params["bn"].items()}
    factor = values["scale"] / np.sqrt(values["running_var"] + EPSILON)
    kernel = np.asarray(params["conv"]["kernel"], np.float64) * factor[None, None, None]
    bias = values["bias"] - values["running_mean"] * factor
    return {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}


def inception_features(
    params: Mapping[str, Any], pixels: Float[ArrayLike, "b h w 3"]
) -> Float[Array, "b d"]:
    """Returns the 2048 pooled features of pictures in [0, 255], with parameters from `folded`.

    The network is fully convolutional: pictures need not have 299 pixels, but all published
    figures are for that size.
    """
    with jax.default_matmul_precision("highest"):
        x = (jnp.asarray(pixels, jnp.float32) - 128) / 128
        for layer in LAYERS:
            if isinstance(layer, Mixed):
                outputs = [_branch(params[layer.name], branch, x) for branch in layer.branches]
                x = jnp.concatenate(outputs, axis=-1)
            else:
                x = _step(params, layer, x)
        return x.mean(axis=(1, 2))


def _branch(params: Mapping[str, Any], branch: tuple[Step, ...], x: Array) -> Array:
    for step in branch:
        x = _step(params, step, x)
    return x


def _step(params: Mapping[str, Any], step: Step, x: Float[Array, "b h w c"]) -> Array:
    if isinstance(step, Conv):
        return _conv(params[step.name], step, x)
    if isinstance(step, tuple):
        return jnp.concatenate([_conv(params[conv.name], conv, x) for conv in step], axis=-1)
    return pool3x3(x, step)


def _conv(params: Mapping[str, Array], conv: Conv, x: Array) -> Array:
    y = jax.lax.conv_general_dilated(
        x,
        params["kernel"],
        (conv.stride, conv.stride),
        "VALID" if conv.valid else "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return jax.nn.relu(y + params["bias"][None, None, None])


def pool3x3(x: Float[Array, "b h w c"], pool: Pool) -> Float[Array, "b ho wo c"]:
    """Pools windows of 3 x 3 cells. A mean is over the cells of the window inside the grid."""
    window, once = (1, 3, 3, 1), (1, 1, 1, 1)
    if pool == "halve":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, 2, 2, 1), "VALID")
    if pool == "maximum":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, once, "SAME")
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    total, count = (
        jax.lax.reduce_window(y, 0.0, jax.lax.add, window, once, "SAME") for y in (x, ones)
    )
    return total / count
