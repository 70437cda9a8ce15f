"""The server's HTTP protocol, with the time limits that uvicorn does not have.

Clients that send their headers slowly, keep a connection without using it, or do not read their
answer are disconnected. When there are too many connections, the one that has been idle for longest
makes room.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from pinxit.serve.access.response_headers import secured
from pinxit.serve.errors import error_content

HEADER_SECONDS = 15.0
"""Seconds in which the headers of a request must arrive."""
WRITE_SECONDS = 60.0
"""Seconds in which a client must read what was sent."""
MOST_CONNECTIONS = 512
"""Number of connections at the same time."""


class StudioProtocol(H11Protocol):
    """One connection of a client."""

    header_seconds = HEADER_SECONDS
    write_seconds = WRITE_SECONDS
    most_connections = MOST_CONNECTIONS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self.idle_since: float | None = time.monotonic()
        """When the connection began to wait for a request, or None while one is answered."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock for the first request, and makes room for the connection."""
        super().connection_made(transport)
        self._start_header_timer()
        if len(self.connections) > self.most_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops all clocks."""
        self._stop_header_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads a part of a request. The clock runs from its first byte to its last header."""
        if self.idle_since is not None and self._header_timer is None:
            self._start_header_timer()
        super().data_received(data)
        self._follow_request()

    def on_response_complete(self) -> None:
        """Notes that the connection waits for its next request."""
        super().on_response_complete()
        self._follow_request()

    def pause_writing(self) -> None:
        """Starts the clock of a client that does not read."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stops the clock of a client that reads again."""
        self._stop_write_timer()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is not HTTP, in the form of all other errors."""
        body = json.dumps(error_content(400, msg, code="invalid_http")).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        headers.append((b"content-length", str(len(body)).encode()))
        start = h11.Response(status_code=400, headers=secured(headers, None), reason=b"Bad Request")
        for event in (start, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _follow_request(self) -> None:
        """Notes whether a request is being answered."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering:
            self._stop_header_timer()
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = time.monotonic()

    def _make_room(self) -> None:
        """Ends the connection that has been idle for longest: this one, if all others are busy."""
        idle = [one for one in self.connections if getattr(one, "idle_since", None) is not None]
        oldest = min(idle, key=lambda one: one.idle_since, default=self)  # type: ignore[union-attr]
        self.connections.discard(oldest)
        oldest.transport.abort()  # type: ignore[union-attr]

    def _start_header_timer(self) -> None:
        self._header_timer = self.loop.call_later(self.header_seconds, self.transport.abort)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
