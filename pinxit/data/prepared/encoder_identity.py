"""Describes the encoders in the identity of a prepared dataset by name and fingerprint."""

from __future__ import annotations

from typing import Any

ENCODERS = "encoders"
"""The key of `encoder_identity` in a manifest's identity."""


def encoder_identity(
    *, vae: str, vae_fingerprint: str, text: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Returns a manifest's entry for the encoders; `text` comes from `text_identity`."""
    return {"vae": {"name": vae, "fingerprint": vae_fingerprint}, "text": text}


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
