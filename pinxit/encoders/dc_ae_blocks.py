"""The blocks of deep compression autoencoders, and the shapes of their parameters.

A block is a function of the grid that keeps its shape. Each ends in a norm and adds its input:

- a ResNet block: two convolutions;
- a block with attention (EfficientViT: Cai et al. 2022, arXiv:2205.14756): attention over the whole
  grid, then a gated convolution (GLUMBConv).

With queries q, keys k and values v of one head, after a ReLU on q and k, and cells i, j, attention
is

    y_i = sum_j (q_i . k_j) v_j / sum_j (q_i . k_j).

Summing k_j v_j over the grid first makes its cost linear in the number of cells. Only a grid of at
most as many cells as a head is wide computes the products q_i . k_j, as diffusers does. Both forms
divide in float32, and the linear one also sums in it. Besides the heads that see q, k and v there
are as many for each entry of ``qkv_multiscales``, whose q, k and v are those convolved.

A grid is halved by moving each square of 2x2 cells into the channels (pixel unshuffle) or by a
convolution of stride 2, and doubled by the inverse or by repeating cells. A shortcut without
parameters goes around either: it moves cells into channels and averages neighbouring channels, or
repeats channels and moves them into cells ("residual autoencoding", Chen et al. 2024,
arXiv:2410.10733).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from pinxit.encoders.dc_ae_config import BATCH_NORM
from pinxit.encoders.layers import conv, conv3x3_layer, depthwise, grouped_linear, linear
from pinxit.encoders.weights import Tree

NORM_EPSILON = 1e-5
ATTENTION_EPSILON = 1e-15
EXPANSION = 4
"""The inner width of a gated convolution, as a multiple of its input's width."""
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "mish": jax.nn.mish,
}


def res_block(params: Tree, x: Float[Array, "b h w d"], *, activation: str) -> Array:
    """Applies a ResNet block."""
    h = conv3x3_layer(params["conv2"], ACTIVATIONS[activation](conv3x3_layer(params["conv1"], x)))
    return norm(params["norm"], h) + x


def vit_block(params: Tree, x: Float[Array, "b h w d"], *, head_dim: int) -> Array:
    """Applies attention and a gated convolution, each with its norm and shortcut."""
    attention = params["attn"]
    x = norm(attention["norm_out"], _attention(attention, x, head_dim=head_dim)) + x
    gated = params["conv_out"]
    h = depthwise(gated["conv_depth"], jax.nn.silu(linear(gated["conv_inverted"], x)))
    h, gate = jnp.split(h, 2, axis=-1)
    return norm(gated["norm"], linear(gated["conv_point"], h * jax.nn.silu(gate))) + x


def halve(
    params: Tree, x: Float[Array, "b h w d"], *, unshuffle: bool, shortcut: bool = True
) -> Float[Array, "b h2 w2 e"]:
    """Returns a grid with half as many cells along each side, which must be even."""
    if unshuffle:
        y = pixel_unshuffle(conv3x3_layer(params["conv"], x))
    else:
        y = conv(params["conv"], x, stride=2, padding=((1, 1), (1, 1)))
    return y + mean_of_groups(pixel_unshuffle(x), y.shape[-1]) if shortcut else y


def double(
    params: Tree, x: Float[Array, "b h w d"], *, interpolate: bool, shortcut: bool = True
) -> Float[Array, "b h2 w2 e"]:
    """Returns a grid with twice as many cells along each side."""
    y = conv3x3_layer(params["conv"], x, double=interpolate)
    if not interpolate:
        y = pixel_shuffle(y)
    return y + pixel_shuffle(repeated(x, 4 * y.shape[-1])) if shortcut else y


def norm(params: Tree, x: Float[Array, "b h w d"]) -> Array:
    """Normalises channels in float32: by their root mean square, or by stored moments.

    Norms with a ``running_mean`` are batch norms. They use the moments that training has recorded.
    """
    grid = x.astype(jnp.float32)
    wide = {name: value.astype(jnp.float32)[None, None, None] for name, value in params.items()}
    if "running_mean" in params:
        grid = grid - wide["running_mean"]
        grid = grid * jax.lax.rsqrt(wide["running_var"] + NORM_EPSILON)
    else:
        grid = grid * jax.lax.rsqrt(jnp.square(grid).mean(-1, keepdims=True) + NORM_EPSILON)
    return (grid * wide["scale"] + wide["bias"]).astype(x.dtype)


def pixel_unshuffle(x: Float[Array, "b h w d"]) -> Float[Array, "b h2 w2 d4"]:
    """Moves the four cells of each square into the channels, next to each other."""
    return rearrange(x, "b (h i) (w j) d -> b h w (d i j)", i=2, j=2)


def pixel_shuffle(x: Float[Array, "b h w d4"]) -> Float[Array, "b h2 w2 d"]:
    """Moves every four channels into a square of cells; the inverse of `pixel_unshuffle`."""
    return rearrange(x, "b h w (d i j) -> b (h i) (w j) d", i=2, j=2)


def mean_of_groups(x: Float[Array, "b h w d"], width: int) -> Float[Array, "b h w e"]:
    """Averages neighbouring channels, so that `width` remain."""
    return rearrange(x, "b h w (e g) -> b h w e g", e=width).mean(-1)


def repeated(x: Float[Array, "b h w d"], width: int) -> Float[Array, "b h w e"]:
    """Repeats each channel beside itself, so that there are `width`."""
    return jnp.repeat(x, width // x.shape[-1], axis=-1)


def _attention(params: Tree, x: Float[Array, "b h w d"], *, head_dim: int) -> Array:
    height, width = x.shape[1:3]
    qkv = jnp.concatenate([linear(params[name], x) for name in ("to_q", "to_k", "to_v")], axis=-1)
    scales = params.get("to_qkv_multiscale", {})
    heads = qkv.shape[-1] // head_dim  # three for each head
    parts = [qkv]
    for i in range(len(scales)):
        spread = depthwise(scales[str(i)]["proj_in"], qkv)
        parts.append(grouped_linear(scales[str(i)]["proj_out"], spread, groups=heads))
    qkv = jnp.concatenate(parts, axis=-1)
    # Like diffusers, this takes three consecutive parts as q, k and v of one head.
    q, k, v = rearrange(qkv, "b h w (g s f) -> s b (h w) g f", s=3, f=head_dim)
    attend = _linear_attention if height * width > head_dim else _quadratic_attention
    y = attend(jax.nn.relu(q), jax.nn.relu(k), v).astype(x.dtype)
    return linear(params["to_out"], rearrange(y, "b (h w) g f -> b h w (g f)", h=height))


def _linear_attention(
    q: Float[Array, "b n g f"], k: Float[Array, "b n g f"], v: Float[Array, "b n g f"]
) -> Float[Array, "b n g f"]:
    q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
    exact = jax.lax.Precision.HIGHEST
    summed = jnp.einsum("bngk,bngv->bgkv", k, v, precision=exact)
    y = jnp.einsum("bngk,bgkv->bngv", q, summed, precision=exact)
    total = jnp.einsum("bngk,bgk->bng", q, k.sum(1), precision=exact)
    return y / (total[..., None] + ATTENTION_EPSILON)


def _quadratic_attention(
    q: Float[Array, "b n g f"], k: Float[Array, "b n g f"], v: Float[Array, "b n g f"]
) -> Float[Array, "b n g f"]:
    products = jnp.einsum("bigf,bjgf->bgij", q, k).astype(jnp.float32)
    products = products / (products.sum(-1, keepdims=True) + ATTENTION_EPSILON)
    return jnp.einsum("bgij,bjgf->bigf", products.astype(v.dtype), v)


def res_block_shapes(width: int, norm_type: str) -> Tree:
    """Returns the shapes of a ResNet block's parameters."""
    return {
        "conv1": conv_shapes(3, width, width),
        "conv2": conv_shapes(3, width, width, bias=False),
        "norm": norm_shapes(width, norm_type),
    }


def vit_block_shapes(width: int, norm_type: str, *, head_dim: int, scales: tuple[int, ...]) -> Tree:
    """Returns the shapes of the parameters of a block with attention."""
    inner = width // head_dim * head_dim
    project = {"kernel": (width, inner)}
    multiscale = {
        str(i): {
            "proj_in": {"kernel": (size, size, 1, 3 * inner)},
            "proj_out": {"kernel": (1, 1, head_dim, 3 * inner)},
        }
        for i, size in enumerate(scales)
    }
    hidden = EXPANSION * width
    return {
        "attn": {
            **dict.fromkeys(("to_q", "to_k", "to_v"), project),
            "to_qkv_multiscale": multiscale,
            "to_out": {"kernel": (inner * (1 + len(scales)), width)},
            "norm_out": norm_shapes(width, norm_type),
        },
        "conv_out": {
            "conv_inverted": conv_shapes(1, width, 2 * hidden),
            "conv_depth": {"kernel": (3, 3, 1, 2 * hidden), "bias": (2 * hidden,)},
            "conv_point": conv_shapes(1, hidden, width, bias=False),
            "norm": norm_shapes(width),
        },
    }


def conv_shapes(size: int, before: int, after: int, *, bias: bool = True) -> Tree:
    """Returns the shapes of a convolution's parameters."""
    kernel = {"kernel": (size, size, before, after)}
    return kernel | {"bias": (after,)} if bias else kernel


def norm_shapes(width: int, norm_type: str = "") -> Tree:
    """Returns the shapes of a norm's parameters."""
    shapes = {"scale": (width,), "bias": (width,)}
    if norm_type == BATCH_NORM:
        return shapes | {"running_mean": (width,), "running_var": (width,)}
    return shapes
