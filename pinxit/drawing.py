"""The programs that draw pictures: noise, the guided solver, and decoding.

Each runs on one device, or on every device of a mesh with its own rows (see `on_each`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt
from PIL import Image

from pinxit.arrays import ArrayLike, Autoencoder, Conditioning, TextEncoder, to_uint8
from pinxit.devices.each_device import copied, on_each
from pinxit.fixed_batches import concatenated
from pinxit.flow.guidance import Guidance, guided
from pinxit.flow.solvers import get_solver
from pinxit.models.transformer import TransformerConfig, apply


@functools.partial(jax.jit, static_argnames=("shape", "mesh"))
def noise_of(
    seeds: UInt[ArrayLike, " b"], *, shape: tuple[int, int, int], mesh: Mesh | None = None
) -> Float[Array, "b h w c"]:
    """Returns the noise of each seed."""

    def sample(seeds: UInt[Array, " b"]) -> Float[Array, "b h w c"]:
        return jax.vmap(lambda seed: jax.random.normal(jax.random.key(seed), shape))(seeds)

    return on_each(sample, mesh, shared=0)(seeds)


@functools.partial(jax.jit, static_argnames=("config", "solver", "guidance", "mesh"))
def solve(
    params: Any,
    times: Float[ArrayLike, " s"],
    noise: Float[Array, "b h w c"],
    conditioning: Conditioning,
    null: Conditioning,
    *,
    config: TransformerConfig,
    solver: str,
    guidance: Guidance,
    mesh: Mesh | None = None,
) -> Float[Array, "b h w c"]:
    """Returns the latents that the solver reaches from the noise.

    `null` has one row for each device, or one for each picture.
    """

    def latents_of(
        params: Any, times: Array, noise: Array, conditioning: Conditioning, null: Conditioning
    ) -> Array:
        def velocity(x_t: Array, t: Array, conditioning: Conditioning) -> Array:
            return apply(config, params, x_t, t, conditioning)

        return get_solver(solver)(guided(velocity, null, guidance), noise, times, conditioning)

    return on_each(latents_of, mesh, shared=2)(params, times, noise, conditioning, null)


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


def encoded_batch(
    encode: Callable[[Sequence[str]], Conditioning], prompts: list[str], negative: list[str]
) -> tuple[Conditioning, Conditioning]:
    """Returns the conditioning of a batch of prompts, and that of their negative prompts.

    The latter has a single row if all are equal. Every call of `encode` has one text more than
    there are prompts, so that a text is encoded to the same bytes in every batch.
    """
    encoded = {text: encode([*prompts, text]) for text in dict.fromkeys(negative)}
    last = {text: jax.tree.map(lambda leaf: leaf[-1:], both) for text, both in encoded.items()}
    used = negative if len(last) > 1 else negative[:1]
    null = concatenated([last[text] for text in used])
    return jax.tree.map(lambda leaf: leaf[:-1], encoded[negative[0]]), null


def joined(batches: list[tuple[Conditioning, Conditioning]]) -> tuple[Conditioning, Conditioning]:
    """Joins the conditioning of several batches of one size, and that of their negative prompts.

    The latter gets as many rows for each batch as the batch with the most has.
    """
    rows = max(len(null.mask) for _, null in batches)

    def repeated(leaf: np.ndarray) -> np.ndarray:
        return np.repeat(leaf, rows // len(leaf), axis=0)

    conditioning, null = zip(*batches, strict=True)
    return concatenated(conditioning), concatenated([jax.tree.map(repeated, one) for one in null])


class ImageDecoder:
    """Decodes latents to pictures; users reach it as `model.vae`."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        self.autoencoder = autoencoder
        self._decoders: dict[Mesh | None, tuple[Any, Any]] = {}

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
