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
    pytree,
    to_pixels,
    to_uint8,
)
from pinxit.devices.each_device import copied, on_each
from pinxit.flow.guidance import GuidanceForm, guided
from pinxit.flow.known_region import with_known_region
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


@functools.partial(jax.jit, static_argnames=("config", "solver", "form", "mesh"))
def solve(
    params: Any,
    times: Float[ArrayLike, " s"],
    numbers: Float[ArrayLike, " 4"],
    source: SourceLatents | None,
    noise: Float[Array, "b h w c"],
    conditioning: Conditioning,
    null: Conditioning,
    *,
    config: TransformerConfig,
    solver: str,
    form: GuidanceForm,
    mesh: Mesh | None = None,
) -> Float[Array, "b h w c"]:
    """Returns the latents that the solver reaches from the noise at the last of `times`.

    With a source it starts from the source's latents, with the noise of the first time. `form` and
    `numbers` are those of a `Guidance`. `null` has one row for each picture, as `conditioning`.
    """

    def latents_of(
        params: Any,
        times: Array,
        numbers: Array,
        source: SourceLatents | None,
        noise: Array,
        conditioning: Conditioning,
        null: Conditioning,
    ) -> Array:
        def velocity(x_t: Array, t: Array, conditioning: Conditioning) -> Array:
            return apply(config, params, x_t, t, conditioning)

        velocity_fn, start = guided(velocity, null, form, numbers), noise
        if source is not None:
            latents = jnp.broadcast_to(jnp.asarray(source.latents), noise.shape)
            start = interpolate(latents, noise, jnp.full(len(noise), times[0]))
            if source.mask is not None:
                mask = jnp.broadcast_to(jnp.asarray(source.mask), (*noise.shape[:3], 1))
                velocity_fn = with_known_region(velocity_fn, latents, noise, mask)
        return get_solver(solver)(velocity_fn, start, times, conditioning)

    drawn = on_each(latents_of, mesh, shared=4)
    return drawn(params, times, numbers, source, noise, conditioning, null)


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
