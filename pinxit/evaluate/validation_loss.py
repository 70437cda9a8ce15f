"""Validation loss by time: the training loss on held-out rows, with nothing left to chance.

Row ``i`` of ``N`` is seen once, with noise from a fixed key folded with ``i`` and at a fixed time;
the times are spread evenly over [0, 1], every bin getting its share, so that two models (or two
averages of one) are compared on the same noise and the difference is theirs. Images may have
several sizes: those of one size are computed together.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pinxit.arrays import Conditioning, Example, to_pixels
from pinxit.config import UsageError, positive
from pinxit.fixed_batches import batches_by_shape, padded
from pinxit.flow.path import interpolate, velocity
from pinxit.models.transformer import TransformerConfig, apply
from pinxit.pipeline import TextToImage


@runtime_checkable
class Examples(Protocol):
    """Rows by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


def validation_loss(
    model: TextToImage,
    examples: Examples | Sequence[Example],
    *,
    batch_size: int = 32,
    bins: int = 10,
    seed: int = 0,
) -> Iterator[tuple[str, float]]:
    """Yields ``validation/loss``, then ``validation/loss_t_<middle of the bin>`` for each bin."""
    positive("batch_size", batch_size)
    positive("bins", bins)
    count = len(examples)
    if count < bins:
        raise UsageError(f"images: {count} rows for {bins} bins of time; valid: at least {bins}")
    encode = jax.jit(model.autoencoder.encode)
    times = spread_times(count, bins=bins, seed=seed)
    per_row = np.zeros(count, np.float32)
    for numbers, some in numbered_by_shape(examples, batch_size):
        # a batch that is not full repeats its last row, so that there is one shape to compile
        numbers, some = padded(numbers, batch_size), padded(some, batch_size)
        images = to_pixels(np.stack([row.image for row in some]))
        loss = row_losses(
            model.params,
            encode(model.autoencoder.params, images),
            model.encode([row.caption for row in some]),
            jnp.asarray(times[numbers]),
            jnp.asarray(numbers, jnp.int32),
            jax.random.key(seed),
            config=model.config,
        )
        per_row[numbers] = np.asarray(loss)  # a repeated row has one value
    yield "validation/loss", float(per_row.mean())
    bin_of = np.arange(count) % bins
    for i in range(bins):
        yield f"validation/loss_t_{(i + 0.5) / bins:.2f}", float(per_row[bin_of == i].mean())


def numbered_by_shape(
    examples: Examples | Sequence[Example], size: int
) -> Iterator[tuple[Int[np.ndarray, " n"], list[Example]]]:
    """Yields rows with their numbers, `size` of one image shape at a time, the last of each
    fewer."""
    numbered = ((number, examples[number]) for number in range(len(examples)))
    for batch in batches_by_shape(numbered, size, shape=lambda pair: pair[1].image.shape):
        numbers, rows = zip(*batch, strict=True)
        yield np.asarray(numbers, np.int64), list(rows)


def spread_times(count: int, *, bins: int, seed: int) -> Float[np.ndarray, " n"]:
    """Times, one for each row: row i is in bin ``i % bins``, evenly spread inside it."""
    row = np.arange(count)
    within, size = row // bins, -(-count // bins)
    jitter = np.random.default_rng(seed).uniform(size=count)
    return ((row % bins + (within + jitter) / size) / bins).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("config",))
def row_losses(
    params: Any,
    latents: Float[Array, "b h w c"],
    conditioning: Conditioning,
    t: Float[Array, " b"],
    rows: Int[Array, " b"],
    key: Array,
    *,
    config: TransformerConfig,
) -> Float[Array, " b"]:
    """The loss of each row, with the noise that belongs to its number."""
    shape = latents.shape[1:]
    noise = jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), shape))(rows)
    predicted = apply(config, params, interpolate(latents, noise, t), t, conditioning)
    error = jnp.square(predicted.astype(jnp.float32) - velocity(latents, noise))
    return error.mean(axis=(1, 2, 3))
