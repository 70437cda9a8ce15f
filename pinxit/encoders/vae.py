"""The KL autoencoder of latent diffusion (Rombach et al. 2021, arXiv:2112.10752), as in diffusers.

The encoder maps an image x to a Gaussian over raw latents, q(z | x) = N(mean(x), exp(logvar(x))),
on a grid that is ``2 ** (levels - 1)`` times coarser. The decoder maps z back to x. Both are
convolutional residual networks with group normalisation, and have one attention layer over the
whole grid in the middle. Diffusion models are trained on ``(z - shift_factor) * scaling_factor``
(see `autoencoder.py`). Activations have the parameters' dtype; the moments of norms and the softmax
are computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from pinxit.arrays import ArrayLike
from pinxit.config import UsageError
from pinxit.encoders import weights
from pinxit.encoders.config_fields import finite_positive, known_fields, naming
from pinxit.encoders.layers import conv, conv3x3_layer, linear
from pinxit.encoders.weights import Sharding, StoredTensor, Tree

WEIGHTS = "diffusion_pytorch_model.safetensors"
EPSILON = 1e-6
LOGVAR_RANGE = (-30.0, 20.0)


@dataclass(frozen=True)
class AutoencoderKLConfig:
    """The shape of an autoencoder, with the field names and defaults of diffusers' config.json."""

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (64,)
    """The width of each level, finest first. Each level except the last halves the grid."""
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True
    sample_size: int = 32
    """The side of the training images, for information only."""
    scaling_factor: float = 0.18215
    shift_factor: float = 0.0
    force_upcast: bool = True
    """Whether activations exceed the range of float16. It is stored for other programs: Pinxit
    computes in float32 or bfloat16."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "layers_per_block", "latent_channels"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.block_out_channels:
            raise UsageError("block_out_channels is empty; give one width per level")
        if self.norm_num_groups < 1:
            raise UsageError(f"norm_num_groups is {self.norm_num_groups}; it must be at least 1")
        bad = [w for w in self.block_out_channels if w < 1 or w % self.norm_num_groups]
        if bad:
            raise UsageError(
                f"block_out_channels has {bad}; each width must be a multiple of "
                f"norm_num_groups = {self.norm_num_groups}"
            )
        finite_positive("scaling_factor", self.scaling_factor)
        if not math.isfinite(self.shift_factor):
            raise UsageError(f"shift_factor is {self.shift_factor}; it must be finite")

    @property
    def downsample(self) -> int:
        """The number of image pixels along a side of one latent cell."""
        return 2 ** (len(self.block_out_channels) - 1)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AutoencoderKLConfig:
        """Reads diffusers' config.json; refuses settings that this module does not implement."""
        kind = value.get("_class_name", value.get("model_type", "AutoencoderKL"))
        if kind != "AutoencoderKL":
            raise UsageError(f"config.json describes a {kind!r}; known: AutoencoderKL")
        widths = value.get("block_out_channels", (64,))
        if not isinstance(widths, list | tuple) or any(type(w) is not int for w in widths):
            raise UsageError(f"block_out_channels is {widths!r}; give one width per level")
        levels = len(widths)
        fixed = {
            "act_fn": "silu",
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
        }
        for name, expected in fixed.items():
            actual = value.get(name, expected)
            if (list(actual) if isinstance(actual, list | tuple) else actual) != expected:
                raise UsageError(f"{name} is {actual!r}; only {expected!r} is supported")
        for name in ("latents_mean", "latents_std"):
            if value.get(name) is not None:
                raise UsageError(f"{name} is set; only a scalar scale and shift are supported")
        side = value.get("sample_size")
        if isinstance(side, list | tuple) and side:
            value = {**value, "sample_size": side[0]}
        known = known_fields(cls, value)
        for name in ("in_channels", "out_channels"):
            if known.get(name, 3) != 3:
                raise UsageError(f"{name} is {known[name]}; it must be 3, because images are RGB")
        return cls(**known | {"block_out_channels": tuple(widths)})

    def to_json(self) -> dict[str, Any]:
        """Returns diffusers' config.json for this autoencoder."""
        levels = len(self.block_out_channels)
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            "_class_name": "AutoencoderKL",
            "_diffusers_version": "0.42.1",
            **fields,
            "block_out_channels": list(self.block_out_channels),
            "act_fn": "silu",
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
            "latents_mean": None,
            "latents_std": None,
        }


def init_vae(config: AutoencoderKLConfig, key: Array) -> Tree:
    """Initialises float32 parameters for training from scratch."""
    return weights.init_from_shapes(vae_shapes(config), key)


@jax.named_scope("vae_encode")
def encode_moments(
    params: Tree, config: AutoencoderKLConfig, images: Float[ArrayLike, "b hi wi ci"]
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
    """Returns mean and log-variance of the raw latents of images in [-1, 1]."""
    encoder = params["encoder"]
    check_grid(config.downsample, images)
    x = jnp.asarray(images).astype(encoder["conv_in"]["kernel"].dtype)
    x = conv(encoder["conv_in"], x)
    for level in _numbered(encoder["down_blocks"]):
        for block in _numbered(level["resnets"]):
            x = _resnet(block, config, x)
        if "downsamplers" in level:
            x = conv(level["downsamplers"]["0"]["conv"], x, stride=2, padding=((0, 1), (0, 1)))
    x = _middle(encoder["mid_block"], config, x)
    x = conv(encoder["conv_out"], jax.nn.silu(_group_norm(encoder["conv_norm_out"], config, x)))
    if config.use_quant_conv:
        x = conv(params["quant_conv"], x)
    mean, logvar = jnp.split(x, 2, axis=-1)
    return mean, jnp.clip(logvar, *LOGVAR_RANGE)


@jax.named_scope("vae_decode")
def decode_latents(
    params: Tree, config: AutoencoderKLConfig, raw_latents: Float[ArrayLike, "b h w c"]
) -> Float[Array, "b hi wi co"]:
    """Decodes raw latents to images with values in about [-1, 1], not clipped."""
    decoder = params["decoder"]
    x = jnp.asarray(raw_latents).astype(decoder["conv_in"]["kernel"].dtype)
    if config.use_post_quant_conv:
        x = conv(params["post_quant_conv"], x)
    x = _middle(decoder["mid_block"], config, conv(decoder["conv_in"], x))
    for level in _numbered(decoder["up_blocks"]):
        for block in _numbered(level["resnets"]):
            x = _resnet(block, config, x)
        if "upsamplers" in level:
            x = conv3x3_layer(level["upsamplers"]["0"]["conv"], x, double=True)
    return conv(decoder["conv_out"], jax.nn.silu(_group_norm(decoder["conv_norm_out"], config, x)))


def check_grid(factor: int, images: ArrayLike) -> None:
    """Raises `UsageError` if the images' sides are not a whole number of latent cells."""
    height, width = images.shape[1:3]
    if height % factor or width % factor:
        raise UsageError(
            f"image size {height}x{width} is not divisible by the autoencoder's factor {factor}"
        )


def save_vae(directory: str | Path, params: Tree, config: AutoencoderKLConfig) -> None:
    """Writes a directory that diffusers' ``AutoencoderKL.from_pretrained`` opens."""
    weights.save_directory(directory, config.to_json(), params=params, weights=WEIGHTS)


def load_vae(
    source: str | Path,
    *,
    subfolder: str = "",
    dtype: str = "float32",
    sharding: Sharding | None = None,
) -> tuple[Tree, AutoencoderKLConfig]:
    """Reads parameters (as `dtype`) and config from a diffusers directory or a Hub repository."""
    config, tensors = open_vae(source, subfolder=subfolder)
    params = weights.from_tensors(
        tensors, vae_shapes(config), source=source, dtype=dtype, sharding=sharding
    )
    return params, config


def open_vae(
    source: str | Path, *, subfolder: str = ""
) -> tuple[AutoencoderKLConfig, dict[str, StoredTensor]]:
    """Returns the config and the unread tensors that `load_vae` reads, under today's names."""
    value, tensors = weights.load_directory(source, subfolder=subfolder, weights=(WEIGHTS,))
    with naming(source, subfolder=subfolder):
        config = AutoencoderKLConfig.from_json(value)
    return config, {_modern(name): tensor for name, tensor in tensors.items()}


def vae_shapes(config: AutoencoderKLConfig) -> Tree:
    """Returns the tree of parameter shapes."""
    widths, channels = config.block_out_channels, config.latent_channels
    shapes = {
        "encoder": {
            "conv_in": _conv_shape(3, config.in_channels, widths[0]),
            "down_blocks": _levels(widths, config.layers_per_block, "downsamplers"),
            "mid_block": _middle_shape(config, widths[-1]),
            "conv_norm_out": _norm_shape(widths[-1]),
            "conv_out": _conv_shape(3, widths[-1], 2 * channels),
        },
        "decoder": {
            "conv_in": _conv_shape(3, channels, widths[-1]),
            "mid_block": _middle_shape(config, widths[-1]),
            "up_blocks": _levels(widths[::-1], config.layers_per_block + 1, "upsamplers"),
            "conv_norm_out": _norm_shape(widths[0]),
            "conv_out": _conv_shape(3, widths[0], config.out_channels),
        },
    }
    if config.use_quant_conv:
        shapes["quant_conv"] = _conv_shape(1, 2 * channels, 2 * channels)
    if config.use_post_quant_conv:
        shapes["post_quant_conv"] = _conv_shape(1, channels, channels)
    return shapes


def _levels(widths: tuple[int, ...], layers: int, resampler: str) -> Tree:
    """Returns the shapes of each level; all but the last end in a convolution that resamples."""
    levels = {}
    before = widths[0]
    for i, width in enumerate(widths):
        resnets = {str(j): _resnet_shape(before if j == 0 else width, width) for j in range(layers)}
        levels[str(i)] = {"resnets": resnets}
        if i + 1 < len(widths):
            levels[str(i)][resampler] = {"0": {"conv": _conv_shape(3, width, width)}}
        before = width
    return levels


def _conv_shape(size: int, before: int, after: int) -> Tree:
    return {"kernel": (size, size, before, after), "bias": (after,)}


def _norm_shape(width: int) -> Tree:
    return {"scale": (width,), "bias": (width,)}


def _resnet_shape(before: int, after: int) -> Tree:
    shapes = {
        "norm1": _norm_shape(before),
        "conv1": _conv_shape(3, before, after),
        "norm2": _norm_shape(after),
        "conv2": _conv_shape(3, after, after),
    }
    return shapes if before == after else shapes | {"conv_shortcut": _conv_shape(1, before, after)}


def _middle_shape(config: AutoencoderKLConfig, width: int) -> Tree:
    shapes = {"resnets": {"0": _resnet_shape(width, width), "1": _resnet_shape(width, width)}}
    if not config.mid_block_add_attention:
        return shapes
    linear = {"kernel": (width, width), "bias": (width,)}
    attention = dict.fromkeys(("to_q", "to_k", "to_v"), linear) | {"to_out": {"0": linear}}
    return {"attentions": {"0": attention | {"group_norm": _norm_shape(width)}}, **shapes}


def _middle(params: Tree, config: AutoencoderKLConfig, x: Float[Array, "b h w d"]) -> Array:
    x = _resnet(params["resnets"]["0"], config, x)
    if config.mid_block_add_attention:
        x = x + _attention(params["attentions"]["0"], config, x)
    return _resnet(params["resnets"]["1"], config, x)


def _resnet(params: Tree, config: AutoencoderKLConfig, x: Float[Array, "b h w d"]) -> Array:
    h = conv3x3_layer(params["conv1"], jax.nn.silu(_group_norm(params["norm1"], config, x)))
    h = conv3x3_layer(params["conv2"], jax.nn.silu(_group_norm(params["norm2"], config, h)))
    return h + (conv(params["conv_shortcut"], x) if "conv_shortcut" in params else x)


def _attention(params: Tree, config: AutoencoderKLConfig, x: Float[Array, "b h w d"]) -> Array:
    """Applies attention over the grid with one head, which is as wide as the grid's channels."""
    height, width = x.shape[1:3]
    x = rearrange(_group_norm(params["group_norm"], config, x), "b h w d -> b (h w) 1 d")
    q, k, v = (linear(params[name], x) for name in ("to_q", "to_k", "to_v"))
    x = linear(params["to_out"]["0"], jax.nn.dot_product_attention(q, k, v))
    return rearrange(x, "b (h w) 1 d -> b h w d", h=height, w=width)


def _group_norm(params: Tree, config: AutoencoderKLConfig, x: Float[Array, "b h w d"]) -> Array:
    """Normalises each group of channels of each image, then scales and shifts each channel.

    The moments are computed per channel first, then per group, so that the grid is never reshaped.
    """
    grid = x.astype(jnp.float32)

    def group_mean(values: Float[Array, "b d"]) -> Float[Array, "b 1 1 d"]:
        groups = rearrange(values, "b (g d) -> b g d", g=config.norm_num_groups)
        mean = jnp.broadcast_to(groups.mean(-1, keepdims=True), groups.shape)
        return rearrange(mean, "b g d -> b 1 1 (g d)")

    mean = group_mean(grid.mean((1, 2)))
    variance = group_mean(jnp.square(grid - mean).mean((1, 2)))
    scale = jax.lax.rsqrt(variance + EPSILON) * params["scale"][None, None, None]
    bias = params["bias"][None, None, None] - mean * scale
    return (grid * scale + bias).astype(x.dtype)


def _numbered(blocks: Tree) -> list[Tree]:
    return [blocks[str(i)] for i in range(len(blocks))]


def _modern(name: str) -> str:
    """Converts attention's tensor names in files of 2022 (``query``) to today's (``to_q``)."""
    if ".attentions." not in name:
        return name
    renames = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    for old, new in renames.items():
        name = name.replace(f".{old}.", f".{new}.")
    return name
