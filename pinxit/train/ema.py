"""Moving averages of the parameters, with several lengths of which the best is chosen at the end.

The power-function average of Karras et al. (2024, arXiv:2312.02696) weights the parameters of step
``s`` by ``s ** gamma``. It therefore forgets the beginning of a run of any length and needs no
warm-up: ``ema = beta(s) * ema + (1 - beta(s)) * params`` with
``beta(s) = (1 - 1 / s) ** (gamma + 1)``. Its length is specified by ``sigma_rel``, the standard
deviation of the weights relative to the length of the run, which solves
``sigma_rel ** 2 = (gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))``. 0.05 is short, 0.25 is long.

A fixed decay gives the usual exponential average with a warm-up:
``beta(s) = min(decay, s / (s + 9))``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from pinxit.config import UsageError


@dataclass(frozen=True)
class EmaConfig:
    """The moving averages of the parameters that a run computes."""

    kind: Literal["power", "decay"] = "power"
    """Meaning of the lengths: power means relative standard deviations (0.05 to 0.28), decay means
    decay rates."""
    lengths: tuple[float, ...] = (0.05, 0.1, 0.2)
    """Lengths of the averages. Validation chooses the best one at the end. An empty list disables
    averaging."""

    def __post_init__(self) -> None:
        """Refuses unknown kinds and lengths outside their range."""
        if self.kind not in ("power", "decay"):
            raise UsageError(f"ema.kind: unknown kind {self.kind!r}; known: power, decay")
        low, high = (0.0, 0.28) if self.kind == "power" else (0.0, 1.0)
        for length in self.lengths:
            if not low < length < high:
                raise UsageError(
                    f"ema.lengths: {length} is out of range for kind {self.kind!r}; "
                    f"valid: above {low} and below {high}"
                )
        if len(set(self.lengths)) != len(self.lengths):
            raise UsageError(f"ema.lengths: {self.lengths} contains a length twice")

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of `TrainState.ema`, such as ``ema_0.05``."""
        return tuple(f"ema_{length:g}" for length in self.lengths)


def power_exponent(sigma_rel: float) -> float:
    """Returns gamma of the power-function average with relative standard deviation `sigma_rel`."""
    inverse = sigma_rel**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return float(np.max(roots.real))


def decay_at(config: EmaConfig, length: float, step: jax.Array) -> jax.Array:
    """Returns the weight of the previous average (beta) at `step`, counted from 1."""
    s = step.astype(jnp.float32)
    if config.kind == "power":
        return (1.0 - 1.0 / s) ** (power_exponent(length) + 1.0)
    return jnp.minimum(length, (s - 1.0) / (s + 9.0))


def init_ema(config: EmaConfig, params: Any) -> dict[str, Any]:
    """Returns the initial averages: one copy of the parameters for each length."""
    return {name: jax.tree.map(jnp.copy, params) for name in config.names}


def update_ema(
    config: EmaConfig, ema: dict[str, Any], params: Any, *, step: jax.Array
) -> dict[str, Any]:
    """Returns the averages after `step` (counted from 1), where `params` are its parameters."""
    updated = {}
    for name, length in zip(config.names, config.lengths, strict=True):
        keep = decay_at(config, length, step)
        updated[name] = jax.tree.map(lambda a, p, k=keep: p + k * (a - p), ema[name], params)
    return updated
