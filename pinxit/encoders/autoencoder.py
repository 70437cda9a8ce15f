"""Images to the latents a model sees, and back: a KL autoencoder, or the identity for pixel models.

``latents = (raw - shift) * scale`` has about unit variance, ``raw = latents / scale + shift``.
Images are in [-1, 1]. Large images go through in tiles (`tiling.py`); of the posterior the mean and
the logarithm of the variance are blended, and a sample is drawn once from what results.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pinxit.arrays import ArrayLike, Autoencoder, LatentStats
from pinxit.encoders import vae, weights
from pinxit.encoders.tiling import map_tiles
from pinxit.encoders.vae import AutoencoderKLConfig
from pinxit.encoders.weights import Tree

AUTO = "auto"
LARGEST_WHOLE = 128
"""With `AUTO`, a grid with more cells than this along a side is cut into tiles."""
TILE = 96
"""Side of a tile in cells, with `AUTO`."""

Tile = int | Literal["auto"] | None


class KLAutoencoder:
    """The autoencoder of latent diffusion, as `arrays.Autoencoder`.

    Both ways compute in the parameters' type and return the type they are given. `tile` is the side
    of a tile in latent cells, None for the whole grid at once, `AUTO` for tiles of `TILE` where a
    side of the grid has more than `LARGEST_WHOLE` cells; tiles share at least `overlap` cells (a
    quarter of a tile unless given). `sliced` takes the images of a batch one by one; tiles always
    do. Memory is then that of one image or one tile, whatever is asked for.
    """

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
        self,
        params: Any,
        images: Float[ArrayLike, "b hi wi 3"],
        *,
        key: Array | None = None,
        tile: Tile = AUTO,
        overlap: int | None = None,
        sliced: bool = False,
    ) -> Float[Array, "b h w c"]:
        """Normalised latents: the posterior's mean, or a sample when `key` is given."""
        images = jnp.asarray(images)
        vae.check_grid(self.config, images)

        def moments(images: Float[Array, "b hi wi 3"]) -> Float[Array, "b h w c2"]:
            return jnp.concatenate(vae.encode_moments(params, self.config, images), axis=-1)

        factor = self.stats.downsample
        both = _in_parts(
            moments, images, inner=factor, outer=1, tile=tile, overlap=overlap, sliced=sliced
        )
        raw, logvar = jnp.split(both.astype(images.dtype), 2, axis=-1)
        if key is not None:
            raw = raw + jnp.exp(logvar / 2) * jax.random.normal(key, raw.shape, raw.dtype)
        return (raw - self.stats.shift) * self.stats.scale

    def decode(
        self,
        params: Any,
        latents: Float[ArrayLike, "b h w c"],
        *,
        tile: Tile = AUTO,
        overlap: int | None = None,
        sliced: bool = False,
    ) -> Float[Array, "b hi wi 3"]:
        """Images in about [-1, 1], not clipped."""
        latents = jnp.asarray(latents)
        raw = latents / self.stats.scale + self.stats.shift
        images = _in_parts(
            partial(vae.decode_latents, params, self.config),
            raw,
            inner=1,
            outer=self.stats.downsample,
            tile=tile,
            overlap=overlap,
            sliced=sliced,
        )
        return images.astype(latents.dtype)


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


def load_autoencoder(source: str | Path, *, dtype: str = "float32") -> Autoencoder:
    """An autoencoder by name, from a directory, or from a Hub repository.

    A repository is ``owner/name`` or ``owner/name@revision``. Parameters become `dtype`, "float32"
    or "bfloat16".
    """
    if isinstance(source, str) and source in AUTOENCODERS:
        return AUTOENCODERS[source](dtype=dtype)
    return load_kl_autoencoder(source, dtype=dtype)


def load_kl_autoencoder(source: str | Path, *, dtype: str = "float32") -> KLAutoencoder:
    """From a diffusers AutoencoderKL directory, or from a pipeline's that has ``vae/``."""
    root, subfolder = _find(source)
    return KLAutoencoder(*vae.load_vae(root, subfolder=subfolder, dtype=dtype))


def downsample_of(source: str | Path) -> int:
    """Pixels along a side of one latent of `load_autoencoder`'s, from its config; ValueError where
    that or the weights, which are not read, are missing."""
    place = weights.bundled("tiny") if source == "tiny" else HOMES.get(str(source), source)
    if place == source and source in AUTOENCODERS:
        return AUTOENCODERS[str(source)](dtype="float32").stats.downsample
    root, subfolder = _find(place)
    config, _ = weights.load_directory(root, subfolder=subfolder, weights=(vae.WEIGHTS,))
    return AutoencoderKLConfig.from_json(config).downsample


def _find(source: str | Path) -> tuple[Path, str]:
    """The directory of an autoencoder or a pipeline, and the folder in it."""
    allow = weights.fetched((vae.WEIGHTS,), folders=("", "vae"))
    root = weights.resolve(source, allow=allow, names=AUTOENCODERS)
    return root, "vae" if (root / "vae").is_dir() else ""


def _in_parts(
    network: Callable[[Array], Array],
    grid: Float[Array, "b h w c"],
    *,
    inner: int,
    outer: int,
    tile: Tile,
    overlap: int | None,
    sliced: bool,
) -> Float[Array, "b ho wo co"]:
    """`network` of `grid`: in tiles, image by image, or all at once."""
    if isinstance(tile, str):
        if tile != AUTO:
            raise ValueError(f"tile is {tile!r}; known: {AUTO!r}, None, or a number of cells")
        side = max(grid.shape[1:3]) // inner
        tile = TILE if side > LARGEST_WHOLE else None
    if tile is not None:
        overlap = tile // 4 if overlap is None else overlap
        return map_tiles(network, grid, tile=tile, overlap=overlap, inner=inner, outer=outer)
    if sliced:
        return jax.lax.map(lambda image: network(image[None])[0], grid)
    return network(grid)


def _identity(*, dtype: str) -> Autoencoder:
    return IdentityAutoencoder()


def _tiny(*, dtype: str) -> Autoencoder:
    return load_kl_autoencoder(weights.bundled("tiny"), dtype=dtype)


HOMES = {"sd": "stabilityai/sd-vae-ft-mse", "sdxl": "madebyollin/sdxl-vae-fp16-fix"}
"""Name to repository."""
AUTOENCODERS: dict[str, Callable[..., Autoencoder]] = {
    "tiny": _tiny,
    "sd": partial(load_kl_autoencoder, HOMES["sd"]),
    "sdxl": partial(load_kl_autoencoder, HOMES["sdxl"]),
    "none": _identity,
}
"""Autoencoders by name; a directory or a repository id needs no entry."""
