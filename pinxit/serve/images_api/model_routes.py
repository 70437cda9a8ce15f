"""Routes that list the models, in the shape of OpenAI's API."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from pinxit.config import few
from pinxit.serve.errors import RefusedRequest, cut
from pinxit.serve.images_api.answer_models import ModelAnswer, ModelsAnswer, errors
from pinxit.serve.images_api.chosen_model import described_models
from pinxit.serve.studio import Studio


def add_to(app: FastAPI, studio: Studio) -> None:
    """Adds the routes of the models."""

    @app.get(
        "/v1/models",
        tags=["models"],
        responses={200: {"model": ModelsAnswer}, **errors()},
    )
    async def list_models() -> dict[str, Any]:
        """Lists the models that can draw; the first is the default."""
        return {"object": "list", "data": await described_models(studio)}

    @app.get(
        "/v1/models/{model_id:path}",
        tags=["models"],
        responses={200: {"model": ModelAnswer}, **errors(404)},
    )
    async def retrieve_model(model_id: str) -> dict[str, Any]:
        """Returns one model."""
        models = await described_models(studio)
        for model in models:
            if model["id"] == model_id:
                return model
        known = few([model["id"] for model in models])
        message = f"model: {cut(model_id, 80)!r} is unknown; valid: {known}"
        raise RefusedRequest(404, message, param="model", code="model_not_found")
