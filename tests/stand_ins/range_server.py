"""A web server on loopback that serves files by byte ranges and counts what it sends."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

PIECE = 2**16
"""Bytes that the server writes at a time, so that an answer that is not read to its end counts as
little as was sent of it."""


class RangeServer:
    """The files by name, and what was sent of them."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.address = ""
        self.marks: dict[str, str] = {"Last-Modified": "Mon, 30 Nov 2026 00:00:00 GMT"}
        """Headers that tell one content from another."""
        self.sent = 0
        """Bytes of bodies."""
        self.requests = Counter[str]()
        """Requests by method."""
        self.broken = False
        """Whether every request is answered with an error of the server."""
        self._lock = threading.Lock()

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))

    def count(self, method: str) -> None:
        with self._lock:
            self.requests[method] += 1

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yields a body in pieces, each of which is counted before it is sent."""
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            with self._lock:
                self.sent += len(piece)
            yield piece

    def forget(self) -> None:
        """Begins to count again."""
        with self._lock:
            self.sent, self.requests = 0, Counter()


@contextmanager
def serve_ranges(files: dict[str, bytes]) -> Iterator[RangeServer]:
    """Serves the files while the block runs."""
    state = RangeServer(files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Keeps the test's output clean."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            data = state.files.get(unquote(self.path).strip("/"))
            code, headers = 200, {"Accept-Ranges": "bytes", **state.marks}
            if data is None or state.broken:
                code, data, headers = 503 if state.broken else 404, b"", {}
            elif wanted := self.headers.get("Range"):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                low, high = int(first), min(int(last or len(data) - 1), len(data) - 1)
                headers["Content-Range"] = f"bytes {low}-{high}/{len(data)}"
                code, data = 206, data[low : high + 1]
            state.count(self.command)
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                with suppress(ConnectionError):
                    for piece in state.pieces(data):
                        self.wfile.write(piece)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    state.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
