"""Draws pictures from prompts with the text encoder, the guided solver and the autoencoder.

::

    noise_i = normal(key(seed + i))
    latents = solver(guided(model), noise, times)
    image   = decode(latents)

Picture ``i`` of a call depends on its prompt, the settings and ``seed + i`` alone. On a CPU
pictures are computed one by one. On accelerators they are computed in batches of one fixed size
(the last one is padded). So calls for one picture and for eight run the same program and give the
same bytes. Several devices run it on batches of their own. Each distinct text of a call is encoded
once.

With a source image, solving starts part-way along the path, and a mask limits it to a region (see
`source_image` and `flow.known_region`).
"""

from __future__ import annotations

import functools
import operator
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float
from PIL import Image

from pinxit.arrays import Autoencoder, Conditioning, TextEncoder, to_uint8
from pinxit.config import UsageError, choice, positive, to_json
from pinxit.devices.each_device import copied, mesh_of
from pinxit.drawing import (
    ImageCodec,
    SourceLatents,
    cut_prompts,
    noise_of,
    one_by_one,
    solve,
    starting_latents,
)
from pinxit.encoded_texts import EncodedTexts
from pinxit.encoders.token_grid import TokenGrid
from pinxit.fixed_batches import rounds_of
from pinxit.flow.known_region import latent_mask
from pinxit.guidance_warnings import Exposure, out_of_range
from pinxit.model_hash import hash_of_params
from pinxit.models.sampling_config import for_sampling
from pinxit.models.transformer import TransformerConfig
from pinxit.sampling import (
    OUTPUTS,
    Integer,
    Order,
    Sampling,
    Seeds,
    check_negative,
    check_prompts,
    check_seeds,
)
from pinxit.source_image import ImageInput, SourceImage, check_without_image
from pinxit.stored_model import Stored

__all__ = ["ImageCodec", "Sampling", "TextToImage"]

Size = Integer | tuple[Integer, Integer]
"""The side of a square picture, or its width and height, in pixels."""
TEXT_CHUNK = 8
"""Number of texts that an accelerator encodes together. A CPU encodes them one by one."""
Progress = Callable[[int, int], Any]
"""A callback that receives the number of finished pictures and their total."""


class TextToImage:
    """A trained model with the encoders and settings that it needs to draw pictures."""

    devices: Sequence[Any] = ()
    """Devices that draw several batches at once. Each needs memory for all parameters. With fewer
    than two of them, pictures are drawn where the parameters are."""
    _copies: tuple[Mesh, Any] | None = None

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
        self.config = for_sampling(config)
        """The network's config for sampling (`pinxit.models.sampling_config`)."""
        self.text_encoder = text_encoder
        self.autoencoder = autoencoder
        self.image_size = image_size
        self.sampling = sampling or Sampling()
        self.name = name
        self.stored: Stored | None = None
        """The stored form of a model that was loaded, otherwise None."""
        self.vae = ImageCodec(autoencoder)
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
        other.__dict__ = {**self.__dict__, "params": params, "_copies": None}
        other.__dict__.pop("model_hash", None)
        return other

    @functools.cached_property
    def model_hash(self) -> str:
        """The first ten hexadecimal digits of the parameters' SHA-256."""
        return hash_of_params(self.params)

    def latent_shape(self, size: Size) -> tuple[int, int, int]:
        """Returns (h, w, c) of the latents of an image of `size`: one side, or (width, height)."""
        width, height = self._width_and_height(size)
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

    def _width_and_height(self, size: Size | None) -> tuple[int, int]:
        """Returns a size as (width, height); None means the size that the model was trained on."""
        size = self.image_size if size is None else size
        width, height = (size, size) if isinstance(size, SupportsIndex) else size
        return operator.index(width), operator.index(height)

    def encode(self, captions: Sequence[str]) -> Conditioning:
        """Returns the conditioning of the captions, as host arrays."""
        # Copied to the host, since the encoder may be on several devices and the model on one.
        return jax.tree.map(np.asarray, self.text_encoder(list(captions)))

    def recipe(self, order: Order, picture: int) -> dict[str, Any]:
        """Returns the recipe that is written into a picture, so that it can be drawn again."""
        from pinxit.version import __version__

        return {
            "prompt": order.prompts[picture],
            "negative_prompt": order.negative_prompts[picture],
            "seed": order.seeds[picture],
            "size": list(order.size),
            **({} if one_by_one() else {"batch_size": order.batch_size}),
            **({} if order.source is None else {"image": order.source.recipe()}),
            "model": self.name,
            "model_hash": self.model_hash,
            "version": __version__,
            **to_json(order.sampling),
        }

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        n: Integer = 1,
        output_type: str = "pil",
        progress: Progress | None = None,
        **how: Any,
    ) -> Any:
        """Returns pictures of the prompt, or `n` pictures of each prompt.

        One prompt with ``n = 1`` gives one PIL image, otherwise the result is a list. With
        ``output_type="np"``, pictures are uint8 arrays ``h w 3``, with "latent" latents ``h w c``,
        stacked if there are several. `how` accepts the arguments of `order`: seed, size,
        negative_prompt, batch_size, image, mask, strength, and every field of `Sampling`. For many
        pictures, `stream` gives each one when it is ready.
        """
        order = self.order(prompt, n=n, output_type=output_type, **how)
        results = []
        for _, picture in self.pictures(order):
            results.append(picture)
            if progress is not None:
                progress(len(results), len(order))
        if isinstance(prompt, str) and n == 1:
            return results[0]
        if output_type == "pil":
            return results
        return np.stack(results) if output_type == "np" else jnp.stack(results)

    def stream(
        self, prompt: str | Sequence[str], **how: Any
    ) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Yields each picture, as soon as its batch is ready, with the recipe that draws it again.

        Takes the arguments of `order`, and refuses wrong ones at once. `pinxit.picture_files` has
        ``save_picture(folder, *item)``, which stores an item.
        """
        order = self.order(prompt, **how)
        return ((picture, self.recipe(order, i)) for i, picture in self.pictures(order))

    def order(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] = "",
        seed: Seeds = 0,
        n: Integer = 1,
        size: Size | None = None,
        output_type: str = "pil",
        batch_size: Integer | None = None,
        image: ImageInput | None = None,
        mask: ImageInput | None = None,
        strength: float | None = None,
        warn: Callable[[str], Any] | None = None,
        **sampling: Any,
    ) -> Order:
        """Returns the checked arguments of a call, for `pictures`; warns about unusual ones.

        Picture i is drawn from ``seed + i``, or from ``seed[i]`` if `seed` is a sequence. `size`
        is one side or (width, height), by default the size that the model was trained on.
        `negative_prompt` is one text, or one for each prompt. `batch_size` pictures are computed
        together on each accelerator; on a CPU it has no effect. `sampling` accepts every field of
        `Sampling` (steps, guidance_scale, solver, ...), also as cfg_scale and num_inference_steps;
        the defaults are `self.sampling`.

        With `image`, pictures start from it instead of from noise. It is cropped around its centre
        and scaled to `size`. `strength` is the fraction of the steps that are made: small values
        change the image little, and 1 ignores it. Its default is 0.6. With `mask`, only the white
        part of the mask is repainted and the default strength is 1. Both are paths, PIL images or
        uint8 arrays (see `SourceImage.open`). `warn` receives warnings instead of Python's.
        """
        warn = warn or functools.partial(warnings.warn, stacklevel=3)
        choice("output_type", output_type, OUTPUTS)
        chosen = self.sampling.override(**sampling)
        each = operator.index(n)
        prompts = check_prompts(prompt, each)
        negative = check_negative(negative_prompt, each, len(prompts))
        if cut := cut_prompts(self.text_encoder, [*dict.fromkeys([*prompts, *negative])]):
            warn(cut)
        seeds = check_seeds(seed, len(prompts))
        side = self._width_and_height(size)
        self.latent_shape(side)
        if unusual := out_of_range(float(chosen.guidance_scale)):
            warn(unusual)
        group = 4 if batch_size is None else operator.index(batch_size)
        positive("batch_size", group)
        source = None
        if image is None:
            check_without_image(mask=mask, strength=strength)
        else:
            source = SourceImage.open(image, mask=mask, strength=strength, size=side)
        together = 1 if one_by_one() else group
        return Order(prompts, seeds, negative, side, chosen, output_type, together, source)

    def pictures(self, order: Order, *, skip: Collection[int] = ()) -> Iterator[tuple[int, Any]]:
        """Yields the pictures of an order, each with its number, as soon as its batch is ready.

        Pictures in `skip` are left out. The others keep their places in their batches, so that they
        have the same bytes as without `skip`.
        """
        scale = float(order.sampling.guidance_scale)
        exposure = Exposure(scale, self.stored.details if self.stored else {})
        batches = order.batches(skip)
        # A single batch runs on one device, so that its arrays are not copied to the others.
        mesh = mesh_of(self.devices) if len(batches) > 1 else None
        rounds = rounds_of(batches, order.batch_size, mesh.size if mesh else 1)
        texts, source = self.texts(order, rounds), self.source_latents(order)
        for numbers in rounds:
            latents = self.latents_of(order, numbers, texts, source, mesh)
            # The padding is decoded too, so that every round runs the same program.
            results = self.finished(order, latents, mesh)
            places = {i: place for place, i in reversed([*enumerate(numbers)]) if i not in skip}
            rows = sorted(places.values())
            exposure.see(np.asarray(latents)[rows], [results[row] for row in rows])
            for row in rows:
                yield numbers[row], results[row]
        exposure.warn()

    def texts(self, order: Order, rounds: list[list[int]]) -> EncodedTexts:
        """Returns the texts of an order, in the order in which `latents_of` needs them."""
        guidance = order.sampling.guidance().form.on
        kinds = [order.prompts, order.negative_prompts] if guidance else [order.prompts]
        uses = (kind[i] for numbers in rounds for kind in kinds for i in numbers)
        return EncodedTexts(self.encode, uses, chunk=1 if one_by_one() else TEXT_CHUNK)

    def source_latents(self, order: Order) -> SourceLatents | None:
        """Returns the latents that an order starts from, or None if it starts from noise alone."""
        image = order.source
        if image is None or (image.mask is None and order.steps == order.sampling.steps):
            return None
        mask = image.mask
        if mask is not None:
            mask = latent_mask(mask, self.autoencoder.stats.downsample)
        return SourceLatents(latents=self.vae.encode(image.pixels), mask=mask)

    def latents_of(
        self,
        order: Order,
        numbers: list[int],
        texts: EncodedTexts,
        source: SourceLatents | None,
        mesh: Mesh | None,
    ) -> Float[Array, "b h w c"]:
        """Returns the latents of one round of pictures, whose numbers are given."""
        sampling, shape = order.sampling, self.latent_shape(order.size)
        seeds = np.array([order.seeds[i] for i in numbers], np.uint32)
        noise = noise_of(seeds, shape=shape, mesh=mesh)
        times = order.times()
        start, region = starting_latents(times[:1], source, noise, mesh=mesh)
        guidance = sampling.guidance()
        conditioning = null = texts.rows([order.prompts[i] for i in numbers])
        if guidance.form.on:
            null = texts.rows([order.negative_prompts[i] for i in numbers])
        return solve(
            self.params_on(mesh),
            times,
            guidance.numbers(),
            region,
            start,
            conditioning,
            null,
            config=self.config,
            solver=sampling.solver,
            form=guidance.form,
            mesh=mesh,
        )

    def params_on(self, mesh: Mesh | None) -> Any:
        """Returns the parameters with a copy on each device of `mesh`, which is made once."""
        if mesh is None:
            return self.params
        if self._copies is None or self._copies[0] != mesh:
            self._copies = mesh, copied(self.params, mesh)
        return self._copies[1]

    def finished(
        self, order: Order, latents: Float[Array, "b h w c"], mesh: Mesh | None
    ) -> list[Any]:
        """Returns the results of an order's output type for a round of latents."""
        if order.output_type == "latent":
            return list(latents)
        images = list(to_uint8(self.vae.pixels(latents, mesh=mesh)))
        if order.source is not None:
            images = [order.source.kept(image) for image in images]
        if order.output_type == "np":
            return images
        return [Image.fromarray(image) for image in images]
