"""Autoencoders without weights: their parameters are shapes, so nothing is fetched or computed.

Shapes are all that a compiler needs: `encode` and `decode` can be traced. An autoencoder is found
as `load_autoencoder` finds it: by name, in a directory, or by its repository. The configs of
published repositories are built in, and that of a directory is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from pinxit.arrays import Autoencoder
from pinxit.config import UsageError
from pinxit.encoders import weights
from pinxit.encoders.autoencoder import AUTOENCODERS, HOMES, IdentityAutoencoder, autoencoder_kind
from pinxit.encoders.config_fields import naming
from pinxit.encoders.dc_ae_config import INTERPOLATE, RES_BLOCK, VIT_BLOCK, AutoencoderDCConfig
from pinxit.encoders.vae import AutoencoderKLConfig

SD_VAE = AutoencoderKLConfig(block_out_channels=(128, 256, 512, 512), layers_per_block=2)
"""The autoencoder of Stable Diffusion 1 and 2."""
SDXL_VAE = AutoencoderKLConfig(
    block_out_channels=(128, 256, 512, 512), layers_per_block=2, scaling_factor=0.13025
)
"""The autoencoder of Stable Diffusion XL."""
DC_AE_BLOCKS = (RES_BLOCK,) * 3 + (VIT_BLOCK,) * 3
SANA_DC_AE = AutoencoderDCConfig(
    encoder_block_types=DC_AE_BLOCKS,
    decoder_block_types=DC_AE_BLOCKS,
    downsample_block_type="Conv",
    upsample_block_type=INTERPOLATE,
    scaling_factor=0.41407,
)
"""The deep compression autoencoder of Sana, which PRX has too. Version 1.1 has another decoder."""
PUBLISHED_VAES = {
    "stabilityai/sd-vae-ft-mse": SD_VAE,
    "madebyollin/sdxl-vae-fp16-fix": SDXL_VAE,
    "mit-han-lab/dc-ae-f32c32-sana-1.0-diffusers": SANA_DC_AE,
    "mit-han-lab/dc-ae-f32c32-sana-1.1-diffusers": SANA_DC_AE,
}
"""The configs of published repositories."""


def autoencoder_config(source: str) -> AutoencoderKLConfig | AutoencoderDCConfig | None:
    """Returns the config of the autoencoder that `load_autoencoder` would load.

    Returns None for one that is made by code, such as the identity. Raises `UsageError` for a
    repository that is not well known, because nothing is fetched.
    """
    home = weights.bundled("tiny") if source == "tiny" else HOMES.get(source, source)
    if home == source and source in AUTOENCODERS:
        return None
    if Path(home).is_dir():
        folder = Path(home) / "vae" if (Path(home) / "vae").is_dir() else Path(home)
        value = weights.read_config(folder / "config.json")
        with naming(folder):
            return autoencoder_kind(value).config.from_json(value)
    published = PUBLISHED_VAES.get(str(home).partition("@")[0])
    if published is None:
        valid = f"{', '.join(AUTOENCODERS)}, or a directory with a config.json"
        problem = "neither a known name nor a directory (nothing is fetched here)"
        raise UsageError("vae", source, problem=problem, valid=valid)
    return published


def described_autoencoder(source: str) -> Any:
    """Returns the config of an autoencoder as JSON, or the name of one that is made by code."""
    config = autoencoder_config(source)
    return source if config is None else config.to_json()


def abstract_autoencoder(source: str, *, dtype: str = "float32") -> Autoencoder:
    """Makes the autoencoder that `load_autoencoder` would load, with shapes for parameters."""
    config = autoencoder_config(source)
    if config is not None:
        kind = autoencoder_kind(config.to_json())
        return kind.make(weights.abstract_params(kind.shapes(config), dtype), config)
    if source == "none":
        return IdentityAutoencoder()
    autoencoder = AUTOENCODERS[source](dtype=dtype)
    autoencoder.params = jax.eval_shape(lambda: autoencoder.params)
    return autoencoder
