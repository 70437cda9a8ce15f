"""Classifier-free guidance: moves the prediction for a prompt away from that for the empty prompt.

::

    guided = null + scale * (conditional - null)

(Ho & Salimans 2022, arXiv:2207.12598); ``scale = 1`` turns it off. It may be limited to an interval
of times (Kynkäänniemi et al. 2024, arXiv:2404.07724). CFG-Zero* (Fan et al. 2025, arXiv:2503.18886)
first scales the null velocity to fit the conditional one, and sets the velocity to zero at the
start of sampling.

The numbers of a guidance are arguments of the compiled program, so another scale needs no new one.
Only its form, which parts of it are in use, is compiled into the program.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pinxit.arrays import ArrayLike, Conditioning, VelocityFn
from pinxit.config import UsageError


@dataclass(frozen=True)
class GuidanceForm:
    """The parts of a guidance that are in use. Each combination is a program of its own."""

    on: bool = True
    """Whether the null velocity is evaluated at all."""
    limited: bool = False
    """Whether guidance is applied within an interval of times only."""
    zero_star: bool = False
    """Whether the null velocity is scaled to fit the conditional one."""
    zero_init: bool = False
    """Whether the velocity is zero at the start."""


@dataclass(frozen=True)
class Guidance:
    """The strength of guidance and the times at which it is applied."""

    scale: float = 4.0
    """The strength of guidance; 1 turns it off. With larger values pictures follow the prompt more
    closely, but vary less."""
    interval: tuple[float, float] = (0.0, 1.0)
    """The times at which guidance is applied, both ends included. At other times the velocity is
    evaluated once, without guidance."""
    zero_star: bool = False
    """CFG-Zero*: multiply the null velocity by ``<conditional, null> / |null|^2``."""
    zero_init: float = 0.0
    """CFG-Zero*: set the velocity to zero for ``t > 1 - zero_init``; 0.04 skips the first of 25
    steps."""

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= low < high <= 1:
            valid = "low high with 0 <= low < high <= 1"
            raise UsageError("interval", self.interval, problem="not an interval", valid=valid)
        if not 0 <= self.zero_init < 1:
            raise UsageError(
                f"zero_init: {self.zero_init!r} is not valid; it must be at least 0 and below 1"
            )

    @property
    def form(self) -> GuidanceForm:
        """The parts that are in use."""
        on = self.scale != 1
        return GuidanceForm(
            on=on,
            limited=on and self.interval != (0.0, 1.0),
            zero_star=on and self.zero_star,
            zero_init=self.zero_init > 0,
        )

    def numbers(self) -> Float[np.ndarray, " 4"]:
        """Returns the scale, both ends of the interval, and the time at which motion starts."""
        return np.array([self.scale, *self.interval, 1 - self.zero_init], np.float32)


def guided(
    velocity_fn: VelocityFn,
    null: Conditioning,
    form: GuidanceForm,
    numbers: Float[ArrayLike, " 4"] | Float[ArrayLike, "b 4"],
) -> VelocityFn:
    """Returns `velocity_fn` with the guidance of this form and these numbers.

    `numbers` are those of `Guidance.numbers`, for all samples or with a row for each of them.

    Guidance evaluates a batch of twice the size. Where it is off, the batch itself is evaluated.
    `null` is the encoded empty or negative prompt, with one row, or with one row per sample.
    """
    scale, low, high, start = (jnp.asarray(numbers)[..., i] for i in range(4))
    if scale.ndim:
        scale = scale[:, None, None, None]

    def both(x_t: Array, t: Array, conditioning: Conditioning) -> Array:
        doubled = jax.tree.map(_stacked, conditioning, null)
        velocities = velocity_fn(_twice(x_t), _twice(t), doubled)
        conditional, unconditional = jnp.split(velocities, 2)
        if form.zero_star:
            unconditional = _projection(conditional, unconditional) * unconditional
        return unconditional + scale * (conditional - unconditional)

    def within(x_t: Array, t: Array, conditioning: Conditioning) -> Array:
        inside = (t >= low) & (t <= high)

        def mixed() -> Array:
            plain = velocity_fn(x_t, t, conditioning)
            return jnp.where(inside[:, None, None, None], both(x_t, t, conditioning), plain)

        # Samples of one call have the same time, so it takes one of the first two branches.
        branch = jnp.where(jnp.all(inside), 0, jnp.where(jnp.any(inside), 2, 1))
        plain = [lambda: both(x_t, t, conditioning), lambda: velocity_fn(x_t, t, conditioning)]
        return jax.lax.switch(branch, [*plain, mixed])

    guided_fn = velocity_fn
    if form.on:
        guided_fn = within if form.limited else both
    if not form.zero_init:
        return guided_fn

    def zero_at_start(
        x_t: Float[Array, "b h w c"], t: Float[Array, " b"], conditioning: Conditioning
    ) -> Float[Array, "b h w c"]:
        moving = (t <= start)[:, None, None, None]
        return jnp.where(moving, guided_fn(x_t, t, conditioning), 0.0)

    return zero_at_start


def _twice(x: Array) -> Array:
    return jnp.concatenate([x, x])


def _stacked(conditional: ArrayLike, null: ArrayLike) -> Array:
    conditional = jnp.asarray(conditional)
    null = jnp.broadcast_to(jnp.asarray(null, conditional.dtype), conditional.shape)
    return jnp.concatenate([conditional, null])


def _projection(
    conditional: Float[Array, "b h w c"], unconditional: Float[Array, "b h w c"]
) -> Float[Array, "b 1 1 1"]:
    axes = (1, 2, 3)
    dot = jnp.sum(conditional * unconditional, axis=axes, keepdims=True)
    return dot / (jnp.sum(jnp.square(unconditional), axis=axes, keepdims=True) + 1e-8)
