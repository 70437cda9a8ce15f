"""A web server on loopback that can be taken away and brought back, and answers under many hosts.

Every address 127.0.0.2 to 127.0.0.250 is a host of its own. While the server is away, connections
are refused, or with ``silent`` accepted and never answered.
"""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hostile_server import picture

NETWORK = "127.0.0.0/8"
HOSTS = 40


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        data = picture(int(self.path.rpartition("/")[2]))
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.server.answered += 1  # ty: ignore

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128
    answered = 0


class MortalServer:
    """Serves pictures by number until `kill`, and again after `revive`."""

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self.answered = 0
        """Number of requests answered in all lives."""
        self._deaf: socket.socket | None = None
        self._server = self._serve(0)
        self.port = self._server.server_address[1]

    def __enter__(self) -> MortalServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._deaf is not None:
            self._deaf.close()

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return self._server is not None

    def url(self, number: int) -> str:
        return f"http://127.0.0.{2 + number % HOSTS}:{self.port}/{number}"

    def kill(self) -> None:
        """Goes away. Requests under way are cut."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self.answered += self._server.answered
        self._server = None
        if self.silent:
            self._deaf = socket.create_server(("0.0.0.0", self.port), backlog=1)

    def revive(self) -> None:
        """Comes back under the same addresses."""
        if self._deaf is not None:
            self._deaf.close()
            self._deaf = None
        self._server = self._serve(self.port)

    def _serve(self, port: int) -> _Server:
        server = _Server(("0.0.0.0", port), _Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server
