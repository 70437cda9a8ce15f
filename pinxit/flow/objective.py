"""Flow matching: the model predicts the velocity of a random path at a random time.

::

    loss = mean of |model(x_t, t, conditioning) - (noise - latents)|^2

over elements, then over samples (Lipman et al. 2022, arXiv:2210.02747). The objective samples
noise, times and caption dropout. The random values of a sample depend only on the key and the
sample's index, so they are the same however samples are divided into batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from pinxit.arrays import ArrayLike, Batch, Conditioning, Objective, VelocityFn
from pinxit.config import UsageError
from pinxit.flow.path import interpolate, velocity
from pinxit.flow.time import TimeSampling


@dataclass(frozen=True)
class FlowMatching:
    """Velocity regression with caption dropout; an `Objective`."""

    time: TimeSampling = field(default_factory=TimeSampling)
    caption_dropout: float = 0.1
    """The fraction of samples whose caption is replaced by the empty one, for classifier-free
    guidance."""
    bins: int = 10
    """The number of equal bins of time for which the loss is reported."""

    def __post_init__(self) -> None:
        if not 0 <= self.caption_dropout <= 1:
            raise UsageError(
                f"caption_dropout: {self.caption_dropout!r} is not valid; it must be from 0 to 1"
            )
        if self.bins < 1:
            raise UsageError(f"bins: {self.bins!r} is not valid; it must be at least 1")

    def loss(
        self, model: VelocityFn, batch: Batch, *, key: Array
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Returns the mean loss, and metrics.

        ``loss_of_zero`` is the loss of a model that always predicts zero, as a reference.
        ``loss_by_t_sum`` and ``loss_by_t_count`` are the sum of the samples' losses and the number
        of samples in each bin of time. To get the loss by time, add both over batches, then divide.
        """
        latents = jnp.asarray(batch.latents, jnp.float32)
        noise, t, dropped = self.draw(key, batch)
        conditioning = drop_captions(batch.conditioning, batch.null, dropped)
        per_sample = self.error(model, latents, conditioning, noise=noise, t=t)
        bin_of = jnp.clip((t * self.bins).astype(jnp.int32), 0, self.bins - 1)
        empty = jnp.zeros(self.bins, jnp.float32)
        loss = jnp.mean(per_sample)
        return loss, {
            "loss": loss,
            "loss_of_zero": jnp.mean(jnp.square(velocity(latents, noise))),
            "loss_by_t_sum": empty.at[bin_of].add(jax.lax.stop_gradient(per_sample)),
            "loss_by_t_count": empty.at[bin_of].add(1.0),
        }

    def error(
        self,
        model: VelocityFn,
        latents: Float[Array, "b h w c"],
        conditioning: Conditioning,
        *,
        noise: Float[Array, "b h w c"],
        t: Float[Array, " b"],
    ) -> Float[Array, " b"]:
        """Returns the mean squared error of each sample's velocity."""
        error = velocity_error(model, latents, conditioning, noise=noise, t=t)
        return jnp.mean(jnp.square(error), axis=(1, 2, 3))

    def draw(
        self, key: Array, batch: Batch
    ) -> tuple[Float[Array, "b h w c"], Float[Array, " b"], Bool[Array, " b"]]:
        """Samples noise, time and whether the caption is dropped for each sample of the batch."""
        shape = batch.latents.shape[1:]

        def one(index: Array) -> tuple[Array, Array, Array]:
            noise_key, time_key, drop_key = jax.random.split(jax.random.fold_in(key, index), 3)
            return (
                jax.random.normal(noise_key, shape),
                self.time.sample(time_key),
                jax.random.bernoulli(drop_key, self.caption_dropout),
            )

        return jax.vmap(one)(jnp.asarray(batch.index))


def velocity_error(
    model: VelocityFn,
    latents: Float[Array, "b h w c"],
    conditioning: Conditioning,
    *,
    noise: Float[Array, "b h w c"],
    t: Float[Array, " b"],
) -> Float[Array, "b h w c"]:
    """Returns the predicted velocity minus the velocity of the path, in float32."""
    predicted = model(interpolate(latents, noise, t), t, conditioning)
    return predicted.astype(jnp.float32) - velocity(latents, noise)


def drop_captions(
    conditioning: Conditioning, null: Conditioning, dropped: Bool[Array, " b"]
) -> Conditioning:
    """Replaces the rows of `conditioning` where `dropped` is True by the only row of `null`."""

    def choose(captions: ArrayLike, empty: ArrayLike) -> Array:
        captions = jnp.asarray(captions)
        rows = jnp.expand_dims(dropped, tuple(range(1, captions.ndim)))
        return jnp.where(rows, jnp.asarray(empty, captions.dtype), captions)

    return jax.tree.map(choose, conditioning, null)


OBJECTIVES: dict[str, type[Objective]] = {"flow_matching": FlowMatching}
"""The objectives by the names that ``--objective`` accepts and a run's config.json contains."""
