"""Images to latents and back: an autoencoder of diffusers, or the identity for models of pixels.

``latents = (raw - shift) * scale`` has about unit variance, and ``raw = latents / scale + shift``.
Images are in [-1, 1]. Large images are processed in tiles (`tiling.py`). A KL autoencoder blends
the tiles' posterior means and log-variances first, and draws the sample once, from the blended
posterior. `KINDS` lists the classes of diffusers that can be loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pinxit.arrays import ArrayLike, Autoencoder, LatentStats
from pinxit.config import UsageError
from pinxit.encoders import dc_ae, vae, weights
from pinxit.encoders.config_fields import naming
from pinxit.encoders.dc_ae_config import AutoencoderDCConfig
from pinxit.encoders.tiling import map_tiles
from pinxit.encoders.vae import AutoencoderKLConfig
from pinxit.encoders.weights import Tree

AUTO = "auto"
LARGEST_WHOLE = 128
"""The longest side, in latent cells, of a grid that `AUTO` does not cut into tiles."""
TILE = 96
"""The side of a tile with `AUTO`, in latent cells."""
DC_LARGEST_WHOLE = 1024
"""The longest side, in pixels, that `AUTO` does not cut into tiles with a `DCAutoencoder`."""
DC_TILE = 768
"""The side of a tile with `AUTO` and a `DCAutoencoder`, in pixels."""

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
        vae.check_grid(self.config.downsample, images)

        def moments(images: Float[Array, "b hi wi 3"]) -> Float[Array, "b h w c2"]:
            return jnp.concatenate(vae.encode_moments(params, self.config, images), axis=-1)

        factor = self.stats.downsample
        tile = _tile_side(tile, images, cell=factor, largest=LARGEST_WHOLE, side=TILE)
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
            tile=_tile_side(tile, raw, cell=1, largest=LARGEST_WHOLE, side=TILE),
            overlap=overlap,
            sliced=sliced,
        )
        return images.astype(latents.dtype)


class DCAutoencoder:
    """A deep compression autoencoder (`dc_ae.py`), as `arrays.Autoencoder`.

    Its encoder is deterministic: it has no posterior, and `key` has no effect. `tile`, `overlap`
    and `sliced` are those of `KLAutoencoder`, except that `AUTO` uses tiles of `DC_TILE` pixels if
    a side of the image has more than `DC_LARGEST_WHOLE` pixels. In a tile, the attention of the
    coarser levels sees the tile alone instead of the whole image.
    """

    def __init__(self, params: Tree, config: AutoencoderDCConfig) -> None:
        self.params = params
        self.config = config
        self.stats = LatentStats(
            scale=config.scaling_factor,
            shift=0.0,
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
        """Returns normalised latents, the same with and without a `key`."""
        images = jnp.asarray(images)
        factor = self.stats.downsample
        vae.check_grid(factor, images)
        raw = _in_parts(
            partial(dc_ae.encode_images, params, self.config),
            images,
            inner=factor,
            outer=1,
            tile=self._tile(tile, images, cell=factor),
            overlap=overlap,
            sliced=sliced,
        )
        return raw.astype(images.dtype) * self.stats.scale

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
        images = _in_parts(
            partial(dc_ae.decode_raw, params, self.config),
            latents / self.stats.scale,
            inner=1,
            outer=self.stats.downsample,
            tile=self._tile(tile, latents, cell=1),
            overlap=overlap,
            sliced=sliced,
        )
        return images.astype(latents.dtype)

    def _tile(self, tile: Tile, grid: Array, *, cell: int) -> int | None:
        largest, side = (max(x // self.stats.downsample, 1) for x in (DC_LARGEST_WHOLE, DC_TILE))
        return _tile_side(tile, grid, cell=cell, largest=largest, side=side)


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
    return load_stored_autoencoder(source, dtype=dtype)


def load_stored_autoencoder(source: str | Path, *, dtype: str = "float32") -> Autoencoder:
    """Loads an autoencoder of diffusers from its own directory, or from ``vae/`` of a pipeline."""
    root, subfolder = _find(source)
    with naming(root, subfolder=subfolder):
        kind = autoencoder_kind(weights.read_config(root / subfolder / "config.json"))
    return kind.make(*kind.load(root, subfolder=subfolder, dtype=dtype))


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
        return autoencoder_kind(config).config.from_json(config).downsample


@dataclass(frozen=True)
class AutoencoderKind:
    """A class of diffusers that Pinxit has in JAX."""

    config: Any
    """The class of its config, which has `from_json` and `to_json`."""
    shapes: Callable[[Any], Tree]
    """Returns the shapes of the parameters for a config."""
    open: Callable[..., tuple[Any, dict[str, weights.StoredTensor]]]
    """Returns the config and the unread tensors of a directory."""
    load: Callable[..., tuple[Tree, Any]]
    """Reads parameters and config from a directory."""
    save: Callable[[str | Path, Tree, Any], None]
    """Writes parameters and config as a directory that diffusers opens."""
    make: Callable[[Tree, Any], Autoencoder]
    """Makes the autoencoder from parameters and config."""
    ignored: Callable[[str], bool] = lambda name: False
    """Returns whether the tensor of this name is no parameter."""


KINDS = {
    "AutoencoderKL": AutoencoderKind(
        config=AutoencoderKLConfig,
        shapes=vae.vae_shapes,
        open=vae.open_vae,
        load=vae.load_vae,
        save=vae.save_vae,
        make=KLAutoencoder,
    ),
    "AutoencoderDC": AutoencoderKind(
        config=AutoencoderDCConfig,
        shapes=dc_ae.dc_ae_shapes,
        open=dc_ae.open_dc_ae,
        load=dc_ae.load_dc_ae,
        save=dc_ae.save_dc_ae,
        make=DCAutoencoder,
        ignored=dc_ae.is_counter,
    ),
}
"""The kinds by the ``_class_name`` of their config.json."""


def autoencoder_kind(value: Mapping[str, Any]) -> AutoencoderKind:
    """Returns the kind that a config.json describes; without a class name it is AutoencoderKL."""
    name = value.get("_class_name", value.get("model_type", "AutoencoderKL"))
    if not isinstance(name, str) or name not in KINDS:
        raise UsageError(f"config.json describes a {name!r}; known: {', '.join(KINDS)}")
    return KINDS[name]


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


def _tile_side(
    tile: Tile, grid: Float[Array, "b h w c"], *, cell: int, largest: int, side: int
) -> int | None:
    """Returns the side of a tile in latent cells, or None to process the whole grid.

    A cell is `cell` points of the grid. `AUTO` stands for `side` if the grid has more than
    `largest` cells along a side.
    """
    if not isinstance(tile, str):
        return tile
    if tile != AUTO:
        raise ValueError(f"tile is {tile!r}; known: {AUTO!r}, None, or a number of cells")
    return side if max(grid.shape[1:3]) // cell > largest else None


def _in_parts(
    network: Callable[[Array], Array],
    grid: Float[Array, "b h w c"],
    *,
    inner: int,
    outer: int,
    tile: int | None,
    overlap: int | None,
    sliced: bool,
) -> Float[Array, "b ho wo co"]:
    """Applies `network` to `grid` in tiles, image by image, or all at once.

    A cell is `inner` points of the grid and `outer` points of the result along each side.
    """
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


HOMES = {
    "sd": "stabilityai/sd-vae-ft-mse",
    "sdxl": "madebyollin/sdxl-vae-fp16-fix",
    "dc_ae": "mit-han-lab/dc-ae-f32c32-sana-1.1-diffusers",
}
"""Name to repository."""
AUTOENCODERS: dict[str, Callable[..., Autoencoder]] = {
    "tiny": _tiny,
    **{name: partial(load_stored_autoencoder, home) for name, home in HOMES.items()},
    "none": _identity,
}
"""The autoencoders by name. A directory or a repository id needs no entry."""
