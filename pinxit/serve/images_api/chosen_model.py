"""Finds the model of a request, and what its settings say about the pictures of the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool

from pinxit.config import UsageError, few, to_json
from pinxit.sampling import Sampling
from pinxit.serve.engine.models import ModelEntry
from pinxit.serve.errors import RefusedRequest, shorten
from pinxit.serve.images_api.quality import steps_of, steps_of_all
from pinxit.serve.studio import Studio


@dataclass(frozen=True)
class ChosenModel:
    """A model that is in memory."""

    sampling: Sampling
    """The model's default sampling settings."""
    image_size: int
    """The side of the pictures that it was trained on."""
    unit: int
    """The number that divides the sides of its pictures."""
    max_steps: int
    """The largest number of steps of a picture."""
    max_side: int
    """The longest side of a picture, unless the model's own is longer."""

    def steps(self, quality: str) -> int:
        """Returns the number of steps of a quality."""
        return steps_of(quality, self.sampling.steps, self.max_steps)

    def size(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """Returns the width and the height of pictures of a size, where None is the model's.

        Raises `UsageError` for a size that the model or the server does not draw.
        """
        width, height = size or (self.image_size, self.image_size)
        longest = max(self.image_size, self.max_side)
        for side in (width, height):
            if side < 1 or side % self.unit or side > longest:
                problem = "too large" if side > longest else f"not a multiple of {self.unit}"
                valid = f"multiples of {self.unit} up to {longest}, or auto"
                raise UsageError("size", f"{width}x{height}", problem=problem, valid=valid)
        return width, height

    def tokens(self, size: tuple[int, int] | None) -> int:
        """Returns the number of tokens that the network has for a picture."""
        width, height = self.size(size)
        return (width // self.unit) * (height // self.unit)


async def load_model(studio: Studio, name: str | None) -> ChosenModel:
    """Returns a model, which is loaded first if its settings are not known; by default the first.

    Refuses a name that no model has.
    """
    entry = await named_model(studio, name)
    if entry.sampling is None:
        entry = await run_in_threadpool(studio.engine.load, entry.id)
    config = studio.config
    sampling, image_size, unit = entry.sampling, entry.image_size, entry.unit
    assert sampling is not None and image_size is not None and unit is not None
    return ChosenModel(sampling, image_size, unit, config.max_steps, config.max_side)


async def named_model(studio: Studio, name: str | None) -> ModelEntry:
    """Returns the engine's entry with an id, by default the first, or refuses the request."""
    entries = await run_in_threadpool(studio.engine.models)
    for entry in entries:
        if name is None or entry.id == name:
            return entry
    known = few([each.id for each in entries])
    message = f"model: {shorten(str(name), 80)!r} is unknown; valid: {known}"
    raise RefusedRequest(404, message, param="model", code="model_not_found")


def described_model(entry: ModelEntry, max_steps: int) -> dict[str, Any]:
    """Returns a model in the form of OpenAI's API, with its settings if they are known."""
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
