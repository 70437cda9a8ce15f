"""Deep compression autoencoders (DC-AE: Chen et al. 2024, arXiv:2410.10733), as in diffusers.

The encoder maps an image to latents on a grid that is ``2 ** (levels - 1)`` times coarser, 32 times
with the usual six levels, and the decoder maps them back. Both are deterministic: there is no
posterior to sample from. The finer levels have ResNet blocks, the coarser ones linear attention
over the whole grid (`dc_ae_blocks.py`). Diffusion models are trained on ``z * scaling_factor``.
Activations have the parameters' dtype; norms and attention's sums are computed in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pinxit.arrays import ArrayLike
from pinxit.encoders import weights
from pinxit.encoders.config_fields import naming
from pinxit.encoders.dc_ae_blocks import (
    ACTIVATIONS,
    conv_shapes,
    double,
    halve,
    mean_of_groups,
    norm,
    norm_shapes,
    repeated,
    res_block,
    res_block_shapes,
    vit_block,
    vit_block_shapes,
)
from pinxit.encoders.dc_ae_config import (
    INTERPOLATE,
    RES_BLOCK,
    RMS_NORM,
    UNSHUFFLE,
    AutoencoderDCConfig,
    first_level,
)
from pinxit.encoders.layers import conv, conv3x3_layer
from pinxit.encoders.vae import WEIGHTS, check_grid
from pinxit.encoders.weights import Sharding, StoredTensor, Tree

COUNTER = "num_batches_tracked"
"""A batch norm's number of training steps, which its files have and inference does not use."""


def init_dc_ae(config: AutoencoderDCConfig, key: Array) -> Tree:
    """Initialises float32 parameters."""
    return weights.init_from_shapes(dc_ae_shapes(config), key)


@jax.named_scope("dc_ae_encode")
def encode_images(
    params: Tree, config: AutoencoderDCConfig, images: Float[ArrayLike, "b hi wi 3"]
) -> Float[Array, "b h w c"]:
    """Returns the raw latents of images in [-1, 1]."""
    check_grid(config.downsample, images)
    encoder, layers = params["encoder"], config.encoder_layers_per_block
    unshuffle = config.downsample_block_type == UNSHUFFLE
    x = _as_parameters(encoder, images)
    if first_level(layers) == 0:
        x = conv(encoder["conv_in"], x)
    else:
        x = halve(encoder["conv_in"], x, unshuffle=unshuffle, shortcut=False)
    for level in range(first_level(layers), len(layers)):
        blocks = encoder["down_blocks"][str(level)]
        for i in range(layers[level]):
            x = _block(config, blocks[str(i)], x, side="encoder", level=level)
        if level + 1 < len(layers):
            x = halve(blocks[str(layers[level])], x, unshuffle=unshuffle)
    z = conv3x3_layer(encoder["conv_out"], x)
    return z + mean_of_groups(x, z.shape[-1]) if config.encoder_out_shortcut else z


@jax.named_scope("dc_ae_decode")
def decode_raw(
    params: Tree, config: AutoencoderDCConfig, raw_latents: Float[ArrayLike, "b h w c"]
) -> Float[Array, "b hi wi 3"]:
    """Decodes raw latents to images with values in about [-1, 1], not clipped."""
    decoder, layers = params["decoder"], config.decoder_layers_per_block
    interpolate = config.upsample_block_type == INTERPOLATE
    z = _as_parameters(decoder, raw_latents)
    x = conv3x3_layer(decoder["conv_in"], z)
    if config.decoder_in_shortcut:
        x = x + repeated(z, x.shape[-1])
    for level in reversed(range(first_level(layers), len(layers))):
        blocks = decoder["up_blocks"][str(level)]
        first = 0
        if level + 1 < len(layers):
            x, first = double(blocks["0"], x, interpolate=interpolate), 1
        for i in range(first, first + layers[level]):
            x = _block(config, blocks[str(i)], x, side="decoder", level=level)
    x = ACTIVATIONS[config.decoder_conv_act_fn](norm(decoder["norm_out"], x))
    if first_level(layers) == 0:
        return conv3x3_layer(decoder["conv_out"], x)
    return double(decoder["conv_out"], x, interpolate=interpolate, shortcut=False)


def dc_ae_shapes(config: AutoencoderDCConfig) -> Tree:
    """Returns the tree of parameter shapes."""
    return {"encoder": _encoder_shapes(config), "decoder": _decoder_shapes(config)}


def save_dc_ae(directory: str | Path, params: Tree, config: AutoencoderDCConfig) -> None:
    """Writes a directory that diffusers' ``AutoencoderDC.from_pretrained`` opens."""
    paths = [path for path in weights.flatten(params) if path.endswith(".running_mean")]
    counters = {path.replace("running_mean", COUNTER): np.array(0) for path in paths}
    weights.save_directory(
        directory, config.to_json(), params=params, weights=WEIGHTS, more=counters
    )


def load_dc_ae(
    source: str | Path,
    *,
    subfolder: str = "",
    dtype: str = "float32",
    sharding: Sharding | None = None,
) -> tuple[Tree, AutoencoderDCConfig]:
    """Reads parameters (as `dtype`) and config from a diffusers directory or a Hub repository."""
    config, tensors = open_dc_ae(source, subfolder=subfolder)
    params = weights.from_tensors(
        tensors,
        dc_ae_shapes(config),
        source=source,
        ignore=is_counter,
        dtype=dtype,
        sharding=sharding,
    )
    return params, config


def open_dc_ae(
    source: str | Path, *, subfolder: str = ""
) -> tuple[AutoencoderDCConfig, dict[str, StoredTensor]]:
    """Returns the config and the unread tensors that `load_dc_ae` reads."""
    value, tensors = weights.load_directory(source, subfolder=subfolder, weights=(WEIGHTS,))
    with naming(source, subfolder=subfolder):
        return AutoencoderDCConfig.from_json(value), tensors


def is_counter(name: str) -> bool:
    """Returns whether a tensor counts the batches of batch normalisation, which has no effect."""
    return name.endswith(f".{COUNTER}")


def _block(config: AutoencoderDCConfig, params: Tree, x: Array, *, side: str, level: int) -> Array:
    if getattr(config, f"{side}_block_types")[level] == RES_BLOCK:
        activation = config.decoder_act_fns[level] if side == "decoder" else "silu"
        return res_block(params, x, activation=activation)
    return vit_block(params, x, head_dim=config.attention_head_dim)


def _as_parameters(params: Tree, x: ArrayLike) -> Any:
    return jnp.asarray(x).astype(jax.tree.leaves(params)[0].dtype)


def _encoder_shapes(config: AutoencoderDCConfig) -> Tree:
    widths, layers = config.encoder_block_out_channels, config.encoder_layers_per_block
    part = 4 if config.downsample_block_type == UNSHUFFLE else 1
    first = first_level(layers)
    levels = {}
    for level in range(first, len(widths)):
        blocks = {str(i): _block_shapes(config, "encoder", level) for i in range(layers[level])}
        if level + 1 < len(widths):
            shapes = conv_shapes(3, widths[level], widths[level + 1] // part)
            blocks[str(layers[level])] = {"conv": shapes}
        levels[str(level)] = blocks
    conv_in = conv_shapes(3, config.in_channels, widths[first] // (part if first else 1))
    return {
        "conv_in": {"conv": conv_in} if first else conv_in,
        "down_blocks": levels,
        "conv_out": conv_shapes(3, widths[-1], config.latent_channels),
    }


def _decoder_shapes(config: AutoencoderDCConfig) -> Tree:
    widths, layers = config.decoder_block_out_channels, config.decoder_layers_per_block
    part = 1 if config.upsample_block_type == INTERPOLATE else 4
    first = first_level(layers)
    levels = {}
    for level in range(first, len(widths)):
        blocks = {}
        if level + 1 < len(widths):
            shapes = conv_shapes(3, widths[level + 1], widths[level] * part)
            blocks["0"] = {"conv": shapes}
        for _ in range(layers[level]):
            blocks[str(len(blocks))] = _block_shapes(config, "decoder", level)
        levels[str(level)] = blocks
    conv_out = conv_shapes(3, widths[first], config.in_channels * (part if first else 1))
    return {
        "conv_in": conv_shapes(3, config.latent_channels, widths[-1]),
        "up_blocks": levels,
        "norm_out": norm_shapes(widths[first]),
        "conv_out": {"conv": conv_out} if first else conv_out,
    }


def _block_shapes(config: AutoencoderDCConfig, side: str, level: int) -> Tree:
    width = getattr(config, f"{side}_block_out_channels")[level]
    norm_type = config.decoder_norm_types[level] if side == "decoder" else RMS_NORM
    if getattr(config, f"{side}_block_types")[level] == RES_BLOCK:
        return res_block_shapes(width, norm_type)
    scales = getattr(config, f"{side}_qkv_multiscales")[level]
    head_dim = config.attention_head_dim
    return vit_block_shapes(width, norm_type, head_dim=head_dim, scales=scales)
