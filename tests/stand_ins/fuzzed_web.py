"""Hostile URLs, and a server on loopback that answers with anything, the same for each number."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import threading

from hostile_server import picture

URLS = (
    "http://[::1]@/",
    "https://user:pw@host.example.com:8080/a/b.jpg?x=1&amp;y=2#f",
    "http://example.com/%zz?%",
    "//cdn.test/../x",
    "http://2130706433/",
    "http://xn--nxasmq6b.test/é",
    "http://[fe80::1%25eth0]/",
    "HTTP://EXAMPLE。COM/",
    "data:image/png;base64,AA",
    "http://a.b:99999/",
    "http://℀.com/",
)
PIECES = (
    *("[", "]", "@", ":", "//", "/", "?", "#", "%", "%00", "%ff", "\\", "\ud800", "\0", "\n", " "),
    *("\u3002", "\u2100", "xn--", "::1", "0x7f", "&amp;", ".", "..", "\u202e", "\u0663", "\u2177"),
    *("-", "_", "a" * 70, "http://", "https:"),
)
HEADERS = (
    *("Location", "Retry-After", "X-Robots-Tag", "Content-Length", "Content-Type", "Set-Cookie"),
    *("Content-Encoding", "Transfer-Encoding", "Connection", "TDM-Reservation", "Upgrade", "X"),
)
VALUES = (
    *("http://[::1]@/", "/2", "//", "", "-1", "5", "99999999999999999999", "chunked", "gzip"),
    *("noai", "a: b: noindex,,", "Mon, 01 Jan 0001 00:00:00 +2359", "1e9", "Fri, 99", "\xff\xfe"),
    *("chunked, chunked", "close", "utf-8; =", "5, 5", "h2c", "\u0663", "0", "+5", "http://a b/"),
)


def mutated_url(rng: random.Random) -> str:
    """A URL with a few characters changed, left out, repeated or put in."""
    text = list(rng.choice(URLS))
    for _ in range(rng.randint(1, 6)):
        at, kind = rng.randrange(len(text) + 1), rng.randrange(4)
        if kind == 0:
            del text[at : at + rng.randint(1, 5)]
        elif kind == 1:
            text[at:at] = rng.choice(PIECES)
        elif kind == 2:
            text.insert(at, chr(rng.randrange(rng.choice((0x80, 0x3000, 0x110000)))))
        else:
            text[at:at] = text[at : at + rng.randint(1, 12)]
    return "".join(text)


def _header(rng: random.Random) -> bytes:
    name, value = rng.choice(HEADERS), rng.choice(VALUES)
    if rng.random() < 0.1:
        value = mutated_url(rng)
    if rng.random() < 0.05:
        value *= rng.choice((2, 300, 9000))
    return f"{name}: {value}\r\n".encode("utf-8", "surrogatepass")


def random_answer(number: int) -> bytes:
    """The bytes of an answer: valid, mutated, or nothing but noise."""
    rng = random.Random(number)
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(300))
    code = rng.choice((200, 200, 200, 301, 302, 307, 404, 429, 503, rng.randrange(1000), -5, 99999))
    body = rng.choice((picture(number), b"abcde", b"", b"5\r\nabcde\r\n0\r\n\r\n", b"zz\r\nab\r\n"))
    many = rng.choice((0, 1, 2, 3, 5, 5, 300))
    head = b"".join(_header(rng) for _ in range(rng.randrange(many + 1)))
    if rng.random() < 0.5:
        head += f"Content-Length: {len(body) + rng.choice((0, 0, 0, 5, -3))}\r\n".encode()
    answer = bytearray(f"HTTP/1.1 {code} OK\r\n".encode() + head + b"\r\n" + body)
    for _ in range(rng.choice((0, 0, 0, 1, 4))):
        at = rng.randrange(len(answer))
        answer[at : at + rng.randrange(4)] = rng.choice((b"", rng.randbytes(1), rng.randbytes(9)))
    return bytes(answer)


class FuzzedServer:
    """Answers ``/<number>`` with `random_answer`, as long as the context lasts."""

    def __enter__(self) -> FuzzedServer:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(ready)), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    def url(self, number: int) -> str:
        """The URL of an answer, at one of 50 hosts."""
        return f"http://h{number % 50}.test:{self.port}/{number}"

    async def _main(self, ready: threading.Event) -> None:
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._done.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            number = re.search(rb"\d+", head.partition(b"\r\n")[0])
            writer.write(random_answer(int(number[0][:9]) if number else 0))
            await writer.drain()
        writer.close()
