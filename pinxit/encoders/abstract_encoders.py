"""Encoders without their weights: parameters are shapes, so nothing is fetched or computed.

A compiler needs no more than that. The published encoders are known by their names; a directory is
asked for its config.json. Captions cannot be tokenised; `apply` and `encode` can be traced.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from pinxit.arrays import Autoencoder, TextEncoder
from pinxit.config import UsageError
from pinxit.encoders import clip, t5, vae, weights
from pinxit.encoders.autoencoder import IdentityAutoencoder, KLAutoencoder
from pinxit.encoders.clip import text_tower
from pinxit.encoders.clip_config import ClipConfig, ClipTextConfig
from pinxit.encoders.t5 import T5Config
from pinxit.encoders.text import (
    KINDS,
    SUFFIXES,
    T5_MAX_TOKENS,
    ClipTextEncoder,
    JointTextEncoder,
    T5TextEncoder,
)
from pinxit.encoders.vae import AutoencoderKLConfig

CLIP_LARGE = ClipConfig(
    text=ClipTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    ),
    projection_dim=768,
)
"""The text tower of CLIP ViT-L/14."""
T5_XXL = T5Config(
    d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
)
"""The encoder of T5 v1.1 XXL."""
SD_VAE = AutoencoderKLConfig(block_out_channels=(128, 256, 512, 512), layers_per_block=2)
"""The autoencoder of Stable Diffusion 1 and 2."""
SDXL_VAE = AutoencoderKLConfig(
    block_out_channels=(128, 256, 512, 512), layers_per_block=2, scaling_factor=0.13025
)
"""The autoencoder of Stable Diffusion XL."""

TEXT_CONFIGS: dict[str, ClipConfig | T5Config] = {
    "clip": CLIP_LARGE,
    "openai/clip-vit-large-patch14": CLIP_LARGE,
    "t5": T5_XXL,
    "city96/t5-v1_1-xxl-encoder-bf16": T5_XXL,
}
"""By the names of `text.TEXT_ENCODERS`, and of the repositories behind them."""
VAE_CONFIGS = {
    "sd": SD_VAE,
    "stabilityai/sd-vae-ft-mse": SD_VAE,
    "sdxl": SDXL_VAE,
    "madebyollin/sdxl-vae-fp16-fix": SDXL_VAE,
}
"""By the names of `autoencoder.AUTOENCODERS`, and of the repositories behind them."""


def abstract_text_encoder(
    source: str, *, max_tokens: int | None = None, dtype: str = "float32"
) -> TextEncoder:
    """The encoder that `text.load_text_encoder` would load, its parameters shapes of `dtype`.

    `source` is a name, a directory, or two of these joined by ``+``.
    """
    names = [source] if Path(source).is_dir() else source.split("+")
    if len(names) > 2:
        form = "A+B, each a name or a directory"
        raise UsageError("text_encoder", source, problem="not one encoder or two", valid=form)
    parts = [_part(name, max_tokens=max_tokens, dtype=dtype) for name in names]
    return parts[0] if len(parts) == 1 else JointTextEncoder(*parts)


def abstract_autoencoder(source: str, *, dtype: str = "float32") -> Autoencoder:
    """The autoencoder that `load_autoencoder` would load, its parameters shapes of `dtype`."""
    if source == "none":
        return IdentityAutoencoder()
    if source in VAE_CONFIGS:
        config = VAE_CONFIGS[source]
    else:
        root = _directory("vae", source, known=[*VAE_CONFIGS, "tiny", "none"])
        folder = root / "vae" if (root / "vae").is_dir() else root
        config = AutoencoderKLConfig.from_json(weights.read_json(folder / "config.json"))
    return KLAutoencoder(_structs(vae.vae_shapes(config), dtype), config)


def _part(source: str, *, max_tokens: int | None, dtype: str) -> ClipTextEncoder | T5TextEncoder:
    config = TEXT_CONFIGS.get(source) or _text_config(source)
    if isinstance(config, T5Config):
        length = T5_MAX_TOKENS if max_tokens is None else max_tokens
        params = _structs(t5.t5_shapes(config), dtype)
        return T5TextEncoder(None, config, params=params, max_tokens=length)
    length = text_tower(config).max_position_embeddings
    params = _structs(clip.clip_shapes(config), dtype)
    return ClipTextEncoder(None, config, params=params, max_tokens=length)


def _text_config(source: str) -> ClipConfig | T5Config:
    """From the first config.json of a directory that is a CLIP's text tower or a T5's encoder."""
    root = _directory("text_encoder", source, known=[*TEXT_CONFIGS, "tiny"])
    folders = [root / f"text_encoder{suffix}" for suffix in SUFFIXES]
    for folder in [folder for folder in folders if folder.is_dir()] or [root]:
        value = weights.read_json(folder / "config.json")
        kind = KINDS.get(str(value.get("model_type")))
        if kind == "t5":
            return T5Config.from_json(value)
        if kind == "clip":
            whole = ClipConfig.from_json(value)
            return ClipConfig(text=text_tower(whole), projection_dim=whole.projection_dim)
    raise UsageError(
        "text_encoder", source, problem="of an unknown architecture", valid=list(KINDS)
    )


def _directory(field: str, source: str, *, known: list[str]) -> Path:
    root = weights.bundled("tiny") if source == "tiny" else Path(source)
    if not root.is_dir():
        valid = f"{', '.join(known)}, or a directory with a config.json"
        raise UsageError(field, source, problem="not known without its weights", valid=valid)
    return root


def _structs(shapes: weights.Tree, dtype: str) -> weights.Tree:
    flat = weights.flatten(shapes)
    kind: Any = jnp.dtype(dtype)
    return weights.unflatten({p: jax.ShapeDtypeStruct(s, kind) for p, s in flat.items()})
