"""The record of a trained model: its parameters, and everything that is needed to use them.

A release, an exported folder and an exported file describe a model with the same JSON object, which
`from_described` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pinxit.config import UsageError

REQUIRED = ("model", "text_encoder", "vae", "image_size", "name", "sampling", "details")
"""The fields that every description has. Older ones lack the others, which then have defaults."""


@dataclass(frozen=True)
class Stored:
    """A model as stored on disk."""

    params: dict[str, Any]
    """Nested dict of float32 arrays."""
    model: dict[str, Any]
    """Fields of the transformer's config. Fields that are absent come from `preset`, if present."""
    text_encoder: str
    """Name or directory of the text encoder."""
    vae: str
    """Name or directory of the autoencoder, or "none" for a pixel model."""
    image_size: int
    """Side of the images, in pixels."""
    name: str
    """The model's display name."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Sampling settings; empty if not stored."""
    objective: dict[str, Any] = field(default_factory=dict)
    """The training objective, as in a run's config; empty if not stored."""
    extensions: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the files that the run loaded with --extensions, by name."""
    caption_cleaning: str = "none"
    """The cleaning of captions in training, which prompts need as well."""
    text_max_tokens: int | None = None
    """Maximum number of prompt tokens; None means the text encoder's own limit."""
    encoders: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the weights of ``text_encoder`` and ``vae``; empty if not stored."""
    details: dict[str, Any] = field(default_factory=dict)
    """The model's origin: step, EMA, measured figures."""


def from_described(described: Mapping[str, Any], params: dict[str, Any], *, where: str) -> Stored:
    """Returns the record that a description's fields and the parameters make.

    `where` names the description in the message of the `UsageError` for one that lacks fields.
    """
    if missing := [name for name in REQUIRED if name not in described]:
        raise UsageError("checkpoint", where, problem=f"incomplete (it lacks {', '.join(missing)})")
    known = {field.name for field in fields(Stored)} - {"params"}
    return Stored(params, **{name: value for name, value in described.items() if name in known})
