"""Draws a picture of an order step by step, alone or among others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pinxit.pipeline import TextToImage
from pinxit.sampling import Order
from pinxit.stepwise import StepBatch, StepForm, StepPicture, start_picture


def started(model: TextToImage, order: Order, picture: int) -> tuple[StepForm, StepPicture]:
    """Returns the form of an order, and one of its pictures before its first step."""
    guidance, source = order.sampling.guidance(), model.source_latents(order)
    form = StepForm(
        config=model.config,
        shape=model.latent_shape(order.size),
        solver=order.sampling.solver,
        guidance=guidance.form,
        masked=source is not None and source.mask is not None,
        rows=order.batch_size,
    )
    conditioning = model.encode([order.prompts[picture]])
    null = model.encode([order.negative_prompts[picture]]) if form.guidance.on else conditioning
    return form, start_picture(
        form,
        seed=order.seeds[picture],
        times=order.sampling.times()[-order.steps - 1 :],
        guidance=guidance,
        conditioning=conditioning,
        null=null,
        source=source,
    )


def step_by_step(model: TextToImage, orders: Sequence[Order]) -> list[np.ndarray]:
    """Returns the latents of the first picture of each order. All are drawn in one batch.

    A picture joins after each evaluation, as soon as a row is empty.
    """
    begun = [started(model, order, 0) for order in orders]
    (form,) = {form for form, _ in begun}
    batch, rows = StepBatch(form, model.params), {}
    latents: dict[int, np.ndarray] = {}
    waiting = list(enumerate(picture for _, picture in begun))
    while waiting or rows:
        if waiting and batch.free:
            number, picture = waiting.pop(0)
            rows[batch.add(picture)] = number
        batch.advance()
        for row in [row for row in rows if batch.is_finished(row)]:
            latents[rows.pop(row)] = np.asarray(batch.latents(row))[0]
            batch.remove(row)
    return [latents[number] for number in range(len(orders))]
