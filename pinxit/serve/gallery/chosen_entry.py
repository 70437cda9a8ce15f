"""Finds the model that a comparison names."""

from __future__ import annotations

from pinxit.config import UsageError, few
from pinxit.serve.engine.engine import DrawingEngine
from pinxit.serve.engine.models import ModelEntry


def loaded_entry(engine: DrawingEngine, entries: list[ModelEntry], id: str | None) -> ModelEntry:
    """Returns the entry of an id, or the first one, with its facts; loads the model if necessary.

    Raises `UsageError` for a model that the studio lacks.
    """
    entry = next((entry for entry in entries if id in (None, entry.id)), None)
    if entry is None:
        known = few([each.id for each in entries])
        raise UsageError("checkpoint", str(id)[:80], problem="no model of the studio", valid=known)
    return entry if entry.sampling is not None else engine.load(entry.id)
