"""Finds the model of a request, and what its settings say about the pictures of the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool

from pinxit.config import UsageError, few, to_json
from pinxit.sampling import Sampling
from pinxit.serve.engine.models import ModelEntry
from pinxit.serve.errors import RefusedRequest, cut
from pinxit.serve.images_api.quality import steps_of, steps_of_all
from pinxit.serve.studio import Studio


@dataclass(frozen=True)
class ChosenModel:
    """A model that is in memory."""

    entry: ModelEntry
    """The engine's description of the model."""
    sampling: Sampling
    """The model's default sampling settings."""
    image_size: int
    """The side of the pictures that it was trained on."""
    unit: int
    """The number that divides the sides of its pictures."""
    max_steps: int
    """The largest number of steps of a picture."""

    def steps(self, quality: str) -> int:
        """Returns the number of steps of a quality."""
        return steps_of(quality, self.sampling.steps, self.max_steps)

    def size(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """Returns the width and the height of pictures of a size, where None is the model's."""
        return (self.image_size, self.image_size) if size is None else size

    def checked_size(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """Returns `size` with a value. Raises `UsageError` for one that the model cannot draw."""
        width, height = self.size(size)
        unit = self.unit
        for side in (width, height):
            if side % unit:
                valid = f"multiples of {unit}"
                raise UsageError("size", f"{width}x{height}", problem="not drawable", valid=valid)
        return width, height

    def tokens(self, size: tuple[int, int] | None) -> int:
        """Returns the number of tokens that the network has for a picture."""
        width, height = self.size(size)
        return (width // self.unit) * (height // self.unit)


async def choose(studio: Studio, name: str | None) -> ChosenModel:
    """Returns a model, which is loaded first if it is not in memory; by default the first one."""
    entries = await run_in_threadpool(studio.engine.models)
    entry = entries[0] if name is None else _named(entries, name)
    if entry.sampling is None:
        entry = await run_in_threadpool(studio.engine.load, entry.id)
    sampling, image_size, unit = entry.sampling, entry.image_size, entry.unit
    assert sampling is not None and image_size is not None and unit is not None
    return ChosenModel(entry, sampling, image_size, unit, studio.config.max_steps)


def _named(entries: list[ModelEntry], name: str) -> ModelEntry:
    """Returns the entry with an id, or refuses the request."""
    for entry in entries:
        if entry.id == name:
            return entry
    known = few([each.id for each in entries])
    message = f"model: {cut(name, 80)!r} is unknown; valid: {known}"
    raise RefusedRequest(404, message, param="model", code="model_not_found")


async def described_models(studio: Studio) -> list[dict[str, Any]]:
    """Returns all models in the form of OpenAI's API, with their settings if they are known."""
    entries = await run_in_threadpool(studio.engine.models)
    return [_described(entry, studio.config.max_steps) for entry in entries]


def _described(entry: ModelEntry, max_steps: int) -> dict[str, Any]:
    sampling = entry.sampling
    return {
        "id": entry.id,
        "object": "model",
        "created": int(entry.created),
        "owned_by": "pinxit",
        "loaded": entry.loaded,
        "defaults": None if sampling is None else to_json(sampling),
        "image_size": entry.image_size,
        "size_unit": entry.unit,
        "qualities": None if sampling is None else steps_of_all(sampling.steps, max_steps),
    }
