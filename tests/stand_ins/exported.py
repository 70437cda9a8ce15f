"""Random models of every kind that export knows, as releases, and what to compare of exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
from tiny_t5 import SIZES, sentencepiece_model, t5_pieces

from pinxit.encoders import t5
from pinxit.encoders.autoencoder import load_autoencoder
from pinxit.encoders.t5 import T5Config
from pinxit.encoders.text_encoder_catalogue import load_text_encoder
from pinxit.model_loading import save_release
from pinxit.models.transformer import TransformerConfig, init_params
from pinxit.pipeline import TextToImage
from pinxit.sampling import Sampling


def t5_folder(root: Path, **sizes: int) -> Path:
    """Writes a minute T5 of version 1.1 with a spiece.model, and returns its folder."""
    config = T5Config(**SIZES | sizes, feed_forward_proj="gated-gelu")
    t5.save_t5(root, t5.init_t5(config, jax.random.key(3)), config)
    (root / "spiece.model").write_bytes(sentencepiece_model(t5_pieces()))
    return root


def random_params(config: TransformerConfig) -> Any:
    """Returns parameters of usual size with nothing at zero, so that every term counts."""
    params = init_params(config, jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [0.05 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, [x + n for x, n in zip(leaves, noise, strict=True)])


def random_release(
    folder: Path,
    *,
    text_encoder: str,
    vae: str,
    caption_cleaning: str = "stock",
    sampling: Sampling | None = None,
    image_size: int = 16,
    text_max_tokens: int | None = None,
    **network: Any,
) -> Path:
    """Writes a release with random parameters, and returns its folder."""
    encoder = load_text_encoder(text_encoder, max_tokens=text_max_tokens)
    autoencoder = load_autoencoder(vae)
    config = TransformerConfig(
        **{"hidden_size": 16, "depth": 2, "num_heads": 2, "modulation_rank": 3} | network,
        in_channels=autoencoder.stats.channels,
        context_dim=encoder.width,
    )
    model = TextToImage(
        random_params(config),
        config,
        text_encoder=encoder,
        autoencoder=autoencoder,
        image_size=image_size,
        sampling=sampling or Sampling(steps=4, guidance_scale=3.0),
        name=folder.name,
    )
    return save_release(
        folder,
        model,
        text_encoder=text_encoder,
        vae=vae,
        caption_cleaning=caption_cleaning,
        text_max_tokens=text_max_tokens,
    )


def files_of(folder: Path) -> dict[str, bytes]:
    """Returns the contents of all files in a folder, by their paths in it."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}
