"""Cancels a job whose client leaves before it has ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from starlette.requests import Request

from pinxit.serve.engine.jobs import Job


@contextlib.asynccontextmanager
async def cancelled_with_client(request: Request, job: Job) -> AsyncGenerator[None]:
    """Cancels the job if the client leaves, or the block ends, before the job has ended."""
    watcher = asyncio.create_task(_watch(request, job))
    try:
        yield
    finally:
        watcher.cancel()
        job.cancel()


async def _watch(request: Request, job: Job) -> None:
    """Waits until the client leaves, then cancels the job."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    job.cancel()
