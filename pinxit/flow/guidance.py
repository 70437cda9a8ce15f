"""Classifier-free guidance: away from what the empty prompt would draw.

::

    guided = null + scale * (conditional - null)

(Ho & Salimans 2022, arXiv:2207.12598); ``scale = 1`` is off. It may be limited to an interval of
times (Kynkäänniemi et al. 2024, arXiv:2404.07724), and CFG-Zero* (Fan et al. 2025,
arXiv:2503.18886) first scales the null velocity to fit the conditional one and holds still at the
very start.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pinxit.arrays import ArrayLike, Conditioning, VelocityFn
from pinxit.config import UsageError


@dataclass(frozen=True)
class Guidance:
    """How strongly, and when, to follow the prompt."""

    scale: float = 4.0
    """1 is off; larger follows the prompt more closely, at the price of variety."""
    interval: tuple[float, float] = (0.0, 1.0)
    """Times in which guidance acts, ends included; outside, one plain evaluation is made."""
    zero_star: bool = False
    """CFG-Zero*: multiply the null velocity by ``<conditional, null> / |null|^2``."""
    zero_init: float = 0.0
    """CFG-Zero*: zero velocity for ``t > 1 - zero_init``; 0.04 skips the first of 25 steps."""

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise UsageError(
                f"interval: {self.interval!r} is not valid; "
                "it must be (low, high) with 0 <= low < high <= 1"
            )
        if not 0 <= self.zero_init < 1:
            raise UsageError(
                f"zero_init: {self.zero_init!r} is not valid; it must be at least 0 and below 1"
            )


def guided(velocity_fn: VelocityFn, null: Conditioning, guidance: Guidance) -> VelocityFn:
    """`velocity_fn` with guidance: one evaluation of a doubled batch, or a plain one where off.

    `null` has one row, or one per sample (a negative prompt).
    """

    def both(x_t: Array, t: Array, conditioning: Conditioning) -> Array:
        doubled = jax.tree.map(_stacked, conditioning, null)
        velocities = velocity_fn(_twice(x_t), _twice(t), doubled)
        conditional, unconditional = jnp.split(velocities, 2)
        if guidance.zero_star:
            unconditional = _projection(conditional, unconditional) * unconditional
        return unconditional + guidance.scale * (conditional - unconditional)

    def within(x_t: Array, t: Array, conditioning: Conditioning) -> Array:
        low, high = guidance.interval
        inside = (t >= low) & (t <= high)

        def mixed() -> Array:
            plain = velocity_fn(x_t, t, conditioning)
            return jnp.where(inside[:, None, None, None], both(x_t, t, conditioning), plain)

        # A solver gives every sample the same time, so one of the first two branches is taken.
        branch = jnp.where(jnp.all(inside), 0, jnp.where(jnp.any(inside), 2, 1))
        plain = [lambda: both(x_t, t, conditioning), lambda: velocity_fn(x_t, t, conditioning)]
        return jax.lax.switch(branch, [*plain, mixed])

    if guidance.scale == 1:
        guided_fn = velocity_fn
    else:
        guided_fn = both if guidance.interval == (0.0, 1.0) else within
    if guidance.zero_init == 0:
        return guided_fn

    def still_at_first(
        x_t: Float[Array, "b h w c"], t: Float[Array, " b"], conditioning: Conditioning
    ) -> Float[Array, "b h w c"]:
        moving = (t <= 1 - guidance.zero_init)[:, None, None, None]
        return jnp.where(moving, guided_fn(x_t, t, conditioning), 0.0)

    return still_at_first


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
