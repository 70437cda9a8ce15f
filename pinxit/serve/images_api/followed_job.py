"""Follows the events of a job, with signs of life between them, until the client leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from starlette.requests import Request

from pinxit.serve.engine.events import Event
from pinxit.serve.engine.jobs import Job
from pinxit.serve.server_events import QUIET_SECONDS


async def followed(job: Job, *, quiet: float = QUIET_SECONDS) -> AsyncIterator[Event | None]:
    """Yields the events of a job, and None after each `quiet` seconds without one."""
    events = job.events()
    following: asyncio.Future[Event] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({following}, timeout=quiet)
            if not done:
                yield None
                continue
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield event
    finally:
        if following is not None:
            following.cancel()


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
