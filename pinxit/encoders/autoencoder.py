"""Images to the latents a model sees, and back: a KL autoencoder, or the identity for pixel models.

``latents = (raw - shift) * scale`` has about unit variance, ``raw = latents / scale + shift``.
Images are in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pinxit.arrays import ArrayLike, Autoencoder, LatentStats
from pinxit.encoders import vae, weights
from pinxit.encoders.vae import AutoencoderKLConfig
from pinxit.encoders.weights import Tree


class KLAutoencoder:
    """The autoencoder of latent diffusion, as `arrays.Autoencoder`."""

    def __init__(self, params: Tree, config: AutoencoderKLConfig) -> None:
        self.params = params
        self.config = config
        self.stats = LatentStats(
            scale=config.scaling_factor,
            shift=config.shift_factor,
            channels=config.latent_channels,
            downsample=config.downsample,
        )

    def encode(
        self, params: Any, images: Float[ArrayLike, "b hi wi 3"], *, key: Array | None = None
    ) -> Float[Array, "b h w c"]:
        """Normalised latents: the posterior's mean, or a sample when `key` is given."""
        raw, logvar = vae.encode_moments(params, self.config, images)
        if key is not None:
            raw = raw + jnp.exp(logvar / 2) * jax.random.normal(key, raw.shape, raw.dtype)
        return (raw - self.stats.shift) * self.stats.scale

    def decode(
        self, params: Any, latents: Float[ArrayLike, "b h w c"]
    ) -> Float[Array, "b hi wi 3"]:
        """Images in about [-1, 1], not clipped."""
        raw = jnp.asarray(latents) / self.stats.scale + self.stats.shift
        return vae.decode(params, self.config, raw)


class IdentityAutoencoder:
    """Pixels are the latents."""

    stats = LatentStats(scale=1.0, shift=0.0, channels=3, downsample=1)

    def __init__(self) -> None:
        self.params: Tree = {}

    def encode(
        self, params: Any, images: Float[ArrayLike, "b hi wi 3"], *, key: Array | None = None
    ) -> Float[Array, "b hi wi 3"]:
        """The images."""
        return jnp.asarray(images)

    def decode(self, params: Any, latents: Float[ArrayLike, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """The latents."""
        return jnp.asarray(latents)


def load_autoencoder(source: str | Path) -> Autoencoder:
    """An autoencoder by name, from a directory, or from a Hub repository (``owner/name``)."""
    if isinstance(source, str) and source in AUTOENCODERS:
        return AUTOENCODERS[source]()
    return load_kl_autoencoder(source)


def load_kl_autoencoder(source: str | Path) -> KLAutoencoder:
    """From a diffusers AutoencoderKL directory, or from a pipeline's that has ``vae/``."""
    files = ("config.json", vae.WEIGHTS)
    allow = [folder + name for folder in ("", "vae/") for name in files]
    root = weights.resolve(source, allow=allow, names=AUTOENCODERS)
    subfolder = "vae" if (root / "vae").is_dir() else ""
    return KLAutoencoder(*vae.load_vae(root, subfolder=subfolder))


AUTOENCODERS: dict[str, Callable[[], Autoencoder]] = {
    "tiny": lambda: load_kl_autoencoder(weights.bundled("tiny")),
    "sd": partial(load_kl_autoencoder, "stabilityai/sd-vae-ft-mse"),
    "none": IdentityAutoencoder,
}
"""Autoencoders by name; a directory or a repository id needs no entry."""
