"""From noise to latents: numerical solutions of ``dx / dt = velocity(x, t)`` from t = 1 down to 0.

Every solver visits the given times in order and is one `jax.lax.scan` over evaluations of the
velocity, so the network is compiled once. With step ``h = t_next - t`` (negative) and
``v = velocity(x, t)``:

- euler: ``x + h v``
- heun: ``x + h (v + velocity(x + h v, t_next)) / 2``; a step that ends at 0 is an Euler step
- midpoint: ``x + h velocity(x + h v / 2, t + h / 2)``
- dpmpp_2m (Lu et al. 2022, arXiv:2211.01095, for the straight path): with the predicted latents
  ``D = x - t v``, ``x_next = r x + (1 - r) (D + c (D - D_previous))``, ``r = t_next / t``, where
  ``c`` is half the ratio of this step to the last in ``log((1 - t) / t)``. Where either is infinite
  (at times 1 and 0), c = 0.
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
    """Latents at the last of `times`, from `x` at the first."""

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
    """First order, one evaluation a step."""
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
    """Second order, two evaluations a step, one in the last."""
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
    """Second order, two evaluations a step."""
    stages = _two_stages(jnp.asarray(times, x.dtype), reach=0.5)
    return _run_stages(velocity_fn, x, stages, conditioning, weight=1.0)


def dpmpp_2m(
    velocity_fn: VelocityFn,
    x: Float[Array, "b h w c"],
    times: Float[ArrayLike, " s"],
    conditioning: Conditioning,
) -> Float[Array, "b h w c"]:
    """Second order, one evaluation a step: extrapolates the latents predicted in the last."""
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
        t, keep, slope = row
        latents = x - t * velocity_fn(x, _fill(t, x), conditioning)
        x = keep * x + (1 - keep) * (latents + slope * (latents - previous))
        return (x, latents), None

    rows = (times[:-1], times[1:] / times[:-1], slope)
    return jax.lax.scan(step, (x, jnp.zeros_like(x)), rows)[0][0]


def _two_stages(times: Float[Array, " s"], reach: float) -> tuple[Array, ...]:
    """Rows (second stage or not, time, step): each step's start and a point within."""
    count = times.size - 1
    second = jnp.tile(jnp.asarray([False, True]), count)
    h = jnp.repeat(jnp.diff(times), 2)
    t = jnp.repeat(times[:-1], 2) + jnp.where(second, reach * h, 0.0)
    first_length = jnp.where(second, h, reach * h)
    return second, t, first_length


def _run_stages(
    velocity_fn: VelocityFn,
    x: Float[Array, "b h w c"],
    stages: tuple[Array, ...],
    conditioning: Conditioning,
    *,
    weight: float,
) -> Float[Array, "b h w c"]:
    """Two-stage Runge-Kutta; `weight` is the second velocity's share of the whole step."""

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
"""Solvers by name."""


def get_solver(name: str) -> Solver:
    """The solver called `name`."""
    if name not in SOLVERS:
        raise UsageError(f"solver: unknown {name!r}; known: {', '.join(SOLVERS)}")
    return SOLVERS[name]
