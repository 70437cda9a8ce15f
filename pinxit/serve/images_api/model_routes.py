"""Routes that list the models, in the shape of OpenAI's API."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from pinxit.serve.images_api.answer_models import ModelAnswer, ModelsAnswer, errors
from pinxit.serve.images_api.chosen_model import described_model, named_model
from pinxit.serve.studio import Studio


def add_to(app: FastAPI, studio: Studio) -> None:
    """Adds the routes of the models."""
    most = studio.config.max_steps

    @app.get("/v1/models", tags=["models"], responses={200: {"model": ModelsAnswer}, **errors()})
    async def list_models() -> dict[str, Any]:
        """Lists the models that can draw; the first is the default."""
        entries = await run_in_threadpool(studio.engine.models)
        return {"object": "list", "data": [described_model(entry, most) for entry in entries]}

    @app.get(
        "/v1/models/{model_id:path}",
        tags=["models"],
        responses={200: {"model": ModelAnswer}, **errors(404)},
    )
    async def retrieve_model(model_id: str) -> dict[str, Any]:
        """Returns one model."""
        return described_model(await named_model(studio, model_id), most)
