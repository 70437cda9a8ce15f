"""The route of the page that shows the API. The page reads `/openapi.json`."""

from __future__ import annotations

from fastapi import FastAPI, Response

from pinxit.serve.page.routes import FOLDER
from pinxit.serve.studio import Studio


def add_to(app: FastAPI, studio: Studio) -> None:
    """Adds the route."""
    content = (FOLDER / "api_docs.html").read_bytes()

    @app.get("/docs", include_in_schema=False)
    async def api_docs() -> Response:
        """Returns the page."""
        headers = {"Cache-Control": "no-cache"}
        return Response(content, media_type="text/html; charset=utf-8", headers=headers)
