"""Solvers of ``dx / dt = velocity(x, t)`` from t = 1 (noise) down to t = 0 (latents).

Every solver visits a list of times in order. Those here are `SteppedSolver`s, which are defined by
one evaluation of the velocity. So a picture is drawn by one `jax.lax.scan` over all evaluations, or
by one evaluation after another (see `stepwise.py`). With step ``h = t_next - t`` (negative) and
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

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pinxit.arrays import ArrayLike, Conditioning, VelocityFn
from pinxit.config import UsageError

Arrays = tuple[Array, ...]


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


class SteppedSolver(ABC):
    """A solver that is defined by one evaluation of the velocity, so that it can be interrupted.

    Its state is a tuple of arrays, the first of which are the latents. Each row of a batch may be
    at another time.
    """

    stages: ClassVar[int] = 1
    """Evaluations of the velocity in a step; the last step may have fewer."""

    @abstractmethod
    def start(self, x: Float[Array, "b h w c"]) -> Arrays:
        """Returns the state before the first evaluation."""

    @abstractmethod
    def columns(self, times: Float[Array, " s"]) -> Arrays:
        """Returns the numbers that evaluations need, as arrays with an entry for each of them.

        The first array has the times at which the velocity is evaluated.
        """

    @abstractmethod
    def advance(
        self, velocity_fn: VelocityFn, state: Arrays, row: Arrays, conditioning: Conditioning
    ) -> Arrays:
        """Returns the state after one evaluation. `row` has an entry of each column for each
        picture."""

    def __call__(
        self,
        velocity_fn: VelocityFn,
        x: Float[Array, "b h w c"],
        times: Float[ArrayLike, " s"],
        conditioning: Conditioning,
    ) -> Float[Array, "b h w c"]:
        """Returns the latents at the last of `times`, after all evaluations."""

        def evaluate(state: Arrays, row: Arrays) -> tuple[Arrays, None]:
            rows = tuple(jnp.full(x.shape[:1], entry) for entry in row)
            return self.advance(velocity_fn, state, rows, conditioning), None

        columns = self.columns(jnp.asarray(times, x.dtype))
        return jax.lax.scan(evaluate, self.start(x), columns)[0][0]


@dataclass(frozen=True)
class Euler(SteppedSolver):
    """Solves with Euler's method: first order, one evaluation per step."""

    def start(self, x: Float[Array, "b h w c"]) -> Arrays:
        """Returns the state before the first evaluation: the latents."""
        return (x,)

    def columns(self, times: Float[Array, " s"]) -> Arrays:
        """Returns the time and the length of each step."""
        return times[:-1], jnp.diff(times)

    def advance(
        self, velocity_fn: VelocityFn, state: Arrays, row: Arrays, conditioning: Conditioning
    ) -> Arrays:
        """Returns the state after one step."""
        (x,), (t, h) = state, row
        return (x + _over(h) * velocity_fn(x, t, conditioning),)


@dataclass(frozen=True)
class DpmSolver2M(SteppedSolver):
    """Solves with DPM-Solver++(2M): second order, one evaluation per step.

    It extrapolates from the latents that the previous step predicted.
    """

    def start(self, x: Float[Array, "b h w c"]) -> Arrays:
        """Returns the state before the first evaluation: the latents, and no prediction."""
        return x, jnp.zeros_like(x)

    def columns(self, times: Float[Array, " s"]) -> Arrays:
        """Returns the time of each step, its ratio of times, and its slope ``c``."""
        log_ratio = jnp.log1p(-times) - jnp.log(times)
        h = jnp.diff(log_ratio)
        slope = 0.5 * h[1:] / h[:-1]
        slope = jnp.where(jnp.isfinite(h[1:]) & jnp.isfinite(h[:-1]), slope, 0.0)
        slope = jnp.concatenate([jnp.zeros(1, times.dtype), slope])
        return times[:-1], times[1:] / times[:-1], slope

    def advance(
        self, velocity_fn: VelocityFn, state: Arrays, row: Arrays, conditioning: Conditioning
    ) -> Arrays:
        """Returns the state after one step."""
        x, previous = state
        t, ratio, slope = row
        latents = x - _over(t) * velocity_fn(x, t, conditioning)
        ratio = _over(ratio)
        x = ratio * x + (1 - ratio) * (latents + _over(slope) * (latents - previous))
        return x, latents


@dataclass(frozen=True)
class TwoStages(SteppedSolver):
    """Solves with a two-stage Runge-Kutta method: second order, two evaluations per step."""

    reach: float
    """The part of the step after which the second stage evaluates the velocity."""
    weight: float
    """The weight of the second velocity in a step."""
    last: bool
    """Whether the last step has a second stage; otherwise it is a step of Euler's method."""
    stages: ClassVar[int] = 2

    def start(self, x: Float[Array, "b h w c"]) -> Arrays:
        """Returns the state before the first evaluation: the latents, those at the step's start,
        and the velocity there."""
        return x, x, jnp.zeros_like(x)

    def columns(self, times: Float[Array, " s"]) -> Arrays:
        """Returns the time of each stage, the length by which it moves from the step's start, and
        whether it is the second one."""
        count = times.size - 1
        second = jnp.tile(jnp.asarray([False, True]), count)
        h = jnp.repeat(jnp.diff(times), 2)
        t = jnp.repeat(times[:-1], 2) + jnp.where(second, self.reach * h, 0.0)
        length = jnp.where(second, h, self.reach * h)
        columns = t, length, second
        return columns if self.last else tuple(column[:-1] for column in columns)

    def advance(
        self, velocity_fn: VelocityFn, state: Arrays, row: Arrays, conditioning: Conditioning
    ) -> Arrays:
        """Returns the state after one stage."""
        x, start, first = state
        t, h, second = row
        h, second = _over(h), _over(second)
        velocity = velocity_fn(x, t, conditioning)
        mean = (1 - self.weight) * first + self.weight * velocity
        start = jnp.where(second, start, x)
        first = jnp.where(second, first, velocity)
        x = start + h * jnp.where(second, mean, velocity)
        return x, start, first


def _over(values: Array) -> Array:
    """Returns one value for each picture in the shape that multiplies latents."""
    return values[:, None, None, None]


euler = Euler()
heun = TwoStages(reach=1.0, weight=0.5, last=False)
midpoint = TwoStages(reach=0.5, weight=1.0, last=True)
dpmpp_2m = DpmSolver2M()
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
