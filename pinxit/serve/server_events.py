"""Writes server-sent events, which browsers and OpenAI's clients read as they come."""

from __future__ import annotations

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
