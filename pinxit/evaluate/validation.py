"""Validation loss by time: the training loss on held-out rows, with nothing left to chance.

Row ``i`` of ``N`` is seen once, with noise from a fixed key folded with ``i`` and at a fixed time;
the times are spread evenly over [0, 1], every bin getting its share, so that two models (or two
averages of one) are compared on the same noise and the difference is theirs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pinxit.arrays import Conditioning, Example
from pinxit.config import positive
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
        raise ValueError(f"images: {count} rows for {bins} bins of time; valid: at least {bins}")
    encode = jax.jit(model.autoencoder.encode)
    times = spread_times(count, bins=bins, seed=seed)
    losses = []
    for start in range(0, count, batch_size):
        # the last batch repeats its last row, so that there is one shape to compile
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)
        some = [examples[int(row)] for row in rows]
        images = np.stack([row.image for row in some]).astype(np.float32) / 127.5 - 1.0
        loss = row_losses(
            model.params,
            encode(model.autoencoder.params, images),
            model.encode([row.caption for row in some]),
            jnp.asarray(times[rows]),
            jnp.asarray(rows, jnp.int32),
            jax.random.key(seed),
            config=model.config,
        )
        losses.append(np.asarray(loss)[: count - start])
    per_row = np.concatenate(losses)
    yield "validation/loss", float(per_row.mean())
    bin_of = np.arange(count) % bins
    for i in range(bins):
        yield f"validation/loss_t_{(i + 0.5) / bins:.2f}", float(per_row[bin_of == i].mean())


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
