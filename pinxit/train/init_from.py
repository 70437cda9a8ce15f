"""Initial parameters of a run: random, or those of a trained model.

No parameter of the network depends on the image size (positions are rotations), so a model trained
at 256 pixels can continue at 512. A run starts from the parameters that the model samples with,
which are the best average of its run. The new run's parameters and averages all start from them.
Its optimiser starts from zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import jax
import jax.numpy as jnp

from pinxit import stored_model as release
from pinxit.config import UsageError
from pinxit.models.transformer import TransformerConfig, abstract, from_stored
from pinxit.train.build import Parts
from pinxit.train.settings import TrainConfig
from pinxit.train.state import TrainState

COMPUTATION = ("dtype", "attention", "remat", "scan_blocks", "scan_unroll")
"""Fields of the network's config that change how it is computed, but not the network itself."""


def started(
    config: TrainConfig,
    parts: Parts,
    state: TrainState,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> TrainState:
    """Returns `state` with the parameters of `config.init_from`, or unchanged if it is None.

    Raises `UsageError` if that model has another shape or was trained with other encoders.
    """
    if config.init_from is None:
        return state
    stored = release.read_model(config.init_from)
    check_model(stored, parts.model, config.init_from)
    release.check_encoders(stored.encoders, parts.encoders, where=config.init_from)
    details = ", ".join(f"{name} {value}" for name, value in stored.details.items())
    say(f"starting from {config.init_from}{f' ({details})' if details else ''}")

    def put(new: Any, old: jax.Array) -> jax.Array:
        return jax.make_array_from_callback(old.shape, old.sharding, lambda index: new[index])

    params = jax.tree.map(put, stored.params, state.params)
    ema = {name: jax.tree.map(jnp.copy, params) for name in state.ema}
    return replace(state, params=params, ema=ema)


def check_model(stored: release.Stored, expected: TransformerConfig, where: str) -> None:
    """Raises unless the stored network is the expected one. `COMPUTATION` may differ."""
    values = {name: value for name, value in stored.model.items() if name not in COMPUTATION}
    theirs = from_stored(values, in_channels=expected.in_channels, context_dim=expected.context_dim)
    names = [field.name for field in fields(TransformerConfig) if field.name not in COMPUTATION]
    pairs = [(name, getattr(theirs, name), getattr(expected, name)) for name in names]
    different = [f"{name} ({a!r} instead of {b!r})" for name, a, b in pairs if a != b]
    if differences := "; ".join(different) or release.mismatches(
        stored.params, abstract(expected)[1]
    ):
        raise UsageError("init_from", where, problem=f"a different network: {differences}")
