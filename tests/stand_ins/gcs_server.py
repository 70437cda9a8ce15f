"""A small Google Cloud Storage server on loopback: metadata, ranges, listings and uploads."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "bucket"


class GcsServer(ThreadingHTTPServer):
    """Keeps the objects of one bucket, and the state of resumable uploads."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[str] = []
        """The method, path and range of each request."""
        self.faults: list[int] = []
        """The statuses of the next downloads."""

    @property
    def url(self) -> str:
        """The address for STORAGE_EMULATOR_HOST."""
        return f"http://127.0.0.1:{self.server_port}"

    def about(self, name: str) -> dict[str, Any]:
        """Returns the metadata of an object."""
        content = self.objects[name]
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        return {"bucket": BUCKET, "name": name, "size": str(len(content)), "md5Hash": md5}


class Handler(BaseHTTPRequestHandler):
    """Answers the requests that gcsfs sends."""

    server: GcsServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url, span = urlsplit(self.path), self.headers.get("Range", "")
        self.server.requests.append(f"GET {unquote(url.path)} {span}".strip())
        kind, _, name = unquote(url.path).partition("/o/")
        bucket = kind.partition("/b/")[2].partition("/")[0]
        if bucket != BUCKET:
            return self._answer(404, {"error": {"message": "The bucket does not exist."}})
        if not name:
            prefix = parse_qs(url.query).get("prefix", [""])[0]
            names = sorted(n for n in self.server.objects if n.startswith(prefix))
            return self._answer(200, {"items": [self.server.about(n) for n in names]})
        if name not in self.server.objects:
            return self._answer(404, {"error": {"message": "No such object"}})
        if not url.path.startswith("/download"):
            return self._answer(200, self.server.about(name))
        if self.server.faults:
            return self._answer(self.server.faults.pop(0), {"error": {"message": "fault"}})
        content = self.server.objects[name]
        if not span:
            return self._answer(200, content)
        first, _, last = span.removeprefix("bytes=").partition("-")
        if int(first) >= len(content):
            return self._answer(416, {"error": {"message": "range not satisfiable"}})
        return self._answer(206, content[int(first) : int(last or len(content)) + 1])

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        self.server.requests.append(f"POST {unquote(url.path)}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if url.path.startswith("/resume/"):
            return self._part(unquote(url.path.removeprefix("/resume/")), body)
        if f"/b/{BUCKET}/" not in url.path:
            return self._answer(404, {"error": {"message": "The bucket does not exist."}})
        if query["uploadType"] == ["multipart"]:
            head, content = body.split(b"\n--==0==\n", 1)
            name = json.loads(head.split(b"\n\n", 1)[1])["name"]
            self.server.objects[name] = content.split(b"\n\n", 1)[1].removesuffix(b"\n--==0==--")
            return self._answer(200, self.server.about(name))
        name = query["name"][0]
        self.server.uploads[name] = b""
        self._answer(200, {}, {"Location": f"{self.server.url}/resume/{name}?upload_id=1"})

    def _part(self, name: str, body: bytes) -> None:
        self.server.uploads[name] += body
        total = int(self.headers["Content-Range"].rpartition("/")[2])
        if len(self.server.uploads[name]) < total:
            last = len(self.server.uploads[name]) - 1
            return self._answer(308, b"", {"Range": f"bytes=0-{last}"})
        self.server.objects[name] = self.server.uploads.pop(name)
        self._answer(200, self.server.about(name))

    def _answer(
        self, status: int, body: bytes | dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def gcs_server() -> Iterator[GcsServer]:
    """Serves an empty bucket called ``bucket`` in threads."""
    server = GcsServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
