"""A web server on all loopback addresses that counts what each host sees at once, and may ask for
pauses or hang; `fetch_in_process` fetches from it in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections import Counter

from hostile_server import picture

NETWORK = "127.0.0.0/8"


class PoliteServer:
    """Serves ``/<kind>/<number>`` on every address of 127.0.0.0/8, each of which is a host.

    ``good`` is a picture after `delay` seconds, ``hang`` is answered when `release` is called, and
    ``pause-S`` is a 429 that asks for S seconds as often as `pauses` says for the host, and then a
    picture.
    """

    def __init__(self, *, delay: float = 0.02) -> None:
        self.delay = delay
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.seen: list[tuple[str, str, float]] = []
        """Host, path and time of each request."""
        self.pauses: Counter[str] = Counter()
        self.hanging = threading.Event()
        """Is set when a request hangs."""

    def __enter__(self) -> PoliteServer:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(ready)), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    def url(self, host: str, kind: str, number: int) -> str:
        return f"http://{host}:{self.port}/{kind}/{number}"

    def requests(self, host: str) -> int:
        return sum(seen == host for seen, _, _ in self.seen)

    def release(self) -> None:
        """Answers the requests that hang, and those that come later."""
        self._loop.call_soon_threadsafe(self._released.set)

    async def _run(self, ready: threading.Event) -> None:
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        self._released = asyncio.Event()
        server = await asyncio.start_server(self._answer, "0.0.0.0", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._done.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = writer.get_extra_info("sockname")[0]
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            path = (await reader.readuntil(b"\r\n\r\n")).decode().split()[1]
            _, kind, number = path.split("/")
            self.seen.append((host, path, self._loop.time()))
            self.now[host] += 1
            self.most[host] = max(self.most[host], self.now[host])
            try:
                status = await self._wait(host, kind, reader)
            finally:
                self.now[host] -= 1  # before the client can know that the request is over
            head = f"HTTP/1.1 {status}\r\nConnection: close\r\n"
            if kind.startswith("pause"):
                head += f"Retry-After: {kind.partition('-')[2]}\r\n"
            body = picture(int(number))
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        writer.close()

    async def _wait(self, host: str, kind: str, reader: asyncio.StreamReader) -> str:
        if kind == "hang":
            self.hanging.set()
            gone = asyncio.ensure_future(reader.read())
            answered = asyncio.ensure_future(self._released.wait())
            await asyncio.wait({gone, answered}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel(), answered.cancel()
        elif kind.startswith("pause") and self.pauses[host] > 0:
            self.pauses[host] -= 1
            return "429 Busy"
        else:
            await asyncio.sleep(self.delay)
        return "200 OK"


CODE = """
import json, sys
from pinxit.data.fetch.fetcher import FetchConfig
from pinxit.data.fetch.shared_fetcher import fetch_all
urls, settings = json.load(sys.stdin)
settings["allow_networks"] = tuple(settings["allow_networks"])
print("ready", flush=True)
results = fetch_all([(url, url) for url in urls], FetchConfig(**settings))
print(json.dumps({url: result.status for url, result in results}))
"""


def fetch_in_process(urls: list[str], **settings: object) -> subprocess.Popen[str]:
    """Starts a process that fetches URLs, and prints "ready" and then the statuses."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    json.dump((urls, {"allow_networks": [NETWORK], "retries": 0, **settings}), process.stdin)
    process.stdin.close()
    assert process.stdout.readline() == "ready\n"
    return process


def ends_of(process: subprocess.Popen[str]) -> dict[str, str]:
    """Waits for a process of `fetch_in_process`, and returns the statuses by URL."""
    assert process.stdout is not None
    ends = json.loads(process.stdout.read())
    process.stdout.close()
    assert process.wait() == 0
    return ends
