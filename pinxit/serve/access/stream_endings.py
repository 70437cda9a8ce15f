"""Ends open streams of events with a last event when the server ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LAST_EVENT = b'event: closing\ndata: {"state": "closing"}\n\n'
"""The last event of a stream that the server ends."""


class StreamEndings:
    """Remembers the open streams of an app, and ends them on request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.streams: set[OpenStream] = set()
        """The streams that are open now."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        stream = OpenStream(self, receive, send)
        try:
            await self.app(scope, stream.receive, stream.send)
        finally:
            self.streams.discard(stream)

    async def end_all(self) -> int:
        """Sends the last event on every open stream, ends it, and returns their number."""
        streams = list(self.streams)
        await asyncio.gather(*(stream.end() for stream in streams))
        return len(streams)


class OpenStream:
    """Passes an answer on, and ends it on request if it is a stream of events."""

    def __init__(self, endings: StreamEndings, receive: Receive, send: Send) -> None:
        self._endings, self._receive, self._send = endings, receive, send
        self._ended = asyncio.Event()
        self._sending = asyncio.Lock()

    async def send(self, message: Message) -> None:
        """Passes on a piece of the answer, unless the stream was ended."""
        async with self._sending:
            if self._ended.is_set():
                return
            if message["type"] == "http.response.start":
                kinds = [v for k, v in message.get("headers", []) if k.lower() == b"content-type"]
                if any(kind.startswith(b"text/event-stream") for kind in kinds):
                    self._endings.streams.add(self)
            elif not message.get("more_body", False):
                self._endings.streams.discard(self)
            await self._send(message)

    async def receive(self) -> Message:
        """Returns the next message of the client. An ended stream's client has left."""
        ended = asyncio.ensure_future(self._ended.wait())
        arrived = asyncio.ensure_future(self._receive())
        try:
            await asyncio.wait({ended, arrived}, return_when=asyncio.FIRST_COMPLETED)
            if arrived.done():
                return arrived.result()
            return {"type": "http.disconnect"}
        finally:
            for task in (ended, arrived):
                task.cancel()
            with suppress(asyncio.CancelledError):
                await ended

    async def end(self) -> None:
        """Sends the last event and makes the app see that its client has left."""
        async with self._sending:
            if self not in self._endings.streams:
                return
            self._endings.streams.discard(self)
            self._ended.set()
            body = {"type": "http.response.body", "body": LAST_EVENT, "more_body": False}
            await self._send(body)
