"""The state of a run on the devices: everything that the next step needs, besides data and seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pinxit.train.ema import EmaConfig, init_ema


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """The state of training, as a pytree. Each step takes a state and returns the next one.

    Its leaves are arrays, or the results of `jax.tree.map` on them (shapes, shardings).
    """

    step: Any
    """Number of steps taken, including skipped ones (int32). Also the loader's position."""
    params: Any
    """Parameters of the network (float32)."""
    ema: dict[str, Any]
    """Averages of the parameters, by name (`EmaConfig.names`)."""
    opt_state: Any
    """Moments of the optimiser and its own count of updates."""
    skipped: Any
    """Number of steps so far whose loss or gradient was not finite (int32)."""
    consecutive: Any
    """Number of consecutive such steps up to now (int32)."""
    loss_scale: Any
    """Factor on the loss in float16, 1 otherwise (float32)."""
    good_steps: Any
    """Number of finite steps since the loss scale last changed (int32)."""


def init_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    *,
    ema: EmaConfig | None = None,
    loss_scale: float = 1.0,
) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=init_ema(ema, params) if ema is not None else {},
        opt_state=optimizer.init(params),
        skipped=jnp.zeros((), jnp.int32),
        consecutive=jnp.zeros((), jnp.int32),
        loss_scale=jnp.asarray(loss_scale, jnp.float32),
        good_steps=jnp.zeros((), jnp.int32),
    )
