"""Answers a request before it reaches the app, in OpenAI's form of an error."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import Message, Receive, Scope, Send

from pinxit.serve.access.request_parts import has_body
from pinxit.serve.errors import error_content

LINGER_SECONDS = 5.0
"""Seconds for which the rest of a refused body is read and thrown away. Without that, a client that
is still sending loses the connection before it reads the answer."""


@dataclass(frozen=True)
class Refusal:
    """An answer that says why a request is refused."""

    status: int
    """The HTTP status."""
    message: str
    """The reason, and what the client can do."""
    code: str
    """A short name of the reason, for programs."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Further headers of the answer."""
    page: bytes | None = None
    """An HTML page to send in place of the JSON error."""
    close: bool = False
    """Whether the connection ends, because what follows on it cannot be trusted."""

    def body(self) -> bytes:
        """Returns the content of the answer."""
        if self.page is not None:
            return self.page
        return json.dumps(error_content(self.status, self.message, code=self.code)).encode()

    def all_headers(self, *, close: bool) -> list[tuple[bytes, bytes]]:
        """Returns the headers of the answer. With `close`, the connection ends after it."""
        kind = b"application/json" if self.page is None else b"text/html; charset=utf-8"
        length = str(len(self.body())).encode()
        fixed = [(b"content-type", kind), (b"content-length", length), *self.headers]
        return [*fixed, (b"connection", b"close")] if close else fixed


async def refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a refusal and reads the rest of the request's body, for a limited time."""
    if scope["type"] == "websocket":
        await _refuse_websocket(refusal, scope, send)
        return
    pending = has_body(scope)
    headers = refusal.all_headers(close=pending or refusal.close)
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    body = b"" if scope["method"] == "HEAD" else refusal.body()
    await send({"type": "http.response.body", "body": body, "more_body": pending})
    if pending:
        await _throw_away(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def end_of_body() -> Message:
    """Returns the end of a body that was read already, in place of what the client still sends."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def _throw_away(receive: Receive) -> None:
    """Reads the rest of a body until it ends, the client leaves, or the time is up."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body"):
                    return


async def _refuse_websocket(refusal: Refusal, scope: Scope, send: Send) -> None:
    """Refuses a WebSocket: with the status where the server supports it, else by closing it."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.code})
        return
    headers = refusal.all_headers(close=False)
    start = {"type": "websocket.http.response.start", "status": refusal.status}
    await send({**start, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": refusal.body()})
