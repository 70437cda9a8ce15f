"""A small S3 server on loopback: GET with ranges, HEAD and listings, with latency and faults.

moto speaks far more of S3, but it answers some two hundred requests a second, and always at once.
``python s3_server.py PATH --latency 0.03`` serves a file as s3://bucket/NAME, or the files of a
folder under their paths in it. It prints its port, and answers GET /_counts with its counters as
JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit

ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
LISTING = (
    "<?xml version='1.0'?><ListBucketResult><KeyCount>{count}</KeyCount>{keys}</ListBucketResult>"
)
KEY = "<Contents><Key>{key}</Key><Size>{size}</Size></Contents>"


class S3Server:
    """Serves objects from memory, in a thread. A context manager."""

    def __init__(self, objects: Mapping[str, bytes], *, latency: float = 0.0) -> None:
        """Takes the objects of the bucket ``bucket`` by key. Each answer begins `latency` seconds
        after its request."""
        self.objects, self.latency = dict(objects), latency
        self.faults: dict[str, list[str]] = {}
        """By key, the faults of the next requests: an error's status and code ("503 SlowDown"),
        "hang" (no answer), "cut" (half of the body)."""
        self.down = 0
        """The number of the next requests whose connections break off, as in an outage."""
        self.requests: list[str] = []
        """The method, key and range of each request for an object."""
        self.sent = 0
        """The bytes of all bodies."""
        self.most_at_once = 0
        self._now = 0
        self.port = 0
        self.connections = 0
        self._ready = threading.Event()

    @property
    def url(self) -> str:
        """The address for AWS_ENDPOINT_URL_S3."""
        return f"http://127.0.0.1:{self.port}"

    def counts(self) -> dict[str, int]:
        """Returns the counters."""
        return {
            "requests": len(self.requests),
            "bytes": self.sent,
            "most_at_once": self.most_at_once,
            "connections": self.connections,
        }

    def __enter__(self) -> S3Server:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._answered(reader, writer):
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request, and returns whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (h.partition(":") for h in head)
        }
        await reader.readexactly(int(headers.get("content-length", 0)))
        url = urlsplit(target)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            if self.latency:
                await asyncio.sleep(self.latency)
            if self.down:
                self.down -= 1
                return False
            if bucket == "_counts":
                return self._send(writer, "200 OK", json.dumps(self.counts()).encode(), "GET")
            if bucket != "bucket":
                return self._send(writer, "404 Not Found", _error("NoSuchBucket"), method)
            if "list-type" in parse_qs(url.query):
                prefix = parse_qs(url.query).get("prefix", [""])[0]
                return self._send(writer, "200 OK", self._listing(prefix), method)
            return await self._object(writer, method, key, headers.get("range", ""))
        finally:
            self._now -= 1

    async def _object(self, writer: asyncio.StreamWriter, method: str, key: str, span: str) -> bool:
        self.requests.append(f"{method} {key} {span}".strip())
        fault = self.faults[key].pop(0) if self.faults.get(key) else ""
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault not in ("", "cut"):
            return self._send(writer, fault, _error(fault.partition(" ")[2]), method)
        content = self.objects.get(key)
        if content is None:
            return self._send(writer, "404 Not Found", _error("NoSuchKey"), method)
        if not span:
            return self._send(writer, "200 OK", content, method, cut=fault == "cut")
        first, _, last = span.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last or len(content)) + 1, len(content))
        if start >= len(content):
            status = "416 Requested Range Not Satisfiable"
            return self._send(writer, status, _error("InvalidRange"), method)
        more = f"Content-Range: bytes {start}-{stop - 1}/{len(content)}\r\n"
        part = content[start:stop]
        return self._send(writer, "206 Partial Content", part, method, more, cut=fault == "cut")

    def _send(
        self,
        writer: asyncio.StreamWriter,
        status: str,
        body: bytes,
        method: str,
        more: str = "",
        *,
        cut: bool = False,
    ) -> bool:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nAccept-Ranges: bytes\r\n{more}"
        sent = b"" if method == "HEAD" else body[: len(body) // 2] if cut else body
        writer.write(f"{head}\r\n".encode() + sent)
        self.sent += len(sent)
        return not cut

    def _listing(self, prefix: str) -> bytes:
        names = sorted(key for key in self.objects if key.startswith(prefix))
        keys = "".join(KEY.format(key=key, size=len(self.objects[key])) for key in names)
        return LISTING.format(count=len(names), keys=keys).encode()


def _error(code: str) -> bytes:
    return ERROR.format(code=code.replace(" ", "")).encode()


def main() -> None:
    """Serves one file, or the files of a folder, until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--latency", type=float, default=0.0)
    args = parser.parse_args()
    root = args.file if args.file.is_dir() else args.file.parent
    files = [path for path in args.file.rglob("*") if path.is_file()] or [args.file]
    objects = {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
    server = S3Server(objects, latency=args.latency)
    with server:
        print(server.port, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
