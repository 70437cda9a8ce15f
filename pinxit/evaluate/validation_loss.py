"""Validation loss by time: computes the run's objective on held-out rows, deterministically.

Each of the ``N`` rows is used once, at a fixed time and with noise from a fixed key that is folded
with the row's number. The times are spread evenly over [0, 1] and over the bins. So two models, or
two averages of one model, are compared on the same noise. Images of one size are computed together.
Each device computes batches of its own with the program of a single device, so that the losses do
not depend on the number of devices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from pinxit.arrays import ArrayLike, Conditioning, Example, Objective, to_pixels
from pinxit.config import UsageError, positive
from pinxit.devices.each_device import copied, mesh_of, on_each
from pinxit.evaluate.context import EvaluationContext
from pinxit.evaluate.encoded_rows import EncodedRound, EncodedRows
from pinxit.evaluate.picture_sets import Examples
from pinxit.fixed_batches import batches_by_shape, concatenated, padded
from pinxit.models.transformer import TransformerConfig, apply
from pinxit.pipeline import TextToImage
from pinxit.progress import counted


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
    times = spread_times(count, bins=bins, seed=seed)
    per_row = np.zeros(count, np.float32)
    mesh = mesh_for(model, count, batch_size)
    params, encoded = model.params_on(mesh), context.encoded or EncodedRows(0)
    measured = np.zeros(count, bool)
    with context.showing(f"validation loss on {counted(count, 'row')}", "row") as report:
        report(0, count)
        for one_round in encoded.rounds((batch_size, mesh), lambda: encoded_rounds(context, mesh)):
            context.check()
            numbers = one_round.numbers
            loss = row_losses(
                params,
                one_round.latents,
                one_round.conditioning,
                times[numbers],
                numbers.astype(np.int32),
                jax.random.key(seed),
                config=model.config,
                objective=context.objective,
                mesh=mesh,
            )
            per_row[numbers] = np.asarray(loss)  # a repeated row gets the same loss each time
            measured[numbers] = True
            report(int(measured.sum()), count)
    yield "validation/loss", float(per_row.mean())
    bin_of = np.arange(count) % bins
    for i in range(bins):
        yield f"validation/loss_t_{(i + 0.5) / bins:.2f}", float(per_row[bin_of == i].mean())


def encoded_rounds(context: EvaluationContext, mesh: Mesh | None) -> Iterator[EncodedRound]:
    """Yields the rows of a context, encoded, in the order in which they are computed."""
    model, size = context.model, context.batch_size
    encode = image_encoder_on(model, mesh)
    for batches in rounds(numbered_by_shape(context.rows, size), size, mesh):
        latents = encode(np.stack([row.image for _, batch in batches for row in batch]))
        captions = [[row.caption for row in batch] for _, batch in batches]
        yield EncodedRound(
            numbers=np.concatenate([numbers for numbers, _ in batches]),
            latents=np.asarray(latents),
            conditioning=encoded_captions(model, captions),
        )


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


def mesh_for(model: TextToImage, count: int, batch_size: int) -> Mesh | None:
    """Returns the mesh of the model's devices, or None if there is only one batch of rows."""
    return mesh_of(model.devices) if count > batch_size else None


def rounds(
    batches: Iterable[tuple[Int[np.ndarray, " n"], list[Example]]], size: int, mesh: Mesh | None
) -> Iterator[list[tuple[Int[np.ndarray, " n"], list[Example]]]]:
    """Yields a batch of `size` rows for each device, all of one image shape, with their numbers.

    A batch that is not full repeats its last row, and the last batch of a shape is repeated for
    devices without another one, so that only one program is compiled for a shape.
    """
    devices = 1 if mesh is None else mesh.size
    full = ((padded(numbers, size), padded(rows, size)) for numbers, rows in batches)
    for one_round in batches_by_shape(full, devices, shape=lambda batch: batch[1][0].image.shape):
        yield padded(one_round, devices)


def image_encoder_on(
    model: TextToImage, mesh: Mesh | None
) -> Callable[[np.ndarray], Float[Array, "b h w c"]]:
    """Returns a function from uint8 images to latents, which each device computes for its batch."""
    encode = jax.jit(on_each(model.autoencoder.encode, mesh, shared=1))
    params = copied(model.autoencoder.params, mesh)
    return lambda images: encode(params, to_pixels(images))


def encoded_captions(model: TextToImage, captions: Iterable[Sequence[str]]) -> Conditioning:
    """Returns the conditioning of several batches of captions, which are encoded one by one."""
    return concatenated([model.encode(batch) for batch in captions])


@functools.partial(jax.jit, static_argnames=("config", "objective", "mesh"))
def row_losses(
    params: Any,
    latents: Float[ArrayLike, "b h w c"],
    conditioning: Conditioning,
    t: Float[ArrayLike, " b"],
    rows: Int[ArrayLike, " b"],
    key: Array,
    *,
    config: TransformerConfig,
    objective: Objective,
    mesh: Mesh | None = None,
) -> Float[Array, " b"]:
    """Returns the objective's error of each row, with noise that depends on the row's number."""

    def losses(
        params: Any, key: Array, latents: Array, conditioning: Conditioning, t: Array, rows: Array
    ) -> Array:
        shape = latents.shape[1:]
        noise = jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), shape))(rows)

        def model(x_t: Array, t: Array, conditioning: Conditioning) -> Array:
            return apply(config, params, x_t, t, conditioning)

        return objective.error(model, latents, conditioning, noise=noise, t=t)

    return on_each(losses, mesh, shared=2)(params, key, latents, conditioning, t, rows)
