"""Describes the encoders in the identity of a prepared dataset by name and fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENCODERS = "encoders"
"""The key of `encoder_identity` in a manifest's identity."""


SCALING_OF_LATENTS = "scaling"
"""The key of the autoencoder's scale and shift; datasets of older versions lack it."""


def encoder_identity(
    *, vae: str, vae_fingerprint: str, scaling: str = "", text: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Returns a manifest's entry for the encoders; `text` comes from `text_identity`."""
    about = {"name": vae, "fingerprint": vae_fingerprint}
    return {"vae": about | ({SCALING_OF_LATENTS: scaling} if scaling else {}), "text": text}


def without_scaling(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the identity of a dataset as older versions wrote it, without the scaling."""
    encoders = identity.get(ENCODERS)
    if not isinstance(encoders, Mapping) or not isinstance(encoders.get("vae"), Mapping):
        return dict(identity)
    vae = {name: v for name, v in encoders["vae"].items() if name != SCALING_OF_LATENTS}
    return {**identity, ENCODERS: {**encoders, "vae": vae}}


def text_identity(
    *, name: str, fingerprint: str, part: int, max_tokens: int, cleaning: str
) -> dict[str, Any]:
    """Returns a manifest's entry for stored embeddings: the encoder and its part."""
    return {
        "name": name,
        "fingerprint": fingerprint,
        "part": part,
        "max_tokens": max_tokens,
        "cleaning": cleaning,
    }
