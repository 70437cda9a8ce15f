"""The models of the studio, with the facts that forms and comparisons need."""

from __future__ import annotations

from dataclasses import dataclass

from pinxit.config import UsageError, few, from_json
from pinxit.flow.solvers import SOLVERS
from pinxit.sampling import Sampling
from pinxit.serve.engine.engine import DrawingEngine
from pinxit.serve.engine.models import ModelEntry


@dataclass(frozen=True)
class StudioModel:
    """A model that draws. Its facts are None until it was loaded for the first time."""

    id: str
    """The name by which requests choose it."""
    name: str
    """The name that recipes contain."""
    path: str | None
    """The path that `pinxit generate` and `pinxit grid` take; None for the shipped model."""
    loaded: bool
    """Whether it is in memory."""
    sampling: Sampling | None = None
    """The default sampling settings."""
    image_size: int | None = None
    """The side of pictures that the model was trained on."""
    unit: int | None = None
    """Sides of pictures are multiples of this number."""
    model_hash: str | None = None
    """The hash of its parameters."""
    solvers: tuple[str, ...] = tuple(SOLVERS)
    """The names of the solvers."""


def studio_model(entry: ModelEntry) -> StudioModel:
    """Returns a model of the engine's list."""
    facts = entry.defaults
    return StudioModel(
        id=entry.id,
        name=entry.name,
        path=entry.path,
        loaded=entry.loaded,
        sampling=from_json(Sampling, facts["sampling"]) if "sampling" in facts else None,
        image_size=facts.get("image_size"),
        unit=facts.get("unit"),
        model_hash=facts.get("model_hash"),
    )


def studio_models(engine: DrawingEngine) -> list[StudioModel]:
    """Returns all models, the default one first."""
    return [studio_model(entry) for entry in engine.models()]


def loaded_model(engine: DrawingEngine, models: list[StudioModel], id: str | None) -> StudioModel:
    """Returns the model of an id, or the first one, with its facts; loads it if necessary.

    Raises `UsageError` for a model that the studio lacks.
    """
    model = next((model for model in models if id in (None, model.id)), None)
    if model is None:
        known = few([each.id for each in models])
        raise UsageError("checkpoint", str(id)[:80], problem="no model of the studio", valid=known)
    return model if model.sampling is not None else studio_model(engine.load(model.id))
