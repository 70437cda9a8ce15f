"""A small app behind the studio's real server, whose engine drains as slowly as a test wants.

Run as a program, it serves until a signal, as `pinxit studio` does.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from pinxit.serve.access.access_rules import AccessRules
from pinxit.serve.access.guard import guard
from pinxit.serve.server import StudioServer
from pinxit.serve.settings import StudioConfig

PIECE = b"x" * 65536


class SlowEngine:
    """Stands in for the engine: its one job ends some seconds after the server was asked to."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ended = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    def drain(self, seconds: float) -> None:
        """Waits for the job, at most so many seconds."""
        time.sleep(min(seconds, self.seconds))
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.ended.set)


def small_app(rules: AccessRules, drain: float = 0.0) -> FastAPI:
    """Returns an app with a body, a stream without end, a job's stream, and a large file."""
    app = FastAPI()
    engine = SlowEngine(drain)
    app.state.studio = SimpleNamespace(engine=engine)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/images/edits")
    async def body(request: Request) -> dict[str, int]:
        return {"size": len(await request.body())}

    @app.get("/events")
    async def events() -> StreamingResponse:
        async def lines() -> AsyncIterator[bytes]:
            while True:
                yield b"data: tick\n\n"
                await asyncio.sleep(0.05)

        return StreamingResponse(lines(), media_type="text/event-stream")

    @app.get("/job")
    async def job() -> StreamingResponse:
        engine.loop = asyncio.get_running_loop()

        async def lines() -> AsyncIterator[bytes]:
            yield b"event: queued\ndata: {}\n\n"
            await engine.ended.wait()
            yield b"event: ended\ndata: {}\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    @app.get("/large")
    async def large() -> StreamingResponse:
        return StreamingResponse(iter([PIECE] * 1000))

    guard(app, rules)
    return app


@contextmanager
def protected(app: FastAPI, **settings: Any) -> Iterator[tuple[int, StudioServer]]:
    """Serves an app in a thread with the studio's server, and yields its port and the server."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = StudioServer(app, StudioConfig(**{"port": port, "drain_seconds": 1, **settings}))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.005)
    try:
        yield port, server
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive(), "the server did not end"


def send_raw(port: int, *pieces: bytes | float, seconds: float = 5.0) -> bytes:
    """Sends bytes, with pauses where there are numbers, and returns all that comes back until the
    server closes the connection or the time is up."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        for piece in pieces:
            if isinstance(piece, bytes):
                connection.sendall(piece)
            else:
                time.sleep(piece)
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
        except (TimeoutError, ConnectionError):
            pass
        return received


if __name__ == "__main__":
    bound = socket.create_server(("127.0.0.1", 0))
    settings = StudioConfig(drain_seconds=int(sys.argv[2]))
    small = small_app(AccessRules(), float(sys.argv[1]))
    StudioServer(small, settings, lambda: print(bound.getsockname()[1], flush=True)).run([bound])
