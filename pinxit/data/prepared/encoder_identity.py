"""The encoders in the identity of a prepared dataset: their names and fingerprints."""

from __future__ import annotations

from typing import Any

ENCODERS = "encoders"
"""Where the manifest's identity keeps what `encoder_identity` says."""


def encoder_identity(
    *, vae: str, vae_fingerprint: str, text: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What a manifest says of the encoders; `text` is what `text_identity` gives."""
    return {"vae": {"name": vae, "fingerprint": vae_fingerprint}, "text": text}


def text_identity(
    *, name: str, fingerprint: str, part: int, max_tokens: int, cleaning: str
) -> dict[str, Any]:
    """What a manifest says of stored text embeddings: of which part of which encoder they are."""
    return {
        "name": name,
        "fingerprint": fingerprint,
        "part": part,
        "max_tokens": max_tokens,
        "cleaning": cleaning,
    }
