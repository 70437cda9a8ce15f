"""Images to latents and back: a KL autoencoder, or the identity for models of pixels.

``latents = (raw - shift) * scale`` has about unit variance, and ``raw = latents / scale + shift``.
Images are in [-1, 1]. Large images are processed in tiles (`tiling.py`): the tiles' posterior means
and log-variances are blended first, and the sample is drawn once, from the blended posterior.
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
from pinxit.encoders.config_fields import naming
from pinxit.encoders.tiling import map_tiles
from pinxit.encoders.vae import AutoencoderKLConfig
from pinxit.encoders.weights import Tree

AUTO = "auto"
LARGEST_WHOLE = 128
"""The longest side, in latent cells, of a grid that `AUTO` does not cut into tiles."""
TILE = 96
"""The side of a tile with `AUTO`, in latent cells."""

Tile = int | Literal["auto"] | None


class KLAutoencoder:
    """The autoencoder of latent diffusion, as `arrays.Autoencoder`.

    `encode` and `decode` compute in the dtype of the parameters and return the dtype of their
    input. `tile` is the side of a tile in latent cells. None processes the whole grid at once, and
    `AUTO` uses tiles of `TILE` cells if a side of the grid has more than `LARGEST_WHOLE` cells.
    Neighbouring tiles share at least `overlap` cells (by default a quarter of a tile). `sliced`
    processes the images of a batch one by one, as tiles always do. The memory needed is then that
    of one image or one tile, whatever the size of the batch.
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
        """Returns normalised latents: the posterior's mean, or with a `key` a sample from it."""
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
        """Returns images with values in about [-1, 1], not clipped."""
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
    """An autoencoder whose latents are the pixels, for models of pixels."""

    stats = LatentStats(scale=1.0, shift=0.0, channels=3, downsample=1)

    def __init__(self) -> None:
        self.params: Tree = {}

    def encode(
        self, params: Any, images: Float[ArrayLike, "b hi wi 3"], *, key: Array | None = None
    ) -> Float[Array, "b hi wi 3"]:
        """Returns the images as they are."""
        return jnp.asarray(images)

    def decode(self, params: Any, latents: Float[ArrayLike, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Returns the latents as they are."""
        return jnp.asarray(latents)


def load_autoencoder(source: str | Path, *, dtype: str = "float32") -> Autoencoder:
    """Loads an autoencoder by name, from a directory, or from a Hub repository.

    A repository is ``owner/name`` or ``owner/name@revision``. Parameters are converted to `dtype`,
    "float32" or "bfloat16".
    """
    if isinstance(source, str) and source in AUTOENCODERS:
        return AUTOENCODERS[source](dtype=dtype)
    return load_kl_autoencoder(source, dtype=dtype)


def load_kl_autoencoder(source: str | Path, *, dtype: str = "float32") -> KLAutoencoder:
    """Loads a diffusers AutoencoderKL from its own directory, or from ``vae/`` of a pipeline."""
    root, subfolder = _find(source)
    return KLAutoencoder(*vae.load_vae(root, subfolder=subfolder, dtype=dtype))


def downsample_of(source: str | Path) -> int:
    """Returns how many pixels the side of one latent cell spans, from the autoencoder's config.

    Raises ValueError if the config or the weights are missing. The weights are not read.
    """
    location = find_autoencoder(source)
    if location is None:
        return AUTOENCODERS[str(source)](dtype="float32").stats.downsample
    root, subfolder = location
    config, _ = weights.load_directory(root, subfolder=subfolder, weights=(vae.WEIGHTS,))
    with naming(root, subfolder=subfolder):
        return AutoencoderKLConfig.from_json(config).downsample


def find_autoencoder(source: str | Path) -> tuple[Path, str] | None:
    """Returns the directory of an autoencoder and its folder in there, or None if code makes it.

    ``none``, the autoencoder of pixel models, is made by code too.
    """
    home = weights.bundled("tiny") if source == "tiny" else HOMES.get(str(source), source)
    if home == source and source in AUTOENCODERS:
        return None
    return _find(home)


def _find(source: str | Path) -> tuple[Path, str]:
    """Returns the directory of an autoencoder or a pipeline, and the autoencoder's folder in it."""
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
    """Applies `network` to `grid` in tiles, image by image, or all at once.

    A cell is `inner` points of the grid and `outer` points of the result along each side.
    """
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
"""The autoencoders by name. A directory or a repository id needs no entry."""
