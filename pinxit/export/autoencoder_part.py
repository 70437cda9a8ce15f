"""The autoencoder of an exported folder: its class in diffusers, its config and its tensors.

To export another kind of autoencoder, write a function like `_kl` and add a line to
`STOCK_AUTOENCODERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pinxit.config import UsageError
from pinxit.encoders import dc_ae, vae, weights
from pinxit.encoders.autoencoder import find_autoencoder
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
    downsample: int
    """Pixels along a side of a latent cell."""
    scaling: str
    """The scale and shift of the latents, as `fingerprint.scaling_of` gives them."""


def _kl(root: Path, folder: str) -> AutoencoderPart:
    """Returns an AutoencoderKL. Its config states the shift even if it is 0, since a stock pipeline
    fails where it is null."""
    config, tensors = vae.open_vae(root, subfolder=folder)
    scale, shift = float(config.scaling_factor), float(config.shift_factor)
    return AutoencoderPart(
        class_name="AutoencoderKL",
        file=vae.WEIGHTS,
        config=config.to_json() | {"shift_factor": shift},
        tensors=tensors,
        shapes=vae.vae_shapes(config),
        trained=weights.unread_params(tensors, vae.vae_shapes(config), source=root),
        channels=config.latent_channels,
        downsample=config.downsample,
        scaling=f"scale {scale!r}, shift {shift!r}",
    )


def _dc(root: Path, folder: str) -> AutoencoderPart:
    """Returns an AutoencoderDC, with the counters of batch normalisation if its file has them."""
    config, tensors = dc_ae.open_dc_ae(root, subfolder=folder)
    counters = {name: np.asarray(tensors[name]) for name in tensors if dc_ae.is_counter(name)}
    trained = {name: tensor for name, tensor in tensors.items() if name not in counters}
    return AutoencoderPart(
        class_name="AutoencoderDC",
        file=vae.WEIGHTS,
        config=config.to_json(),
        tensors={**trained, **counters},
        shapes=dc_ae.dc_ae_shapes(config),
        trained=weights.unread_params(trained, dc_ae.dc_ae_shapes(config), source=root),
        channels=config.latent_channels,
        downsample=config.downsample,
        scaling=f"scale {float(config.scaling_factor)!r}, shift 0.0",
    )


STOCK_AUTOENCODERS: dict[str, Callable[[Path, str], AutoencoderPart]] = {
    "AutoencoderKL": _kl,
    "AutoencoderDC": _dc,
}
"""The autoencoders that can be exported, by the ``_class_name`` in their config.json. A function
receives a directory and the autoencoder's folder in it."""


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
    if name not in STOCK_AUTOENCODERS:
        problem = f"of the class {name!r}, which export cannot write; {instead}"
        raise UsageError("vae", source, problem=problem, valid=list(STOCK_AUTOENCODERS))
    return STOCK_AUTOENCODERS[name](root, folder)
