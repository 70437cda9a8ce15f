"""Autoencoders without weights: their parameters are shapes, so nothing is fetched or computed.

Shapes are all that a compiler needs: `encode` and `decode` can be traced. The configs of published
autoencoders are known by name; for a directory, its config.json is read.
"""

from __future__ import annotations

from pathlib import Path

from pinxit.arrays import Autoencoder
from pinxit.config import UsageError
from pinxit.encoders import vae, weights
from pinxit.encoders.autoencoder import IdentityAutoencoder, KLAutoencoder
from pinxit.encoders.vae import AutoencoderKLConfig

SD_VAE = AutoencoderKLConfig(block_out_channels=(128, 256, 512, 512), layers_per_block=2)
"""The autoencoder of Stable Diffusion 1 and 2."""
SDXL_VAE = AutoencoderKLConfig(
    block_out_channels=(128, 256, 512, 512), layers_per_block=2, scaling_factor=0.13025
)
"""The autoencoder of Stable Diffusion XL."""
VAE_CONFIGS = {
    "sd": SD_VAE,
    "stabilityai/sd-vae-ft-mse": SD_VAE,
    "sdxl": SDXL_VAE,
    "madebyollin/sdxl-vae-fp16-fix": SDXL_VAE,
}
"""The configs by the names in `autoencoder.AUTOENCODERS` and by their repositories."""


def abstract_autoencoder(source: str, *, dtype: str = "float32") -> Autoencoder:
    """Makes the autoencoder that `load_autoencoder` would load, with shapes for parameters."""
    if source == "none":
        return IdentityAutoencoder()
    if source in VAE_CONFIGS:
        config = VAE_CONFIGS[source]
    else:
        root = weights.bundled("tiny") if source == "tiny" else Path(source)
        if not root.is_dir():
            valid = f"{', '.join(VAE_CONFIGS)}, tiny, none, or a directory with a config.json"
            problem = "neither a known name nor a directory (nothing is fetched here)"
            raise UsageError("vae", source, problem=problem, valid=valid)
        folder = root / "vae" if (root / "vae").is_dir() else root
        config = AutoencoderKLConfig.from_json(weights.read_config(folder / "config.json"))
    return KLAutoencoder(weights.abstract_params(vae.vae_shapes(config), dtype), config)
