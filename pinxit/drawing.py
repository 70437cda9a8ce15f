"""The programs that draw pictures: noise, the guided solver, and decoding.

Each runs on one device, or on every device of a mesh with its own rows (see `on_each`). A program
is compiled for each shape, number of steps, solver and form of guidance. Prompts, seeds, times and
the numbers of the guidance are its arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt, UInt8
from PIL import Image

from pinxit.arrays import (
    ArrayLike,
    Autoencoder,
    Conditioning,
    TextEncoder,
    VelocityFn,
    pytree,
    to_pixels,
    to_uint8,
)
from pinxit.devices.each_device import copied, on_each
from pinxit.flow.guidance import GuidanceForm, guided
from pinxit.flow.known_region import known_motion, with_known_region
from pinxit.flow.path import interpolate
from pinxit.flow.solvers import get_solver
from pinxit.models.transformer import TransformerConfig, apply


def one_by_one() -> bool:
    """Returns whether each picture and text is computed alone: on a CPU, where batches gain little.

    Results then cannot depend on the number of pictures that are requested together.
    """
    return jax.default_backend() == "cpu"


@pytree
@dataclass(frozen=True)
class SourceLatents:
    """The latents of a source image, which all pictures of a call start from."""

    latents: Float[ArrayLike, "h w c"]
    mask: Float[ArrayLike, "h w 1"] | None = None
    """0 where the source is kept, 1 where it is repainted; None repaints everything."""


@functools.partial(jax.jit, static_argnames=("shape", "mesh"))
def noise_of(
    seeds: UInt[ArrayLike, " b"], *, shape: tuple[int, int, int], mesh: Mesh | None = None
) -> Float[Array, "b h w c"]:
    """Returns the noise of each seed."""

    def sample(seeds: UInt[Array, " b"]) -> Float[Array, "b h w c"]:
        return jax.vmap(lambda seed: jax.random.normal(jax.random.key(seed), shape))(seeds)

    return on_each(sample, mesh, shared=0)(seeds)


@functools.partial(jax.jit, static_argnames=("mesh",))
def noised(
    time: Float[ArrayLike, " 1"],
    latents: Float[ArrayLike, "h w c"],
    noise: Float[Array, "b h w c"],
    *,
    mesh: Mesh | None = None,
) -> Float[Array, "b h w c"]:
    """Returns the points at one time of the paths from the latents to each row of noise.

    It is a program of its own, which drawing step by step shares: as a part of another program, the
    compiler may round it differently.
    """

    def points(time: Array, latents: Array, noise: Array) -> Array:
        latents = jnp.broadcast_to(latents, noise.shape)
        return interpolate(latents, noise, jnp.repeat(time, len(noise)))

    return on_each(points, mesh, shared=2)(time, jnp.asarray(latents), noise)


@pytree
@dataclass(frozen=True)
class KnownRegion:
    """The region of pictures that a mask keeps on its path."""

    motion: Float[Array, "b h w c"]
    """The `known_motion` of the mask."""
    mask: Float[Array, "b h w 1"]
    """0 where the source is kept, 1 where it is repainted."""


@functools.partial(jax.jit, static_argnames=("mesh",))
def region_of(
    source: SourceLatents, noise: Float[Array, "b h w c"], *, mesh: Mesh | None = None
) -> KnownRegion:
    """Returns the region that the mask of a source keeps. A program of its own, as `noised`."""

    def region(source: SourceLatents, noise: Array) -> KnownRegion:
        latents = jnp.broadcast_to(jnp.asarray(source.latents), noise.shape)
        mask = jnp.broadcast_to(jnp.asarray(source.mask), (*noise.shape[:3], 1))
        return KnownRegion(known_motion(latents, noise, mask), mask)

    return on_each(region, mesh, shared=1)(source, noise)


def velocity_of(
    config: TransformerConfig,
    form: GuidanceForm,
    params: Any,
    numbers: Float[ArrayLike, " 4"] | Float[ArrayLike, "b 4"],
    null: Conditioning,
    region: KnownRegion | None,
) -> VelocityFn:
    """Returns the guided velocity of the network, which keeps a known region if there is one."""

    def velocity(x_t: Array, t: Array, conditioning: Conditioning) -> Array:
        return apply(config, params, x_t, t, conditioning)

    velocity_fn = guided(velocity, null, form, numbers)
    if region is None:
        return velocity_fn
    return with_known_region(velocity_fn, region.motion, region.mask)


def starting_latents(
    time: Float[ArrayLike, " 1"],
    source: SourceLatents | None,
    noise: Float[Array, "b h w c"],
    *,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, "b h w c"], KnownRegion | None]:
    """Returns the latents that a solver starts from at a time, and the region that a mask keeps."""
    if source is None:
        return noise, None
    region = None if source.mask is None else region_of(source, noise, mesh=mesh)
    return noised(time, source.latents, noise, mesh=mesh), region


@functools.partial(jax.jit, static_argnames=("config", "solver", "form", "mesh"))
def solve(
    params: Any,
    times: Float[ArrayLike, " s"],
    numbers: Float[ArrayLike, " 4"],
    region: KnownRegion | None,
    start: Float[Array, "b h w c"],
    conditioning: Conditioning,
    null: Conditioning,
    *,
    config: TransformerConfig,
    solver: str,
    form: GuidanceForm,
    mesh: Mesh | None = None,
) -> Float[Array, "b h w c"]:
    """Returns the latents that the solver reaches from `start` at the last of `times`.

    `start` is noise, or `noised` latents of a source. `form` and `numbers` are those of a
    `Guidance`. `null` has one row for each picture, as `conditioning`.
    """

    def latents_of(
        params: Any,
        times: Array,
        numbers: Array,
        region: KnownRegion | None,
        start: Array,
        conditioning: Conditioning,
        null: Conditioning,
    ) -> Array:
        velocity_fn = velocity_of(config, form, params, numbers, null, region)
        return get_solver(solver)(velocity_fn, start, times, conditioning)

    drawn = on_each(latents_of, mesh, shared=3)
    return drawn(params, times, numbers, region, start, conditioning, null)


def cut_prompts(text_encoder: TextEncoder, prompts: Sequence[str]) -> str | None:
    """Returns a warning about prompts that the text encoder truncates, or None."""
    truncated = text_encoder.truncated(prompts)
    cut = [prompt for prompt, lost in zip(prompts, truncated, strict=True) if lost]
    if not cut:
        return None
    first = cut[0] if len(cut[0]) <= 60 else f"{cut[0][:60]}..."
    return (
        f"{len(cut)} of {len(prompts)} prompts ({first!r}) have more than the "
        f"{text_encoder.max_tokens} tokens that the text encoder reads; the rest is ignored"
    )


class ImageCodec:
    """Encodes pictures to latents and decodes latents; users reach it as `model.vae`."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        self.autoencoder = autoencoder
        self._decoders: dict[Mesh | None, tuple[Any, Any]] = {}

    @functools.cached_property
    def _encoder(self) -> Callable[..., Array]:
        return jax.jit(self.autoencoder.encode)

    def encode(self, image: UInt8[np.ndarray, "hi wi 3"]) -> Float[np.ndarray, "h w c"]:
        """Returns the latents of a picture: the mean of the posterior."""
        latents = self._encoder(self.autoencoder.params, to_pixels(image[None]))
        return np.asarray(latents, np.float32)[0]

    def pixels(
        self, latents: Float[ArrayLike, "b h w c"], *, mesh: Mesh | None = None
    ) -> Float[Array, "b hi wi 3"]:
        """Returns images in [-1, 1], not clipped. With a mesh, each device decodes its own rows."""
        if mesh not in self._decoders:
            decode = jax.jit(on_each(self.autoencoder.decode, mesh, shared=1))
            self._decoders[mesh] = decode, copied(self.autoencoder.params, mesh)
        decode, params = self._decoders[mesh]
        return decode(params, jnp.asarray(latents))

    def decode(self, latents: ArrayLike) -> Any:
        """Returns a PIL image for latents ``h w c``, or a list of images for ``b h w c``."""
        single = latents.ndim == 3
        images = to_uint8(self.pixels(latents[None] if single else latents))
        pictures = [Image.fromarray(image) for image in images]
        return pictures[0] if single else pictures
