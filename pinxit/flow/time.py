"""The times that training samples, and the times that a solver visits.

Training samples ``t = sigmoid(mean + std * normal)`` (logit-normal, Esser et al. 2024,
arXiv:2403.03206) or t from a uniform distribution. Training and sampling may both shift times
towards the noise, which larger pictures need::

    shifted = shift * t / (1 + (shift - 1) * t)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, overload

import jax
import numpy as np
from jaxtyping import Array, Float

from pinxit.config import UsageError


@overload
def shift_time(t: np.ndarray, shift: float) -> np.ndarray: ...
@overload
def shift_time(t: Array, shift: float) -> Array: ...
def shift_time(t: Array | np.ndarray, shift: float) -> Array | np.ndarray:
    """Shifts `t` towards 1 if ``shift > 1``, and towards 0 if it is less; 0 and 1 do not move."""
    return shift * t / (1 + (shift - 1) * t)


@dataclass(frozen=True)
class TimeSampling:
    """The distribution of training times."""

    distribution: Literal["logit_normal", "uniform"] = "logit_normal"
    mean: float = 0.0
    """The mean of the normal inside the sigmoid. A positive mean gives noisier times. "uniform"
    ignores it."""
    std: float = 1.0
    """The standard deviation of the normal inside the sigmoid. "uniform" ignores it."""
    shift: float = 1.0
    """The shift of times towards the noise; 1 is none (see `shift_time`)."""

    def __post_init__(self) -> None:
        known = ("logit_normal", "uniform")
        if self.distribution not in known:
            raise UsageError(
                f"distribution: unknown {self.distribution!r}; known: {', '.join(known)}"
            )
        for name in ("std", "shift"):
            if not getattr(self, name) > 0:
                raise UsageError(
                    f"{name}: {getattr(self, name)!r} is not valid; it must be above 0"
                )

    def sample(self, key: Array, shape: tuple[int, ...] = ()) -> Float[Array, "*shape"]:
        """Samples times of `shape`, strictly inside (0, 1) up to rounding."""
        if self.distribution == "uniform":
            t = jax.random.uniform(key, shape)
        else:
            t = jax.nn.sigmoid(self.mean + self.std * jax.random.normal(key, shape))
        return shift_time(t, self.shift)


def _check_steps(steps: int, shift: float) -> None:
    if steps < 1:
        raise UsageError(f"steps: {steps!r} is not valid; it must be at least 1")
    if not shift > 0:
        raise UsageError(f"shift: {shift!r} is not valid; it must be above 0")


def time_grid(steps: int, *, shift: float = 1.0) -> Float[np.ndarray, " s"]:
    """Returns ``steps + 1`` times from 1 down to 0, which are evenly spaced before the shift."""
    _check_steps(steps, shift)
    return shift_time(np.linspace(1.0, 0.0, steps + 1), shift).astype(np.float32)


def diffusers_sigmas(
    steps: int, *, shift: float = 1.0, num_train_timesteps: int = 1000
) -> Float[np.ndarray, " s"]:
    """Returns the times of diffusers' `FlowMatchEulerDiscreteScheduler`, with the final 0.

    The grid before that 0 ends at ``1 / num_train_timesteps``, shifted twice. So the last step to 0
    is tiny, and n steps here have the effect of n - 1.
    """
    _check_steps(steps, shift)
    lowest = shift_time(np.ones(1, np.float32) / np.float32(num_train_timesteps), shift)
    ends = np.array([1.0, float(lowest[0])]) * num_train_timesteps
    sigmas = shift_time(np.linspace(ends[0], ends[1], steps) / num_train_timesteps, shift)
    return np.append(sigmas.astype(np.float32), np.float32(0.0))
