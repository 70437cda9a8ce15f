"""The state of a run on the devices: all the next step depends on, besides data and seed."""

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
    """A pytree; each step takes one and returns the next.

    Its leaves are arrays, or whatever `jax.tree.map` makes of them (shapes, shardings).
    """

    step: Any
    """int32: steps taken, skipped ones included; the loader's position, too."""
    params: Any
    """Parameters, fp32."""
    ema: dict[str, Any]
    """Averages of the parameters by name (`EmaConfig.names`)."""
    opt_state: Any
    """The optimiser's moments and its own count of updates."""
    skipped: Any
    """int32: steps whose loss or gradient was not finite, so far."""
    consecutive: Any
    """int32: the same, in a row, up to now."""
    loss_scale: Any
    """float32: factor on the loss in float16; 1 otherwise."""
    good_steps: Any
    """int32: finite steps since the loss scale last changed."""


def init_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    *,
    ema: EmaConfig | None = None,
    loss_scale: float = 1.0,
) -> TrainState:
    """The state before the first step."""
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
