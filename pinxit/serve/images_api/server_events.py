"""Writes server-sent events, and follows a job's events with signs of life between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from pinxit.serve.engine.jobs import Event, Job

SIGN = b": waiting\n\n"
"""A comment, which clients ignore. It keeps proxies from closing the connection."""
QUIET_SECONDS = 15.0
"""Seconds without an event after which a sign is sent."""
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Headers that keep caches and proxies from holding events back."""


def server_event(name: str, data: Mapping[str, Any]) -> bytes:
    """Returns an event; its data is one line, since JSON has no line ends."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def events_response(
    events: AsyncIterator[bytes], headers: Mapping[str, str] | None = None
) -> StreamingResponse:
    """Returns the answer that streams events."""
    return StreamingResponse(
        events, headers={**HEADERS, **(headers or {})}, media_type="text/event-stream"
    )


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
async def cancelled_with_client(request: Request, job: Job) -> AsyncIterator[None]:
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
