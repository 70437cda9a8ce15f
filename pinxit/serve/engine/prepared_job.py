"""A job with everything that drawing its pictures needs."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from pinxit.arrays import Conditioning
from pinxit.drawing import SourceLatents
from pinxit.guidance_warnings import Exposure, out_of_range
from pinxit.pipeline import TextToImage
from pinxit.sampling import Order
from pinxit.serve.engine.jobs import DrawRequest, Job
from pinxit.serve.engine.limits import check_side_lengths
from pinxit.serve.engine.models import LoadedModel
from pinxit.serve.engine.prompt_cut import cut_warning
from pinxit.serve.settings import StudioConfig
from pinxit.stepwise import StepForm, StepPicture, has_steps, repeated_rows, start_picture


def order_of(
    request: DrawRequest, model: TextToImage, config: StudioConfig
) -> tuple[Order, list[str]]:
    """Returns the checked order of a request, and warnings. Raises `UsageError`."""
    size = request.size or (model.image_size, model.image_size)
    check_side_lengths(size, model.image_size, config)
    order = model.order(
        request.prompt,
        n=request.n,
        seed=request.seed,
        size=size,
        negative_prompt=request.negative_prompt,
        image=request.image,
        mask=request.mask,
        strength=request.strength,
        warn=lambda message: None,
        **request.sampling,
    )
    messages = [
        cut_warning(model.text_encoder, request.prompt),
        cut_warning(model.text_encoder, request.negative_prompt, field="negative_prompt"),
        out_of_range(float(order.sampling.guidance_scale)),
    ]
    if order.source is not None:
        names = {"name": request.image_name, "mask_name": request.mask_name}
        order = replace(order, source=replace(order.source, **names))
    return order, [message for message in messages if message]


class PreparedJob:
    """A job whose model is in memory."""

    def __init__(
        self, job: Job, loaded: LoadedModel, order: Order, *, added: dict[str, Any]
    ) -> None:
        self.job = job
        self.loaded = loaded
        self.order = order
        self._added = added
        model, sampling = loaded.model, order.sampling
        self._guidance = sampling.guidance()
        self._exposure = Exposure(
            float(sampling.guidance_scale), model.stored.details if model.stored else {}
        )
        self._lock = threading.Lock()
        self._inputs: tuple[Conditioning, Conditioning, SourceLatents | None] | None = None
        self.by_steps = has_steps(sampling.solver)
        """Whether its pictures are drawn step by step; otherwise each is drawn in one go."""
        source = order.source
        self.form = StepForm(
            config=model.config,
            shape=model.latent_shape(order.size),
            solver=sampling.solver,
            guidance=self._guidance.form,
            masked=source is not None and source.mask is not None,
            rows=order.batch_size,
        )

    @property
    def model(self) -> TextToImage:
        """The pipeline that draws its pictures."""
        return self.loaded.model

    @property
    def key(self) -> tuple[Any, ...]:
        """A value that pictures of one batch share."""
        return id(self.loaded), self.form

    def start(self, number: int) -> StepPicture:
        """Returns a picture before its first step. The first call encodes the texts."""
        conditioning, null, source = self._encoded()
        return start_picture(
            self.form,
            seed=self.order.seeds[number],
            times=self.order.times(),
            guidance=self._guidance,
            conditioning=conditioning,
            null=null,
            source=source,
        )

    def draw_whole(self, number: int) -> Any:
        """Returns the latents of a picture whose solver has no step form."""
        _, _, source = self._encoded()
        numbers = [number] * self.order.batch_size
        texts = self.model.texts(self.order, [numbers])
        return self.model.latents_of(self.order, numbers, texts, source, None)[:1]

    def image(self, latents: Any, *, final: bool) -> Image.Image:
        """Returns the picture of latents ``1 h w c``. A final one counts for the warnings."""
        rows = repeated_rows(latents, self.order.batch_size)
        image = self.model.finished(self.order, rows, None)[0]
        if final:
            self._exposure.see(np.asarray(latents), [image])
        return image

    def recipe(self, number: int) -> dict[str, Any]:
        """Returns the recipe of a picture."""
        return self.model.recipe(self.order, number) | self._added

    def late_warning(self) -> str | None:
        """Returns a warning about the pictures that were drawn, or None."""
        return self._exposure.message()

    def preview_steps(self) -> frozenset[int]:
        """Returns the numbers of the steps after which a preview is shown."""
        steps, count = self.order.steps, self.job.request.previews
        if count < 0 or count >= steps:
            return frozenset(range(1, steps))
        return frozenset((k + 1) * steps // (count + 1) for k in range(count)) - {0, steps}

    def _encoded(self) -> tuple[Conditioning, Conditioning, SourceLatents | None]:
        with self._lock:
            if self._inputs is None:
                texts, negative = (
                    self.model.texts(self.order, [[0]]),
                    self.order.negative_prompts[0],
                )
                conditioning = null = texts.rows(self.order.prompts[:1])
                tokens = int(np.sum(conditioning.mask))
                if self._guidance.form.on:
                    null = texts.rows([negative])
                    tokens += int(np.sum(null.mask)) if negative else 0
                self.job.tokens = tokens
                self._inputs = conditioning, null, self.model.source_latents(self.order)
        return self._inputs
