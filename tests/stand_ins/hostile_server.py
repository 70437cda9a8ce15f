"""A web server on loopback that misbehaves in every way the web does, the same each time by path.

``/<kind>/<number>`` is answered as `KINDS` says; `mixed` lists paths of which a share is bad. In a
test, ``with HostileServer() as server:`` runs it in a thread (or, with ``process=True``, in a
process of its own, so that its memory and CPU time are not the test's). It answers to any host
name: `lookup` resolves every name to it, so that one server is many hosts. By hand:
``python tests/stand_ins/hostile_server.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import io
import json
import random
import socket
import ssl
import struct
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from aiohttp import web
from PIL import Image

LOOPBACK = "127.0.0.1/32"
OK, BAD = True, False


# --- bodies -----------------------------------------------------------------------------------


@functools.cache
def pixels(number: int, width: int = 96, height: int = 72) -> np.ndarray:
    """An image like no other number's: a coloured gradient and some noise."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(6.28 * (a * x + b * y + c)) for a, b, c in rng.uniform(-2, 2, (3, 3))]
    noise = rng.normal(0, 6, (height, width, 3))
    return np.clip(128 + 90 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


def picture(number: int, form: str = "JPEG") -> bytes:
    """The encoded image of a number; there are 16 different ones."""
    return _encoded(number % 16, form)


@functools.cache
def _encoded(number: int, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(number)).save(buffer, form, quality=85)
    return buffer.getvalue()


@functools.cache
def bomb(size: int = 20 * 2**20) -> bytes:
    """Zeros, gzip-compressed a thousandfold."""
    return gzip.compress(bytes(size), 9)


# --- answers ----------------------------------------------------------------------------------

Answer = web.StreamResponse


def body(data: bytes, kind: str = "image/jpeg", status: int = 200, **headers: str) -> web.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(body=data, status=status, headers={"Content-Type": kind, **named})


def code(status: int, **headers: str) -> Callable[[web.Request, int], web.Response]:
    return lambda request, number: body(b"no", "text/plain", status, **headers)


async def stream(request: web.Request, piece: bytes, pause: float, **headers: str) -> Answer:
    """A chunked body that never ends."""
    answer = web.StreamResponse(headers={"Content-Type": "image/jpeg", **headers})
    with contextlib.suppress(ConnectionResetError):
        await answer.prepare(request)
        while True:
            await answer.write(piece)
            await asyncio.sleep(pause)
    return answer


async def hang(request: web.Request, number: int) -> Answer:
    await asyncio.sleep(3600)
    return body(b"")


async def raw(request: web.Request, *pieces: bytes, reset: bool = False, forever: bool = False):
    """Bytes as they are on the wire, then the connection is closed, or reset."""
    transport = request.transport
    assert transport is not None
    for piece in pieces:
        transport.write(piece)
    while forever and not transport.is_closing():
        transport.write(pieces[-1])
        await asyncio.sleep(0.001)
    if reset:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await asyncio.sleep(0.01)
        transport.abort()
    else:
        transport.close()
    await asyncio.sleep(3600)


def redirect(to: str, status: int = 302) -> web.Response:
    return body(b"", "text/plain", status, Location=to)


def flaky(request: web.Request, number: int) -> web.Response:
    """Fails twice, then is as good as any."""
    seen = request.app[STATE].hits[request.path]
    return body(b"busy", "text/plain", 503) if seen <= 2 else body(picture(number))


def busy(request: web.Request, number: int) -> web.Response:
    """Asks once for a second of quiet."""
    seen = request.app[STATE].hits[request.path]
    return code(429, Retry_After="1")(request, number) if seen == 1 else body(picture(number))


async def slow(request: web.Request, number: int) -> Answer:
    await asyncio.sleep(0.3)
    return body(picture(number))


async def truncated(request: web.Request, number: int) -> Answer:
    data = picture(number)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
    return await raw(request, head.encode(), data[: len(data) // 2])


async def to_target(request: web.Request, number: int) -> Answer:
    """Wherever a test wants, in bytes that a decent server would not send."""
    target = request.app[STATE].targets[number].encode()
    head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + target + b"\r\n\r\n"
    return await raw(request, head)


async def fuzz(request: web.Request, number: int) -> Answer:
    """An answer with a few bytes changed, left out, repeated or put in."""
    rng = random.Random(number)
    bodies = (b"5\r\nabcde\r\n0\r\n\r\n", b"abcde")
    heads = (b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n")
    which = rng.randrange(2)
    lines = HEAD + heads[which] + b"Location: /good/1\r\nX-Robots-Tag: index\r\nRetry-After: 1\r\n"
    data = bytearray(lines + b"\r\n" + bodies[which])
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        new = rng.choice((b"", rng.randbytes(1), rng.randbytes(9), bytes(data[at : at + 30]) * 2))
        data[at : at + rng.randint(0, 4)] = new
    return await raw(request, bytes(data))


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def odd(*pieces: bytes, **how: bool) -> Callable:
    return lambda request, number: raw(request, *pieces, **how)


@dataclass(frozen=True)
class Kind:
    """A way to answer, and how a fetch of it ends (status, after retries)."""

    answer: Callable
    status: str


KINDS: dict[str, Kind] = {
    # good
    "good": Kind(lambda request, number: body(picture(number)), "ok"),
    "png": Kind(lambda request, number: body(picture(number, "PNG"), "image/png"), "ok"),
    "webp": Kind(lambda request, number: body(picture(number, "WEBP"), "image/webp"), "ok"),
    "slow": Kind(slow, "ok"),
    "flaky": Kind(flaky, "ok"),
    "busy": Kind(busy, "ok"),
    "redirected": Kind(lambda request, number: redirect(f"/hop{number % 3}/{number}"), "ok"),
    "hop0": Kind(lambda request, number: redirect(f"../good/{number}", 301), "ok"),
    "hop1": Kind(lambda request, number: redirect(f"/hop0/{number}", 307), "ok"),
    "hop2": Kind(lambda request, number: redirect(f"/hop1/{number}", 308), "ok"),
    "cookie": Kind(lambda request, number: body(picture(number), Set_Cookie="a=b"), "ok"),
    "large": Kind(lambda request, number: body(bytes(2**19)), "ok"),
    "mislabelled": Kind(lambda request, number: body(picture(number, "PNG"), "text/html"), "ok"),
    # fetched, and then of no use
    "html": Kind(lambda request, number: body(b"<html>gone</html>" * 50), "ok"),
    "corrupt": Kind(lambda request, number: body(b"\xff\xd8\xff\xe0" + bytes(4000)), "ok"),
    "cut": Kind(lambda request, number: body(picture(number)[:900]), "ok"),
    # bad
    "empty": Kind(lambda request, number: body(b""), "empty"),
    "403": Kind(code(403), "http_403"),
    "404": Kind(code(404, X_Robots_Tag="noindex"), "http_404"),
    "410": Kind(code(410), "http_410"),
    "500": Kind(code(500), "http_500"),
    "later": Kind(code(503, Retry_After="86400"), "http_503"),
    "hang": Kind(hang, "timeout"),
    "drip": Kind(lambda request, number: stream(request, b"\xff", 0.05), "timeout"),
    "endless": Kind(lambda request, number: stream(request, bytes(2**16), 0.001), "too_big"),
    "huge": Kind(odd(HEAD + b"Content-Length: 1073741824\r\n\r\n", bytes(2**16)), "too_big"),
    "loop": Kind(lambda request, number: redirect(f"/loop/{number + 1}"), "redirects"),
    "nowhere": Kind(lambda request, number: redirect("http://[::1/"), "redirects"),
    "to_private": Kind(lambda request, number: redirect("http://10.0.0.1/a.jpg"), "blocked"),
    "to_metadata": Kind(lambda request, number: redirect("//169.254.169.254/"), "blocked"),
    "to": Kind(to_target, ""),
    "fuzz": Kind(fuzz, ""),
    "to_file": Kind(lambda request, number: redirect("file:///etc/passwd"), "scheme"),
    "gzip": Kind(lambda request, number: body(bomb(), Content_Encoding="gzip"), "encoded"),
    "noai": Kind(lambda request, number: body(picture(number), X_Robots_Tag="noai"), "opt_out"),
    "otherbot": Kind(
        lambda request, number: body(picture(number), X_Robots_Tag="otherbot: noimageai, nocache"),
        "opt_out",
    ),
    "reset": Kind(odd(reset=True), "connect"),
    "reset_inside": Kind(odd(CHUNKED + b"5\r\nabcde\r\n", reset=True), "connect"),
    "closed": Kind(odd(), "connect"),
    "truncated": Kind(truncated, "connect"),
    "no_http": Kind(odd(b"SSH-2.0-OpenSSH_9.6\r\n"), "protocol"),
    "bad_chunk": Kind(odd(CHUNKED + b"zz\r\nabc\r\n"), "protocol"),
    "long_header": Kind(odd(HEAD + b"X: " + b"a" * 100_000 + b"\r\n\r\n"), "protocol"),
    "many_headers": Kind(odd(HEAD, b"X-A: " + b"a" * 5000 + b"\r\n", forever=True), "protocol"),
    "continues": Kind(odd(b"HTTP/1.1 100 Continue\r\n\r\n", forever=True), "timeout"),
}
"""What ``/<kind>/<number>`` does; "to" and "fuzz" have no certain end."""

GOOD = ("good", "good", "good", "png", "webp", "redirected", "slow", "mislabelled")
BADS = {
    "404": 10, "410": 2, "500": 2, "hang": 5, "html": 2, "corrupt": 2, "cut": 1, "huge": 2,
    "endless": 1, "to_private": 1, "loop": 1, "reset": 1, "truncated": 1, "noai": 1, "drip": 1,
}  # fmt: skip
"""The kinds of bad answers and how often each comes."""


def mixed(count: int, bad: float = 0.3, *, seed: int = 0, hosts: int = 100) -> list[tuple]:
    """(host, kind, number) for `count` URLs, a share of them bad, spread over so many hosts."""
    rng = random.Random(seed)
    wrong = round(count * bad)
    kinds = rng.choices(list(BADS), list(BADS.values()), k=wrong)
    kinds += [GOOD[i % len(GOOD)] for i in range(count - wrong)]
    rng.shuffle(kinds)
    return [(f"host{rng.randrange(hosts)}.test", kind, i) for i, kind in enumerate(kinds)]


# --- the server -------------------------------------------------------------------------------


@dataclass
class State:
    """What the server has seen."""

    hits: Counter[str] = field(default_factory=Counter)
    """Requests by path."""
    hosts: Counter[str] = field(default_factory=Counter)
    """Requests by Host header."""
    now: Counter[str] = field(default_factory=Counter)
    """Requests being answered, by Host header."""
    peak: Counter[str] = field(default_factory=Counter)
    """The most at once, by Host header."""
    headers: dict[str, str] = field(default_factory=dict)
    """Those of the last request."""
    targets: list[str] = field(default_factory=list)
    """Where ``/to/<number>`` redirects to."""


STATE = web.AppKey("state", State)


async def handle(request: web.Request) -> Answer:
    state: State = request.app[STATE]
    host = request.host.split(":")[0]
    state.hits[request.path] += 1
    state.hosts[host] += 1
    state.now[host] += 1
    state.peak[host] = max(state.peak[host], state.now[host])
    state.headers = dict(request.headers)
    try:
        name, number = request.match_info["kind"], int(request.match_info["number"])
        answer = KINDS[name].answer(request, number)
        return await answer if asyncio.iscoroutine(answer) else answer
    finally:
        state.now[host] -= 1


async def report(request: web.Request) -> web.Response:
    state: State = request.app[STATE]
    return web.json_response({"hits": state.hits, "hosts": state.hosts, "peak": state.peak})


async def start(
    state: State, port: int = 0, *, tls: ssl.SSLContext | None = None
) -> tuple[web.AppRunner, int]:
    """A running server and its port, all pictures drawn."""
    for number in range(16):
        for form in ("JPEG", "PNG", "WEBP"):
            picture(number, form)
    app = web.Application()
    app[STATE] = state
    app.router.add_get("/report", report)
    app.router.add_get(r"/{kind}/{number:\d+}", handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=4096, ssl_context=tls)
    await site.start()
    return runner, runner.addresses[0][1]


class HostileServer:
    """The server, running as long as the context lasts."""

    def __init__(self, *, process: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self.process = process
        self.tls = tls
        self.state = State()
        """What it has seen; in a process of its own, see `report`."""
        self.port = 0
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> HostileServer:
        if self.process:
            command = [sys.executable, __file__, "--pipe"]
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert self._child.stdout is not None
            self.port = int(self._child.stdout.readline())
        else:
            ready = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
            self._thread.start()
            ready.wait()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._child is not None:
            self._child.communicate()  # closes its input, which ends it
            return
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        async def main() -> None:
            self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
            runner, self.port = await start(self.state, tls=self.tls)
            ready.set()
            await self._done.wait()
            await runner.cleanup()

        asyncio.run(main())

    def url(self, kind: str, number: int = 0, *, host: str = "127.0.0.1") -> str:
        """The URL of an answer, at this host name (see `lookup`)."""
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{host}:{self.port}/{kind}/{number}"

    def urls(self, mixture: Sequence[tuple[str, str, int]]) -> Iterator[tuple[int, str]]:
        """(position, URL) of what `mixed` gave."""
        return ((i, self.url(kind, n, host=host)) for i, (host, kind, n) in enumerate(mixture))

    def report(self) -> dict[str, dict[str, int]]:
        """Requests by path and host, and the most at once by host."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/report") as answer:
            return json.load(answer)

    @staticmethod
    def lookup(host: str) -> list[str]:
        """Every name is this server's."""
        return ["127.0.0.1"]


async def main() -> None:
    piped = "--pipe" in sys.argv
    runner, port = await start(State(), 0 if piped else 8999)
    print(port if piped else f"http://127.0.0.1:{port}/good/1 and " + " ".join(KINDS), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
