"""Returns what the page's forms need: models with their defaults, the solvers, and the limits."""

from __future__ import annotations

from typing import Any

from pinxit.comparison_grid.axes import AXES
from pinxit.config import to_json
from pinxit.flow.solvers import SOLVERS
from pinxit.serve.engine.jobs import ModelEntry
from pinxit.serve.gallery.uploaded_picture import LONGEST_TEXT
from pinxit.serve.studio import Studio
from pinxit.version import __version__

EXAMPLES = (
    "a red house under a full moon",
    "two green trees beside a blue tent",
    "a yellow boat on the sea at night",
)
"""Prompts for the shipped model that the empty page offers."""


def form_defaults(studio: Studio) -> dict[str, Any]:
    """Returns the settings of the forms. Models that were never loaded have no defaults yet."""
    config = studio.config
    return {
        "models": [described_entry(entry) for entry in studio.engine.models()],
        "axes": list(AXES),
        "limits": {
            "pictures": config.max_pictures,
            "steps": config.max_steps,
            "side": config.max_side,
            "prompt": LONGEST_TEXT,
        },
        "examples": list(EXAMPLES),
        "version": __version__,
    }


def described_entry(entry: ModelEntry) -> dict[str, Any]:
    """Returns a model for the forms."""
    return {
        "id": entry.id,
        "name": entry.id,
        "loaded": entry.loaded,
        "sampling": None if entry.sampling is None else to_json(entry.sampling),
        "image_size": entry.image_size,
        "size_unit": entry.unit,
        "solvers": list(SOLVERS),
    }
