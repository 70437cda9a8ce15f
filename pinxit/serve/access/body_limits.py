"""Refuses bodies that are too large, too slow, compressed, or of unclear length.

A declared length is checked before anything is read. A body without one, and a client that sends
slowly, are watched while the app reads. Then the answer is sent here, and the app is told that the
client has left.
"""

from __future__ import annotations

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pinxit.serve.access.body_sizes import BodySizes
from pinxit.serve.access.refusal import Refusal, end_of_body, refuse
from pinxit.serve.access.request_parts import (
    declared_length,
    has_body,
    header_text,
    header_values,
    route_path,
)

DISCONNECT: Message = {"type": "http.disconnect"}
"""The message that tells an app that its client has left."""


def body_too_large(limit: int) -> Refusal:
    """Returns the refusal of a body above the limit."""
    message = f"the body is larger than {limit} bytes, the limit of this address"
    return Refusal(413, message, "request_too_large")


def unclear_body(scope: Scope) -> Refusal | None:
    """Returns the refusal of a body whose length or encoding servers may read differently."""
    lengths, codings = (
        header_values(scope, name) for name in (b"content-length", b"transfer-encoding")
    )
    if codings and (lengths or len(codings) > 1 or codings[0].strip().lower() != b"chunked"):
        return Refusal(400, "the body's length is ambiguous", "ambiguous_length")
    if len(set(lengths)) > 1 or declared_length(scope) == -1:
        return Refusal(400, "Content-Length is not one number", "ambiguous_length")
    encoding = header_text(scope, b"content-encoding").lower()
    if encoding not in ("", "identity"):
        message = f"Content-Encoding: {encoding[:40]!r} is not supported; send the body as it is"
        return Refusal(415, message, "compressed_body")
    return None


class BodyLimits:
    """Applies the limits of bodies to an app."""

    def __init__(self, app: ASGIApp, sizes: BodySizes) -> None:
        self.app = app
        self.sizes = sizes
        self.in_flight = 0
        """Bytes of all bodies that are being received."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.sizes.limit(route_path(scope))
        refusal = unclear_body(scope)
        if refusal is None and (declared_length(scope) or 0) > limit:
            refusal = body_too_large(limit)
        if refusal is not None:
            await refuse(refusal, scope, receive, send)
            return
        if not has_body(scope):
            await self.app(scope, receive, send)
            return
        body = WatchedBody(self, limit, scope, receive, send)
        try:
            await self.app(scope, body.receive, body.send)
        except Exception:
            if not body.refused:  # else the answer is sent, and the app only saw its client leave
                raise
        finally:
            body.release()


class WatchedBody:
    """Passes one request's body to the app within the limits."""

    def __init__(
        self, limits: BodyLimits, limit: int, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.refused = False
        """Whether the request was refused while its body came."""
        self._limits, self._limit = limits, limit
        self._scope, self._receive, self._send = scope, receive, send
        self._size = 0
        self._start: float | None = None
        self._complete = False
        self._answered = False

    async def receive(self) -> Message:
        """Returns the next piece of the body, or refuses the request."""
        if self.refused:
            return DISCONNECT
        if self._complete:
            return await self._receive()
        sizes = self._limits.sizes
        self._start = self._start or time.monotonic()
        left = self._start + sizes.seconds(self._size) - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(0, min(left, sizes.idle_seconds)))
        except TimeoutError:
            self._complete = True  # the rest is not waited for
            return await self._refuse(Refusal(408, "the body comes too slowly", "slow_body"))
        if message["type"] != "http.request":
            return message
        piece = len(message.get("body", b""))
        self._size += piece
        self._limits.in_flight += piece
        self._complete = not message.get("more_body", False)
        if self._size > self._limit:
            return await self._refuse(body_too_large(self._limit))
        if self._limits.in_flight > sizes.all:
            again = ((b"retry-after", b"5"),)
            reason = "the server is receiving too much at the moment"
            return await self._refuse(Refusal(503, reason, "busy", again))
        return message

    async def send(self, message: Message) -> None:
        """Passes the app's answer on, unless the request was refused."""
        if not self.refused:
            self._answered = True
            await self._send(message)

    def release(self) -> None:
        """Gives back this body's share of the bytes of all bodies."""
        self._limits.in_flight -= self._size
        self._size = 0

    async def _refuse(self, refusal: Refusal) -> Message:
        self.refused = True
        if not self._answered:
            receive = end_of_body if self._complete else self._receive
            await refuse(refusal, self._scope, receive, self._send)
        return DISCONNECT
