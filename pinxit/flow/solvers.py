"""Solvers of ``dx / dt = velocity(x, t)`` from t = 1 (noise) down to t = 0 (latents).

Every solver visits a list of times in order, in one `jax.lax.scan` over evaluations of the
velocity, so the network is compiled once. With step ``h = t_next - t`` (negative) and
``v = velocity(x, t)``:

- euler: ``x + h v``
- heun: ``x + h (v + velocity(x + h v, t_next)) / 2``; a step that ends at 0 is an Euler step
- midpoint: ``x + h velocity(x + h v / 2, t + h / 2)``
- dpmpp_2m (Lu et al. 2022, arXiv:2211.01095, for the straight path):
  ``r x + (1 - r) (D + c (D - D_previous))`` with ``r = t_next / t`` and the predicted latents
  ``D = x - t v``. ``c`` is half the ratio of this step to the previous one, both measured in
  ``log((1 - t) / t)``. If either is infinite (at times 1 and 0), c = 0.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pinxit.arrays import ArrayLike, Conditioning, VelocityFn
from pinxit.config import UsageError


@runtime_checkable
class Solver(Protocol):
    """Integrates from `x` at the first of `times`; returns the latents at the last."""

    def __call__(
        self,
        velocity_fn: VelocityFn,
        x: Float[Array, "b h w c"],
        times: Float[ArrayLike, " s"],
        conditioning: Conditioning,
    ) -> Float[Array, "b h w c"]: ...


def euler(
    velocity_fn: VelocityFn,
    x: Float[Array, "b h w c"],
    times: Float[ArrayLike, " s"],
    conditioning: Conditioning,
) -> Float[Array, "b h w c"]:
    """Solves with Euler's method: first order, one evaluation per step."""
    times = jnp.asarray(times, x.dtype)

    def step(x: Array, row: tuple[Array, Array]) -> tuple[Array, None]:
        t, h = row
        return x + h * velocity_fn(x, _fill(t, x), conditioning), None

    return jax.lax.scan(step, x, (times[:-1], jnp.diff(times)))[0]


def heun(
    velocity_fn: VelocityFn,
    x: Float[Array, "b h w c"],
    times: Float[ArrayLike, " s"],
    conditioning: Conditioning,
) -> Float[Array, "b h w c"]:
    """Solves with Heun's method: second order, two evaluations per step, one in the last step."""
    times = jnp.asarray(times, x.dtype)
    stages = _two_stages(times, reach=1.0)
    stages = jax.tree.map(lambda column: column[:-1], stages)
    return _run_stages(velocity_fn, x, stages, conditioning, weight=0.5)


def midpoint(
    velocity_fn: VelocityFn,
    x: Float[Array, "b h w c"],
    times: Float[ArrayLike, " s"],
    conditioning: Conditioning,
) -> Float[Array, "b h w c"]:
    """Solves with the midpoint method: second order, two evaluations per step."""
    stages = _two_stages(jnp.asarray(times, x.dtype), reach=0.5)
    return _run_stages(velocity_fn, x, stages, conditioning, weight=1.0)


def dpmpp_2m(
    velocity_fn: VelocityFn,
    x: Float[Array, "b h w c"],
    times: Float[ArrayLike, " s"],
    conditioning: Conditioning,
) -> Float[Array, "b h w c"]:
    """Solves with DPM-Solver++(2M): second order, one evaluation per step.

    It extrapolates from the latents that the previous step predicted.
    """
    times = jnp.asarray(times, x.dtype)
    log_ratio = jnp.log1p(-times) - jnp.log(times)
    h = jnp.diff(log_ratio)
    slope = 0.5 * h[1:] / h[:-1]
    slope = jnp.where(jnp.isfinite(h[1:]) & jnp.isfinite(h[:-1]), slope, 0.0)
    slope = jnp.concatenate([jnp.zeros(1, x.dtype), slope])

    def step(
        carry: tuple[Array, Array], row: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array], None]:
        x, previous = carry
        t, ratio, slope = row
        latents = x - t * velocity_fn(x, _fill(t, x), conditioning)
        x = ratio * x + (1 - ratio) * (latents + slope * (latents - previous))
        return (x, latents), None

    rows = (times[:-1], times[1:] / times[:-1], slope)
    return jax.lax.scan(step, (x, jnp.zeros_like(x)), rows)[0][0]


def _two_stages(times: Float[Array, " s"], reach: float) -> tuple[Array, ...]:
    """Returns columns with two rows per step, one per stage.

    The columns are whether it is the second stage, the time of its evaluation, and the length by
    which it moves from the step's start. The second stage evaluates at `reach` of the step.
    """
    count = times.size - 1
    second = jnp.tile(jnp.asarray([False, True]), count)
    h = jnp.repeat(jnp.diff(times), 2)
    t = jnp.repeat(times[:-1], 2) + jnp.where(second, reach * h, 0.0)
    length = jnp.where(second, h, reach * h)
    return second, t, length


def _run_stages(
    velocity_fn: VelocityFn,
    x: Float[Array, "b h w c"],
    stages: tuple[Array, ...],
    conditioning: Conditioning,
    *,
    weight: float,
) -> Float[Array, "b h w c"]:
    """Runs a two-stage Runge-Kutta method; `weight` is the second velocity's weight in a step."""

    def evaluate(
        carry: tuple[Array, ...], row: tuple[Array, ...]
    ) -> tuple[tuple[Array, ...], None]:
        x, start, first = carry
        second, t, h = row
        velocity = velocity_fn(x, _fill(t, x), conditioning)
        mean = (1 - weight) * first + weight * velocity
        start = jnp.where(second, start, x)
        first = jnp.where(second, first, velocity)
        x = start + h * jnp.where(second, mean, velocity)
        return (x, start, first), None

    return jax.lax.scan(evaluate, (x, x, jnp.zeros_like(x)), stages)[0][0]


def _fill(t: Float[Array, ""], x: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    return jnp.full(x.shape[:1], t)


SOLVERS: dict[str, Solver] = {
    "euler": euler,
    "heun": heun,
    "midpoint": midpoint,
    "dpmpp_2m": dpmpp_2m,
}
"""The solvers by name."""


def get_solver(name: str) -> Solver:
    """Returns the solver called `name`; raises `UsageError` if there is none."""
    if name not in SOLVERS:
        raise UsageError(f"solver: unknown {name!r}; known: {', '.join(SOLVERS)}")
    return SOLVERS[name]
