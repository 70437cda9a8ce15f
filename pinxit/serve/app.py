"""The application of the studio: the page, the API, and the checks around both.

Each part is a package with a module `routes` whose function ``add_to(app, studio)`` adds its
routes.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from pinxit.serve import errors
from pinxit.serve.access.guard import guard
from pinxit.serve.access.listening import Address
from pinxit.serve.access.studio_rules import rules_of
from pinxit.serve.engine.engine import DrawingEngine
from pinxit.serve.settings import StudioConfig
from pinxit.serve.studio import Studio
from pinxit.version import __version__

PARTS = (
    *("page", "monitoring", "api_docs", "images_api"),
    *("gallery", "runs", "datasets", "plans"),
)
"""The packages in `pinxit.serve` that have routes."""


def create_app(
    config: StudioConfig | None = None,
    *,
    engine: DrawingEngine | None = None,
    addresses: list[Address] | None = None,
) -> FastAPI:
    """Returns the application. Its state `studio` holds the engine, by default a new one.

    `addresses` are those that a server listens on; with None, the host of `config` is looked up.
    """
    config = config or StudioConfig()
    rules = rules_of(config, addresses)
    studio = Studio(config, engine or DrawingEngine(config))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        studio.engine.start()
        try:
            yield
        finally:
            # A thread of asyncio, because a thread of AnyIO may outlive the event loop.
            await asyncio.to_thread(studio.close)

    app = FastAPI(
        title="Pinxit",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.studio = studio
    errors.answer_errors(app)
    for part in PARTS:
        importlib.import_module(f"pinxit.serve.{part}.routes").add_to(app, studio)
    guard(app, rules)
    return app
