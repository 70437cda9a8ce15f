"""Where a run begins: fresh parameters, or those of a model that was trained before.

The network has no parameter that knows the image's size (places are rotations), so a model trained
at 256 pixels goes on at 512 as it is. Taken are the parameters that the model draws with, a run's
best average; the new run's parameters and averages all begin with them, its optimiser anew.
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
"""Fields of the network's config that say how it is computed, not what it is."""


def started(
    config: TrainConfig,
    parts: Parts,
    state: TrainState,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> TrainState:
    """`state` with the parameters and averages of `config.init_from`; as it is without one.

    Raises `UsageError` for a model of another shape, or trained with other encoders.
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


def check_model(stored: release.Stored, wanted: TransformerConfig, where: str) -> None:
    """Raises unless the stored network is the wanted one, however it is computed."""
    kept = {name: value for name, value in stored.model.items() if name not in COMPUTATION}
    theirs = from_stored(kept, in_channels=wanted.in_channels, context_dim=wanted.context_dim)
    names = [field.name for field in fields(TransformerConfig) if field.name not in COMPUTATION]
    pairs = [(name, getattr(theirs, name), getattr(wanted, name)) for name in names]
    different = [f"{name} (there {a!r}, here {b!r})" for name, a, b in pairs if a != b]
    if what := "; ".join(different) or release.mismatches(stored.params, abstract(wanted)[1]):
        raise UsageError("init_from", where, problem=f"of another network: {what}")
