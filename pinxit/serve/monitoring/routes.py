"""Routes for supervisors: `/health`, `/ready` and `/metrics`."""

from __future__ import annotations

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from pinxit.serve.monitoring.metrics import studio_registry
from pinxit.serve.monitoring.request_counts import RequestCounts
from pinxit.serve.studio import Studio


def add_to(app: FastAPI, studio: Studio) -> None:
    """Adds the routes, and the count of requests."""
    registry = studio_registry(studio)
    app.state.metrics = registry
    app.add_middleware(RequestCounts, registry=registry)

    @app.get("/health", tags=["monitoring"])
    async def health() -> dict[str, str]:
        """Tells that the process lives. This is the only address that never needs the token."""
        return {"status": "ok"}

    @app.get(
        "/ready",
        tags=["monitoring"],
        responses={503: {"description": "The first model is still loading, or the server ends."}},
    )
    def ready() -> Response:
        """Tells by status 200 that a picture can be drawn without loading a model first."""
        loaded = [model.id for model in studio.engine.models() if model.loaded]
        is_ready = bool(loaded) and not studio.engine.statistics()["draining"]
        headers = {} if is_ready else {"Retry-After": "5"}
        content = {"ready": is_ready, "models": loaded}
        return JSONResponse(content, 200 if is_ready else 503, headers)

    @app.get(
        "/metrics",
        tags=["monitoring"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
    )
    def metrics() -> Response:
        """Returns the queue, the pictures, the jobs, the models and the memory as text."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
