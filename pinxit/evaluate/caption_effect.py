"""Measures how much captions reduce the loss.

The loss of each row is computed with its own caption, with another row's and with the empty one, on
the same noise and times, so that only the captions differ::

    gain = mean(loss_shuffled - loss) / mean(loss_shuffled)

The standard error of the gain is that of a mean of paired differences. A model that ignores its
text (uninformative captions, a mask that is False, caption dropout of 1) has a gain of 0 within
that error. A trained model has a small gain, because most of the loss is noise that no caption can
predict.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pinxit.arrays import to_pixels
from pinxit.config import positive
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.validation_loss import numbered_by_shape, row_losses, spread_times
from pinxit.fixed_batches import padded
from pinxit.progress import counted

FEWEST = 4
"""Smallest number of rows that give a result."""


def caption_effect(
    context: EvaluationContext, *, rows: int = 128, seed: int = 0
) -> Iterator[tuple[str, float]]:
    """Yields the loss of the first `rows` examples with and without their captions.

    The names are ``conditioning/loss``, ``loss_shuffled`` and ``loss_null`` (the empty caption);
    ``gain`` and ``gain_error``, as fractions of the loss; and ``changed``, the fraction of rows
    whose shuffled caption is another text. For the images of these rows, ``latents/std`` is the
    standard deviation of the latents, and ``latents/saturated`` is the fraction of pixel values
    that are 0 or 255. Yields nothing for fewer than `FEWEST` rows.
    """
    positive("rows", rows, minimum=FEWEST)
    model, examples, batch_size = context.model, context.rows, context.batch_size
    count = min(rows, len(examples))
    if count < FEWEST:
        return
    first = [examples[row] for row in range(count)]
    captions = [row.caption for row in first]
    others = shuffled(captions)
    times = spread_times(count, bins=min(10, count), seed=seed)
    own, other, null = np.zeros((3, count), np.float64)
    sums, saturated, colours, done = np.zeros(3), 0, 0, 0
    with context.showing(f"effect of captions on {counted(count, 'row')}", "row") as report:
        report(0, count)
        for numbers, batch in numbered_by_shape(first, batch_size):
            count_here = len(batch)
            numbers = padded(numbers, batch_size)
            pixels = np.stack([first[number].image for number in numbers])
            context.check()
            latents = _latents(
                model.autoencoder.params, to_pixels(pixels), model.autoencoder.encode
            )
            values = np.asarray(latents, np.float64)[:count_here]
            sums += [values.size, values.sum(), np.square(values).sum()]
            colours += pixels[:count_here].size
            saturated += int(np.isin(pixels[:count_here], (0, 255)).sum())
            for losses, texts in ((own, captions), (other, others), (null, [""] * count)):
                # A row that the padding repeats gets the same loss each time.
                losses[numbers] = row_losses(
                    model.params,
                    latents,
                    model.encode([texts[number] for number in numbers]),
                    jnp.asarray(times[numbers]),
                    jnp.asarray(numbers, jnp.int32),
                    jax.random.key(seed),
                    config=model.config,
                    objective=context.objective,
                )
            report(done := done + count_here, count)
    yield "conditioning/loss", float(own.mean())
    yield "conditioning/loss_shuffled", float(other.mean())
    yield "conditioning/loss_null", float(null.mean())
    yield from _gain(own, other)
    changed = sum(a != b for a, b in zip(captions, others, strict=True)) / count
    yield "conditioning/changed", changed
    mean = sums[1] / sums[0]
    yield "latents/std", math.sqrt(max(0.0, sums[2] / sums[0] - mean**2))
    yield "latents/saturated", saturated / colours


@functools.partial(jax.jit, static_argnums=2)
def _latents(params: Any, images: Any, encode: Callable[..., Any]) -> Any:
    """Returns the images' latents. The program is compiled once for each autoencoder."""
    return encode(params, images)


def caption_effect_in_words(values: Mapping[str, float]) -> str:
    """Returns a line with the relative reduction of the loss by captions."""
    gain, error = values["conditioning/gain"], values["conditioning/gain_error"]
    return f"captions reduce the loss by {100 * gain:.1f} % ± {100 * error:.1f} %"


def _gain(own: np.ndarray, other: np.ndarray) -> Iterator[tuple[str, float]]:
    """Yields the relative reduction of the loss by the right captions, and its standard error."""
    difference, scale = other - own, float(other.mean())
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    yield "conditioning/gain", float(difference.mean()) / scale if scale else 0.0
    yield "conditioning/gain_error", error / scale if scale else 0.0


def shuffled(captions: Sequence[str]) -> list[str]:
    """Returns the captions rotated by the distance that changes most of them."""
    count = len(captions)
    distances = sorted({1, max(1, count // 3), max(1, count // 2)}, reverse=True)

    def rotated(distance: int) -> list[str]:
        return [captions[(row + distance) % count] for row in range(count)]

    def changed(distance: int) -> int:
        return sum(a != b for a, b in zip(captions, rotated(distance), strict=True))

    return rotated(max(distances, key=changed))
