"""Returns what the page's forms need: models with their defaults, the solvers, and the limits."""

from __future__ import annotations

from typing import Any

from pinxit.comparison_grid.axes import AXES
from pinxit.config import to_json
from pinxit.flow.solvers import SOLVERS
from pinxit.serve.engine.limits import MOST_CHARACTERS
from pinxit.serve.engine.models import ModelEntry
from pinxit.serve.studio import Studio
from pinxit.version import __version__

EXAMPLES = (
    "a small red house on the left under a full moon",
    "a large purple tent, hills in the snow",
    "a white lighthouse by the sea at sunset",
)
"""Prompts for the shipped model that the empty page offers."""


def form_defaults(studio: Studio) -> dict[str, Any]:
    """Returns the settings of the forms. Models that were never loaded have no defaults yet."""
    config = studio.config
    return {
        "models": [form_model(entry) for entry in studio.engine.models()],
        "axes": list(AXES),
        "limits": {
            "pictures": config.max_pictures,
            "steps": config.max_steps,
            "side": config.max_side,
            "prompt": MOST_CHARACTERS,
        },
        "examples": list(EXAMPLES),
        "version": __version__,
    }


def form_model(model: ModelEntry) -> dict[str, Any]:
    """Returns a model for the forms."""
    return {
        "id": model.id,
        "name": model.name,
        "checkpoint": model.path,
        "loaded": model.loaded,
        "sampling": None if model.sampling is None else to_json(model.sampling),
        "image_size": model.image_size,
        "size_unit": model.unit,
        "hash": model.defaults.get("model_hash"),
        "solvers": list(SOLVERS),
    }
