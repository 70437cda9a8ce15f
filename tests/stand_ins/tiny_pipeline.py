"""A pipeline of a few parameters that draws different pictures for different settings."""

from __future__ import annotations

from pathlib import Path

import jax

from pinxit.encoders.autoencoder import load_autoencoder
from pinxit.encoders.text_encoder_catalogue import load_text_encoder
from pinxit.models.transformer import init_params, preset
from pinxit.pipeline import Sampling, TextToImage


def tiny_pipeline(bundle: Path, *, seed: int = 0, name: str = "toy", steps: int = 2) -> TextToImage:
    """Returns a model with random parameters and the encoders in `bundle`, 16 pixels wide."""
    autoencoder, text_encoder = load_autoencoder(bundle), load_text_encoder(bundle)
    config = preset(
        "debug",
        hidden_size=16,
        depth=1,
        in_channels=autoencoder.stats.channels,
        context_dim=text_encoder.width,
    )
    leaves, tree = jax.tree.flatten(init_params(config, jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    moved = [
        leaf + 0.3 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return TextToImage(
        jax.tree.unflatten(tree, moved),
        config,
        text_encoder=text_encoder,
        autoencoder=autoencoder,
        image_size=16,
        sampling=Sampling(steps=steps, guidance_scale=2.0),
        name=name,
    )
