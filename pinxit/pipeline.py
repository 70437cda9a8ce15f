"""Draws pictures from prompts with the text encoder, the guided solver and the autoencoder.

::

    noise_i = normal(key(seed + i))
    latents = solver(guided(model), noise, times)
    image   = decode(latents)

Picture ``i`` of a call depends on its prompt, the settings and ``seed + i`` alone. Pictures are
computed in groups of one fixed size (the last group is padded), so a call for one picture and a
call for four run the same program and give the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt
from PIL import Image

from pinxit import extensions
from pinxit import stored_model as release
from pinxit.arrays import ArrayLike, Autoencoder, Conditioning, TextEncoder, to_uint8
from pinxit.config import UsageError, choice, from_json, positive, to_json
from pinxit.encoders.token_grid import TokenGrid
from pinxit.fixed_batches import padded
from pinxit.flow.guidance import Guidance, guided
from pinxit.flow.solvers import get_solver
from pinxit.flow.time import time_grid
from pinxit.guidance_warnings import Exposure, out_of_range
from pinxit.models.transformer import TransformerConfig, abstract, apply, from_stored
from pinxit.sampling import OUTPUTS, Order, Sampling, check_prompts, check_seeds
from pinxit.stored_model import Stored

__all__ = ["ImageDecoder", "Sampling", "TextToImage", "load_checkpoint", "save_release"]

Progress = Callable[[int, int], Any]
"""A callback that receives the number of finished pictures and their total."""


@functools.partial(jax.jit, static_argnames=("shape",))
def _noise(seeds: UInt[Array, " b"], *, shape: tuple[int, int, int]) -> Float[Array, "b h w c"]:
    return jax.vmap(lambda seed: jax.random.normal(jax.random.key(seed), shape))(seeds)


@functools.partial(jax.jit, static_argnames=("config", "solver", "guidance"))
def _solve(
    params: Any,
    noise: Float[Array, "b h w c"],
    times: Float[ArrayLike, " s"],
    conditioning: Conditioning,
    null: Conditioning,
    *,
    config: TransformerConfig,
    solver: str,
    guidance: Guidance,
) -> Float[Array, "b h w c"]:
    def velocity(x_t: Array, t: Array, conditioning: Conditioning) -> Array:
        return apply(config, params, x_t, t, conditioning)

    return get_solver(solver)(guided(velocity, null, guidance), noise, times, conditioning)


class ImageDecoder:
    """Decodes latents to pictures; users reach it as `model.vae`."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        self.autoencoder = autoencoder
        self._decode = jax.jit(autoencoder.decode)

    def pixels(self, latents: Float[ArrayLike, "b h w c"]) -> Float[Array, "b hi wi 3"]:
        """Returns images in [-1, 1], not clipped."""
        return self._decode(self.autoencoder.params, jnp.asarray(latents))

    def decode(self, latents: ArrayLike) -> Any:
        """Returns a PIL image for latents ``h w c``, or a list of images for ``b h w c``."""
        single = latents.ndim == 3
        images = to_uint8(self.pixels(latents[None] if single else latents))
        pictures = [Image.fromarray(image) for image in images]
        return pictures[0] if single else pictures


class TextToImage:
    """A trained model with the encoders and settings that it needs to draw pictures."""

    def __init__(
        self,
        params: Any,
        config: TransformerConfig,
        *,
        text_encoder: TextEncoder,
        autoencoder: Autoencoder,
        image_size: int,
        sampling: Sampling | None = None,
        name: str = "model",
    ) -> None:
        self.params = params
        self.config = replace(config, attention="xla")
        """The network's config, with XLA's attention, which runs on every device."""
        self.text_encoder = text_encoder
        self.autoencoder = autoencoder
        self.image_size = image_size
        self.sampling = sampling or Sampling()
        self.name = name
        self.stored: Stored | None = None
        """The stored form of a model that was loaded, otherwise None."""
        self.vae = ImageDecoder(autoencoder)
        self._check_fit()

    def _check_fit(self) -> None:
        channels, width = self.autoencoder.stats.channels, self.text_encoder.width
        if channels != self.config.in_channels:
            raise UsageError(
                "vae",
                channels,
                problem="the wrong number of channels",
                valid=[self.config.in_channels],
            )
        if width != self.config.context_dim:
            problem = "the wrong width"
            raise UsageError(
                "text_encoder", width, problem=problem, valid=[self.config.context_dim]
            )
        self.latent_shape(self.image_size)

    def with_params(self, params: Any) -> TextToImage:
        """Returns the same pipeline with other parameters, without compiling again."""
        other = object.__new__(TextToImage)
        other.__dict__ = {**self.__dict__, "params": params}
        other.__dict__.pop("model_hash", None)
        return other

    @functools.cached_property
    def model_hash(self) -> str:
        """The first ten hexadecimal digits of the parameters' SHA-256."""
        digest = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(np.asarray(leaf)).data)
        return digest.hexdigest()[:10]

    def latent_shape(self, size: int | tuple[int, int]) -> tuple[int, int, int]:
        """Returns (h, w, c) of the latents of an image of `size`: one side, or (width, height)."""
        width, height = (size, size) if isinstance(size, int) else size
        factor = self.autoencoder.stats.downsample
        grid = TokenGrid(factor, self.config.patch_size)
        unit = grid.unit
        for side in (width, height):
            if grid.misfits([(side, side)]):
                nearest = sorted({max(unit, side // unit * unit), (side // unit + 1) * unit})
                examples = " and ".join(map(str, nearest))
                raise UsageError(
                    "size",
                    side,
                    problem=f"not a multiple of {grid}",
                    valid=f"multiples of it, such as {examples}" if unit > 1 else "at least 1",
                )
        return height // factor, width // factor, self.autoencoder.stats.channels

    def encode(self, captions: Sequence[str]) -> Conditioning:
        """Returns the conditioning of the captions, as host arrays."""
        # Copied to the host, since the encoder may be on several devices and the model on one.
        return jax.tree.map(np.asarray, self.text_encoder(list(captions)))

    def recipe(self, order: Order, picture: int) -> dict[str, Any]:
        """Returns the recipe that is written into a picture, so that it can be drawn again."""
        from pinxit.version import __version__

        return {
            "prompt": order.prompts[picture],
            "negative_prompt": order.negative_prompt,
            "seed": order.seeds[picture],
            "size": list(order.size),
            "batch_size": order.batch_size,
            "model": self.name,
            "model_hash": self.model_hash,
            "version": __version__,
            **to_json(order.sampling),
        }

    def draw(
        self, prompt: str | Sequence[str], *, progress: Progress | None = None, **how: Any
    ) -> list[tuple[Any, dict[str, Any]]]:
        """Returns each picture with its recipe; takes the arguments of `generate`."""
        order = self._order(prompt, **how)
        drawn = enumerate(self._drawn(order, progress))
        return [(picture, self.recipe(order, i)) for i, picture in drawn]

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str = "",
        seed: int | Sequence[int] = 0,
        n: int = 1,
        size: int | tuple[int, int] | None = None,
        output_type: str = "pil",
        batch_size: int | None = None,
        progress: Progress | None = None,
        **sampling: Any,
    ) -> Any:
        """Returns pictures of the prompt, or `n` pictures of each prompt.

        One prompt with ``n = 1`` gives one PIL image, otherwise the result is a list.
        ``output_type="np"`` gives uint8 arrays ``h w 3`` and "latent" gives latents ``h w c``,
        stacked if there are several. Picture i is drawn from ``seed + i``, or from ``seed[i]`` if
        `seed` is a sequence. `sampling` accepts every field of `Sampling` (steps, guidance_scale,
        solver, ...), also as cfg_scale and num_inference_steps; the defaults are `self.sampling`.
        """
        order = self._order(
            prompt,
            negative_prompt=negative_prompt,
            seed=seed,
            n=n,
            size=size,
            output_type=output_type,
            batch_size=batch_size,
            **sampling,
        )
        results = list(self._drawn(order, progress))
        if isinstance(prompt, str) and n == 1:
            return results[0]
        if output_type == "pil":
            return results
        return np.stack(results) if output_type == "np" else jnp.stack(results)

    def _order(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str = "",
        seed: int | Sequence[int] = 0,
        n: int = 1,
        size: int | tuple[int, int] | None = None,
        output_type: str = "pil",
        batch_size: int | None = None,
        **sampling: Any,
    ) -> Order:
        """Returns the checked arguments of a call; warns about unusual ones."""
        choice("output_type", output_type, OUTPUTS)
        chosen = self.sampling.override(**sampling)
        prompts = check_prompts(prompt, n)
        self._warn_of_cuts([*dict.fromkeys([*prompts, negative_prompt])])
        seeds = check_seeds(seed, len(prompts))
        size = self.image_size if size is None else size
        side = (size, size) if isinstance(size, int) else size
        self.latent_shape(side)
        if unusual := out_of_range(float(chosen.guidance_scale)):
            warnings.warn(unusual, stacklevel=3)
        positive("batch_size", batch_size)
        group = batch_size or (1 if jax.default_backend() == "cpu" else 4)
        return Order(prompts, seeds, negative_prompt, side, chosen, output_type, group)

    def _drawn(self, order: Order, progress: Progress | None) -> Iterator[Any]:
        """Yields the pictures of an order, one after another."""
        scale = float(order.sampling.guidance_scale)
        exposure, done = Exposure(scale, self.stored.details if self.stored else {}), 0
        for latents, count in self._groups(order):
            # The padding is decoded too, so that every group runs the same program.
            pictures = self._finished(latents, order.output_type)[:count]
            exposure.see(latents[:count], pictures)
            done += count
            if progress is not None:
                progress(done, len(order.prompts))
            yield from pictures
        exposure.warn()

    def _warn_of_cuts(self, prompts: Sequence[str]) -> None:
        truncated = self.text_encoder.truncated(prompts)
        cut = [prompt for prompt, lost in zip(prompts, truncated, strict=True) if lost]
        if cut:
            first = cut[0] if len(cut[0]) <= 60 else f"{cut[0][:60]}..."
            warnings.warn(
                f"{len(cut)} of {len(prompts)} prompts ({first!r}) have more than the "
                f"{self.text_encoder.max_tokens} tokens that the text encoder reads; the rest is "
                "ignored",
                stacklevel=4,
            )

    def _finished(self, latents: Float[Array, "b h w c"], output_type: str) -> list[Any]:
        if output_type == "latent":
            return list(latents)
        images = list(to_uint8(self.vae.pixels(latents)))
        return [Image.fromarray(image) for image in images] if output_type == "pil" else images

    def _groups(self, order: Order) -> Iterator[tuple[Float[Array, "b h w c"], int]]:
        """Yields latents in groups of one fixed size, each with its number of real pictures."""
        sampling, group = order.sampling, order.batch_size
        times = time_grid(sampling.steps, shift=sampling.shift)
        shape = self.latent_shape(order.size)
        for start in range(0, len(order.prompts), group):
            prompts = order.prompts[start : start + group]
            numbers = [*order.seeds[start : start + group], *([0] * (group - len(prompts)))]
            encoded = self.encode([*padded(prompts, group), order.negative_prompt])
            seeds = jnp.asarray(np.array(numbers, np.uint32))
            noise = _noise(seeds, shape=shape)
            latents = _solve(
                self.params,
                noise,
                times,
                jax.tree.map(lambda leaf: leaf[:-1], encoded),
                jax.tree.map(lambda leaf: leaf[-1:], encoded),
                config=self.config,
                solver=sampling.solver,
                guidance=sampling.guidance(),
            )
            yield latents, len(prompts)


def load_checkpoint(path: str | Path | None = None, *, ema: str | None = None) -> TextToImage:
    """Loads the model of a run, a checkpoint or a release; by default the shipped one.

    `ema` selects one of the averages that a run stores, or "raw" for the parameters themselves.
    """
    from pinxit.encoders.autoencoder import load_autoencoder
    from pinxit.encoders.caption_cleaning import get_cleaner
    from pinxit.encoders.fingerprint import encoder_fingerprints
    from pinxit.encoders.text_encoder_catalogue import load_text_encoder

    stored = release.read_model(path, ema=ema)
    autoencoder = load_autoencoder(stored.vae)
    text_encoder = load_text_encoder(
        stored.text_encoder,
        max_tokens=stored.text_max_tokens,
        clean=get_cleaner(stored.caption_cleaning),
    )
    fingerprints = encoder_fingerprints(text_encoder, autoencoder)
    release.check_encoders(stored.encoders, fingerprints, where=str(path or stored.name))
    config = from_stored(
        stored.model, in_channels=autoencoder.stats.channels, context_dim=text_encoder.width
    )
    if problems := release.mismatches(stored.params, abstract(config)[1]):
        raise UsageError(
            "checkpoint",
            str(path or stored.name),
            problem=f"inconsistent: its parameters do not fit its config ({problems})",
        )
    model = TextToImage(
        jax.tree.map(jnp.asarray, stored.params),
        config,
        text_encoder=text_encoder,
        autoencoder=autoencoder,
        image_size=stored.image_size,
        sampling=from_json(Sampling, stored.sampling),
        name=stored.name,
    )
    model.stored = stored
    return model


def save_release(
    directory: str | Path,
    model: TextToImage,
    *,
    text_encoder: str,
    vae: str,
    dtype: str = "float32",
    caption_cleaning: str = "none",
    text_max_tokens: int | None = None,
    objective: dict[str, Any] | None = None,
    details: dict[str, Any] | None = None,
) -> Path:
    """Writes the model as a release that `load_checkpoint` reads."""
    from pinxit.encoders.fingerprint import encoder_fingerprints

    stored = Stored(
        params=model.params,
        model=to_json(model.config),
        text_encoder=text_encoder,
        vae=vae,
        image_size=model.image_size,
        name=model.name,
        sampling=to_json(model.sampling),
        objective=dict(objective or {}),
        extensions=extensions.loaded(),
        caption_cleaning=caption_cleaning,
        text_max_tokens=text_max_tokens,
        encoders=encoder_fingerprints(model.text_encoder, model.autoencoder),
        details=dict(details or {}),
    )
    return release.write_release(directory, stored, dtype=dtype)
