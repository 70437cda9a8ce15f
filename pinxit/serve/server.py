"""Runs the studio's application on a socket."""

from __future__ import annotations

import sys

import uvicorn

from pinxit.serve.app import create_app
from pinxit.serve.settings import StudioConfig


def run_studio(config: StudioConfig) -> int:
    """Runs the server until it is asked to end, and returns the exit code."""
    print(f"pinxit studio: http://{config.host}:{config.port}/", file=sys.stderr)
    uvicorn.run(
        create_app(config),
        host=config.host,
        port=config.port,
        log_level="warning",
        timeout_graceful_shutdown=config.drain_seconds,
    )
    return 0
