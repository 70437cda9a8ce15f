"""Validation loss by time: computes the run's objective on held-out rows, deterministically.

Each of the ``N`` rows is used once, at a fixed time and with noise from a fixed key that is folded
with the row's number. The times are spread evenly over [0, 1] and over the bins. So two models, or
two averages of one model, are compared on the same noise. Images of one size are computed together.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pinxit.arrays import Conditioning, Example, Objective, to_pixels
from pinxit.config import UsageError, positive
from pinxit.evaluate.context import EvaluationContext, Examples
from pinxit.fixed_batches import batches_by_shape, padded
from pinxit.models.transformer import TransformerConfig, apply


def validation_loss(
    context: EvaluationContext, *, bins: int = 10, seed: int = 0
) -> Iterator[tuple[str, float]]:
    """Yields ``validation/loss``, then ``validation/loss_t_<middle of the bin>`` for each bin."""
    positive("bins", bins)
    model, examples, batch_size = context.model, context.rows, context.batch_size
    count = len(examples)
    if not count:
        return
    if count < bins:
        raise UsageError(f"images: {count} rows for {bins} bins of time; valid: at least {bins}")
    encode = jax.jit(model.autoencoder.encode)
    times = spread_times(count, bins=bins, seed=seed)
    per_row = np.zeros(count, np.float32)
    for numbers, batch in numbered_by_shape(examples, batch_size):
        # The last batch repeats its last row until it is full, so that only one shape is compiled.
        numbers, batch = padded(numbers, batch_size), padded(batch, batch_size)
        images = to_pixels(np.stack([row.image for row in batch]))
        loss = row_losses(
            model.params,
            encode(model.autoencoder.params, images),
            model.encode([row.caption for row in batch]),
            jnp.asarray(times[numbers]),
            jnp.asarray(numbers, jnp.int32),
            jax.random.key(seed),
            config=model.config,
            objective=context.objective,
        )
        per_row[numbers] = np.asarray(loss)  # a repeated row gets the same loss each time
    yield "validation/loss", float(per_row.mean())
    bin_of = np.arange(count) % bins
    for i in range(bins):
        yield f"validation/loss_t_{(i + 0.5) / bins:.2f}", float(per_row[bin_of == i].mean())


def validation_in_words(values: Mapping[str, float]) -> str:
    """Returns a line with the loss of each set of parameters."""
    named = {name.rpartition("/")[2]: value for name, value in values.items()}
    losses = ", ".join(f"{name} {loss:.4f}" for name, loss in named.items() if "_t_" not in name)
    return f"validation loss: {losses}"


def numbered_by_shape(
    examples: Examples | Sequence[Example], size: int
) -> Iterator[tuple[Int[np.ndarray, " n"], list[Example]]]:
    """Yields batches of `size` rows of one image shape, with the rows' numbers.

    The last batch of a shape may be smaller.
    """
    numbered = ((number, examples[number]) for number in range(len(examples)))
    for batch in batches_by_shape(numbered, size, shape=lambda pair: pair[1].image.shape):
        numbers, rows = zip(*batch, strict=True)
        yield np.asarray(numbers, np.int64), list(rows)


def spread_times(count: int, *, bins: int, seed: int) -> Float[np.ndarray, " n"]:
    """Returns a time for each row: row i lies in bin ``i % bins``, evenly spread within it."""
    row = np.arange(count)
    within, size = row // bins, -(-count // bins)
    jitter = np.random.default_rng(seed).uniform(size=count)
    return ((row % bins + (within + jitter) / size) / bins).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("config", "objective"))
def row_losses(
    params: Any,
    latents: Float[Array, "b h w c"],
    conditioning: Conditioning,
    t: Float[Array, " b"],
    rows: Int[Array, " b"],
    key: Array,
    *,
    config: TransformerConfig,
    objective: Objective,
) -> Float[Array, " b"]:
    """Returns the objective's error of each row, with noise that depends on the row's number."""
    shape = latents.shape[1:]
    noise = jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), shape))(rows)

    def model(x_t: Array, t: Array, conditioning: Conditioning) -> Array:
        return apply(config, params, x_t, t, conditioning)

    return objective.error(model, latents, conditioning, noise=noise, t=t)
