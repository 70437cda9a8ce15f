"""Writes server-sent events, which browsers and OpenAI's clients read as they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import StreamingResponse

SIGN = b": waiting\n\n"
"""A comment, which clients ignore. It keeps proxies from closing the connection."""
QUIET_SECONDS = 15.0
"""Seconds without an event after which a sign is sent."""
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Headers that keep caches and proxies from holding events back."""

CONTENT: dict[str, Any] = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "description": "One event of the stream; its data is a JSON object.",
            "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
            "required": ["event", "data"],
        }
    }
}
"""The description of a stream in the OpenAPI document."""


def server_event(name: str, data: Mapping[str, Any], *, id: str | None = None) -> bytes:
    """Returns an event; its data is one line, since JSON has no line ends.

    A browser that connects again says the `id` of the last event that it has seen.
    """
    known = "" if id is None else f"id: {id}\n"
    return f"event: {name}\n{known}data: {json.dumps(data)}\n\n".encode()


def events_response(
    events: AsyncIterator[bytes], headers: Mapping[str, str] | None = None
) -> StreamingResponse:
    """Returns the answer that streams events, with signs of life between them."""
    return StreamingResponse(
        with_signs(events), headers={**HEADERS, **(headers or {})}, media_type="text/event-stream"
    )


async def with_signs(
    events: AsyncIterator[bytes], *, quiet: float = QUIET_SECONDS
) -> AsyncIterator[bytes]:
    """Yields the events, and a sign after each `quiet` seconds without one."""
    following: asyncio.Future[bytes] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({following}, timeout=quiet)
            if not done:
                yield SIGN
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
