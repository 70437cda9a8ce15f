"""The autoencoder of an exported folder: its class in diffusers, its config and its tensors.

Every kind of `encoders.autoencoder.KINDS` can be exported, since each is a class of diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pinxit.config import UsageError
from pinxit.encoders import vae, weights
from pinxit.encoders.autoencoder import KINDS, find_autoencoder
from pinxit.encoders.fingerprint import scaling_of
from pinxit.encoders.weights import Tree


@dataclass(frozen=True, kw_only=True)
class AutoencoderPart:
    """An autoencoder, before its weights are read."""

    class_name: str
    """Its class in diffusers."""
    file: str
    """The name of the weights' file."""
    config: dict[str, Any]
    """The contents of config.json."""
    tensors: Mapping[str, Any]
    """The tensors to write, by name."""
    shapes: Tree
    """The shapes of the parameters."""
    trained: Tree
    """The parameters, unread."""
    channels: int
    """Channels of the latents."""
    scaling: str
    """The scale and shift of the latents, as `fingerprint.scaling_of` gives them."""


def autoencoder_part(source: str, *, instead: str) -> AutoencoderPart | None:
    """Opens the autoencoder of a model; None for a pixel model, which has none.

    Raises `UsageError` if a stock pipeline cannot have it; `instead` says what to do in that case.
    """
    if source == "none":
        return None
    location = find_autoencoder(source)
    if location is None:
        problem = (
            "made by code, which a stock pipeline does not have: it loads classes of diffusers "
            f"from files; {instead}"
        )
        raise UsageError("vae", source, problem=problem)
    root, folder = location
    name = weights.read_config(root / folder / "config.json").get("_class_name", "AutoencoderKL")
    if name not in KINDS:
        problem = f"of the class {name!r}, which export cannot write; {instead}"
        raise UsageError("vae", source, problem=problem, valid=list(KINDS))
    return _part(root, folder, name)


def _part(root: Path, folder: str, name: str) -> AutoencoderPart:
    """Returns the autoencoder in a folder. Its config states the shift of an AutoencoderKL even if
    it is 0, since a stock pipeline fails where it is null."""
    kind = KINDS[name]
    config, tensors = kind.open(root, subfolder=folder)
    shapes = kind.shapes(config)
    autoencoder = kind.make(weights.abstract_params(shapes, "float32"), config)
    return AutoencoderPart(
        class_name=name,
        file=vae.WEIGHTS,
        config=config.to_json(),
        tensors={n: np.asarray(t) if kind.ignored(n) else t for n, t in tensors.items()},
        shapes=shapes,
        trained=weights.unread_params(tensors, shapes, source=root, ignore=kind.ignored),
        channels=autoencoder.stats.channels,
        scaling=scaling_of(autoencoder),
    )
