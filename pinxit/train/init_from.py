"""Initial parameters of a run: random, or those of a trained model, and the settings it needs.

No parameter of the network depends on the image size (positions are rotations), so a model trained
at 256 pixels can continue at 512. A run starts from the parameters that the model samples with,
which are the best average of its run. The new run's parameters and averages all start from them.
Its optimiser starts from zero. A trained model fixes the network and the encoders, so a command
takes them from the model where they were not given (`settings_of`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import jax
import jax.numpy as jnp

from pinxit import stored_model as release
from pinxit.config import UsageError
from pinxit.encoders.autoencoder import load_autoencoder
from pinxit.encoders.fingerprint import encoder_fingerprints
from pinxit.encoders.text_encoder_catalogue import load_text_encoder
from pinxit.models.transformer import PRESETS, TransformerConfig, abstract, from_stored, preset
from pinxit.train.build import Parts
from pinxit.train.model_settings import ModelConfig
from pinxit.train.settings import TrainConfig
from pinxit.train.state import TrainState

COMPUTATION = ("dtype", "attention", "remat", "scan_blocks", "scan_unroll")
"""Fields of the network's config that change how it is computed, but not the network itself."""
NETWORK = tuple(
    field.name
    for field in fields(ModelConfig)
    if field.name not in ("preset", "use_stable_vae", *COMPUTATION)
)
"""The settings of a run's network that must be those of its first model."""
TAKEN = (
    *("model.preset", "model.use_stable_vae", *(f"model.{name}" for name in NETWORK)),
    *("text_encoder", "vae", "caption_cleaning", "text_max_tokens", "image_size"),
)
"""The settings that a run takes from its first model, by dotted name."""


def settings_of(stored: release.Stored) -> dict[str, Any]:
    """Returns the settings of a run that continues a model, by dotted name; see `TAKEN`.

    The preset is the model's, or the one of the nearest size. Fields of the network that have
    another value than in the preset override it.
    """
    network = from_stored(
        {name: value for name, value in stored.model.items() if name not in COMPUTATION},
        in_channels=1,
        context_dim=1,
    )
    name = stored.model.get("preset") or _nearest_preset(network)
    usual = preset(name)
    pixels = stored.vae == "none"
    settings: dict[str, Any] = {"model.preset": name, "model.use_stable_vae": not pixels}
    for field in NETWORK:
        value = getattr(network, field)
        fixed = value != getattr(usual, field) or (field == "patch_size" and pixels)
        settings[f"model.{field}"] = value if fixed else None
    if network.modulation == "per_block":
        settings["model.modulation_rank"] = None
    settings |= {"text_encoder": stored.text_encoder, "image_size": stored.image_size}
    settings |= {} if pixels else {"vae": stored.vae}
    settings["caption_cleaning"] = stored.caption_cleaning
    return settings | {"text_max_tokens": stored.text_max_tokens}


def _nearest_preset(network: TransformerConfig) -> str:
    """Returns the preset whose number of parameters is nearest, by the size of its blocks."""

    def size(hidden_size: int, depth: int) -> float:
        return math.log(hidden_size**2 * depth)

    own = size(network.hidden_size, network.depth)
    sizes = {name: size(p["hidden_size"], p["depth"]) for name, p in PRESETS.items()}
    return min(sizes, key=lambda name: abs(sizes[name] - own))


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
    encoders = stored.encoders or _fingerprints(stored, config)
    release.check_encoders(encoders, parts.encoders, where=config.init_from)
    details = ", ".join(f"{name} {value}" for name, value in stored.details.items())
    say(f"starting from {config.init_from}{f' ({details})' if details else ''}")

    def put(new: Any, old: jax.Array) -> jax.Array:
        return jax.make_array_from_callback(old.shape, old.sharding, lambda index: new[index])

    params = jax.tree.map(put, stored.params, state.params)
    ema = {name: jax.tree.map(jnp.copy, params) for name in state.ema}
    return replace(state, params=params, ema=ema)


def _fingerprints(stored: release.Stored, config: TrainConfig) -> dict[str, str]:
    """Returns the fingerprints of the encoders of a model that does not store them.

    They are computed only if the run does not load its encoders from the same place.
    """
    if (stored.text_encoder, stored.vae) == (config.text_encoder, config.autoencoder):
        return {}
    return encoder_fingerprints(
        load_text_encoder(stored.text_encoder, max_tokens=stored.text_max_tokens),
        load_autoencoder(stored.vae),
    )


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
