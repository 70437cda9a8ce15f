"""Runs the studio's application: sockets, signals, and an orderly end.

The socket is bound before anything else, so that a port in use costs nothing. The first SIGINT or
SIGTERM closes it, lets the running jobs finish for a limited time, and ends with exit code 0. A
second one ends the process at once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from pinxit.serve.access.access_token import NEW, AccessToken
from pinxit.serve.access.guard import StudioGuard
from pinxit.serve.access.listening import UNIX, addresses_of, bind_sockets, server_address
from pinxit.serve.access.request_shape import LARGEST_HEADERS
from pinxit.serve.access.studio_rules import rules_of
from pinxit.serve.app import create_app
from pinxit.serve.desktop import open_page, should_open
from pinxit.serve.http_protocol import StudioProtocol
from pinxit.serve.settings import StudioConfig

KEEP_ALIVE_SECONDS = 15
"""Seconds that a connection is kept without a request."""
ENDING_SECONDS = 5
"""Seconds for answers to end after the drawing has."""


def run_studio(config: StudioConfig) -> int:
    """Runs the server until it is asked to end, and returns the exit code."""
    addresses = addresses_of(config.host)  # once: what is checked is what is listened on
    rules = rules_of(config, addresses)
    sockets = bind_sockets(config.host, config.port, addresses)
    try:
        address = server_address(sockets, config.host)
        if not address.startswith(UNIX):
            config = dataclasses.replace(config, port=sockets[0].getsockname()[1])
        shows_token = config.token == NEW
        app = create_app(dataclasses.replace(config, token=rules.token), addresses=addresses)
        token: AccessToken | None = app.state.token
        link = f"{address}?token={rules.token}" if shows_token else address

        def ready() -> None:
            print(f"pinxit studio: {link} (Ctrl+C ends it)", file=sys.stderr, flush=True)
            if should_open(config.open) and not address.startswith(UNIX):
                open_page(address if token is None else f"{address}?token={token.new_code()}")

        server = StudioServer(app, config, ready)
        server.run(sockets)
    finally:
        for one in sockets:
            _close(one)
    return 0 if server.started else 1


def _close(listener: socket.socket) -> None:
    """Closes a listening socket, and removes the file of a Unix socket."""
    name = listener.getsockname() if listener.fileno() >= 0 else None
    listener.close()
    if isinstance(name, str) and name:
        Path(name).unlink(missing_ok=True)


class StudioServer(uvicorn.Server):
    """A server that lets jobs finish before it ends, and tells when it can answer."""

    def __init__(
        self, app: FastAPI, settings: StudioConfig, ready: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=StudioProtocol,
                loop="asyncio",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(settings.trust_proxy),
                forwarded_allow_ips=list(settings.trust_proxy),
                h11_max_incomplete_event_size=LARGEST_HEADERS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=ENDING_SECONDS,
            )
        )
        self.app = app
        self.drain_seconds = settings.drain_seconds
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to accept connections, and says so."""
        _log_errors()
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts no further connections, and ends once jobs and answers have.

        The jobs come first, because the application closes the engine when it ends, and jobs need
        no connection.
        """
        for listener in self.servers:
            listener.close()
        await self._drain()
        await super().shutdown(sockets)

    async def _drain(self) -> None:
        """Lets the jobs finish for a limited time, then ends the streams that are still open."""
        engine = self.app.state.studio.engine
        await asyncio.to_thread(engine.drain, float(self.drain_seconds))
        await asyncio.sleep(0.2)  # the streams of ended jobs send their own last events
        streams: StudioGuard | None = getattr(self.app.state, "guard", None)
        if streams is not None:
            await streams.end_streams()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Asks the server to end. The second signal ends the process at once."""
        if self.should_exit:
            sys.stderr.flush()
            os._exit(128 + sig)
        self.should_exit = True
        name = signal.Signals(sig).name
        print(f"pinxit studio: {name}: finishing the running jobs", file=sys.stderr, flush=True)


class OneLine(logging.Formatter):
    """Formats an error as one line, with its traceback if PINXIT_DEBUG is set."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record."""
        text = " ".join(record.getMessage().split())
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            last = traceback.extract_tb(error.__traceback__)[-1:]
            where = "".join(f" ({Path(one.filename).name}:{one.lineno})" for one in last)
            text += f": {type(error).__name__}: {' '.join(str(error).split())[:500]}{where}"
            if os.environ.get("PINXIT_DEBUG", "0") not in ("", "0"):
                text += "\n" + "".join(traceback.format_exception(error))
        return f"pinxit studio: error: {text}"


def _log_errors() -> None:
    """Makes uvicorn write its errors, one line each, and nothing else."""
    logger = logging.getLogger("uvicorn")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logger.handlers = [handler]
    logger.setLevel(logging.ERROR)
    logger.propagate = False
