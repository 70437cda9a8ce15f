"""Makes one HTTP request to an untrusted server and returns its answer.

This module bounds what a hostile or broken server can do: the address it connects to (`Guard`), the
time (the caller's deadline), and the size of headers and body. Compressed bodies are refused,
because a few hundred kilobytes of gzip may expand a thousandfold. Every failure is returned as an
`Answer`; only faults of this machine and errors that the client does not declare raise.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy
from yarl import URL

from pinxit.data.fetch.address_guard import Guard, Refused
from pinxit.data.fetch.body_memory import BodyMemory, BodyShare
from pinxit.data.fetch.dns_resolver import TEMPORARY, Lookup, Resolver
from pinxit.data.fetch.machine_fault import is_machine_fault
from pinxit.data.outcome import http_status
from pinxit.data.retry_after import seconds_of

ACCEPT = "image/jpeg,image/png,image/webp,image/gif;q=0.9,image/*;q=0.8,*/*;q=0.5"
OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""Words of ``X-Robots-Tag`` with which an owner opts out of training or indexing; "none" means
noindex and nofollow."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
FREE = 128 * 1024
"""Bytes of a body for which no memory is reserved."""
MIDDLE = 2 * 2**20
"""Largest body of the middle size class, in bytes; few images exceed it."""
MEMORY = 48 * 2**20
"""Bytes reserved for all bodies of the middle size class, and as many for longer bodies. They cover
bodies that are being read and bodies that wait for the caller."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Holds the result of one request."""

    status: str
    """A status of `outcome.STATUSES`, or http_<code>."""
    data: bytes | None = None
    """The body if the status is ok, otherwise None."""
    detail: str = ""
    """One line of explanation for people."""
    location: str | None = None
    """The target of a redirect."""
    retry_after: float | None = None
    """The pause that the server asks for, in seconds."""
    lasting: bool = False
    """Whether the failure will not pass within seconds, so that a retry is pointless."""
    connected: bool = True
    """Whether a connection was made."""
    responded: bool = True
    """Whether the head of a response arrived, even if its body then broke off."""
    share: BodyShare | None = None
    """The memory that `data` occupies; the consumer of the body releases it."""


class Exchange:
    """An HTTP client with one pool of connections; an asynchronous context manager."""

    def __init__(
        self,
        guard: Guard,
        *,
        lookup: Lookup,
        user_agent: str,
        concurrency: int,
        connect_timeout: float,
        max_bytes: int,
        honour_opt_out: bool,
    ) -> None:
        """Bounds every body to `max_bytes`."""
        self._guard, self._max_bytes = guard, max_bytes
        self._memories = (
            (min(MIDDLE, max_bytes), BodyMemory(MEMORY)),
            (max_bytes, BodyMemory(max(MEMORY, max_bytes))),
        )
        self._honour_opt_out = honour_opt_out
        self._user_agent = user_agent
        self._concurrency, self._connect_timeout = concurrency, connect_timeout
        self._lookup = lookup

    async def __aenter__(self) -> Exchange:
        self._loop = asyncio.get_running_loop()
        self._resolver = Resolver(
            self._guard,
            self._lookup,
            threads=min(self._concurrency, 256),
            timeout=self._connect_timeout,
        )
        connector = aiohttp.TCPConnector(
            limit=0,  # `Turns` limits
            ssl=_trusted(),
            resolver=self._resolver,
            use_dns_cache=False,
            socket_factory=self._guard.socket,
            keepalive_timeout=5.0,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=2**14,  # a body that waits for memory should hold little of it
            headers={
                "User-Agent": self._user_agent,
                "Accept": ACCEPT,
                "Accept-Encoding": "identity",
            },
            timeout=aiohttp.ClientTimeout(
                total=None, connect=2 * self._connect_timeout, sock_connect=self._connect_timeout
            ),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()
        await self._resolver.close()

    def forget_failures(self) -> None:
        """Forgets which names could not be resolved."""
        self._resolver.forget_failures()

    async def get(self, url: URL, *, seconds: float, keep: bool) -> Answer:
        """Requests a URL within `seconds`; `keep` leaves the connection open for the next request.

        Raises OSError only for faults of this machine, such as too many open files. What the client
        raises besides its own errors is raised too.
        """
        headers = {} if keep else {"Connection": "close"}
        responded = False
        with contextlib.ExitStack() as held:
            share = BodyShare(self._memories, free=FREE)
            held.callback(share.release)
            try:
                async with (
                    asyncio.timeout(seconds) as deadline,
                    self._session.get(url, headers=headers, allow_redirects=False) as response,
                ):
                    responded = True
                    answer = self._judge(response) or await self._body(response, deadline, share)
            except (aiohttp.ClientError, HttpProcessingError, OSError, UnicodeError) as error:
                return replace(_failure(error, seconds), responded=responded)
            if answer.share is not None:
                held.pop_all()  # the consumer of the body releases it
            return answer

    def _judge(self, response: aiohttp.ClientResponse) -> Answer | None:
        """Returns the answer if status and headers decide it, otherwise None."""
        headers, code = response.headers, response.status
        redirect = code in REDIRECTS and "Location" in headers
        if code != 200 and not redirect:
            if code < 100:
                return Answer("protocol", detail=f"status code {code}")
            wait = seconds_of(headers.get("Retry-After", ""))
            return Answer(http_status(code), retry_after=wait)
        if self._honour_opt_out and (word := opts_out(headers)):
            return Answer("opt_out", detail=word)
        if redirect:
            return Answer(http_status(code), location=headers["Location"])
        encoding = headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            return Answer("encoded", detail=encoding)
        length = response.content_length
        if length is not None and length > self._max_bytes:
            return Answer("too_big", detail=f"{length} bytes announced")
        return None

    async def _body(
        self, response: aiohttp.ClientResponse, deadline: asyncio.Timeout, share: BodyShare
    ) -> Answer:
        """Reads the body until its end, the size limit or the deadline."""
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > self._max_bytes:
                return Answer("too_big", detail=f"more than {self._max_bytes} bytes")
            if size > share.room:
                left = (deadline.when() or math.inf) - self._loop.time()
                deadline.reschedule(None)  # waiting for memory does not count
                await share.grow(size, response.content_length)
                deadline.reschedule(self._loop.time() + left)
        share.shrink(size)
        return Answer("ok", b"".join(chunks), share=share) if size else Answer("empty")


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Returns the trusted certificates. All clients share them, because loading them is slow."""
    return ssl.create_default_context()


def opts_out(headers: CIMultiDictProxy[str] | Mapping[str, str]) -> str | None:
    """Returns the header with which the owner opts out, or None.

    ``X-Robots-Tag`` may occur several times, with several words, and with a robot's name before
    them ("otherbot: noai"); an opt-out for any robot counts. ``TDM-Reservation: 1`` reserves the
    right of text and data mining (TDM Reservation Protocol).
    """
    getall = getattr(headers, "getall", None)
    name = "X-Robots-Tag"
    values: Sequence[str] = getall(name, ()) if getall else [headers.get(name, "")]
    for value in values:
        words = {word.strip().lower() for part in value.split(",") for word in part.split(":")}
        if matches := words & OPT_OUTS:
            return f"{name}: {min(matches)}"
    if headers.get("TDM-Reservation", "").strip() == "1":
        return "TDM-Reservation: 1"
    return None


def _failure(error: Exception, seconds: float) -> Answer:
    """Returns the answer for an exception of the HTTP client."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    lookup = isinstance(cause, socket.gaierror)  # whose numbers are not those of errno
    if isinstance(cause, OSError) and is_machine_fault(cause) and not lookup:
        raise OSError(cause.errno, f"{cause.strerror}: lower the concurrency") from error
    message = cause.message if isinstance(cause, aiohttp.ClientResponseError) else str(cause)
    text = message or type(cause).__name__
    if isinstance(cause, Refused):
        return Answer("blocked", detail=cause.strerror or text, connected=False)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        lasting = not lookup or cause.errno != TEMPORARY
        return Answer("dns", detail=text, lasting=lasting, connected=False)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Answer("connect", detail="no connection in time", connected=False)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | ssl.CertificateError):
        return Answer("tls", detail=text, lasting=True, connected=False)
    if isinstance(error, aiohttp.ClientConnectorError):
        return Answer("connect", detail=text, connected=False)
    if isinstance(error, TimeoutError):
        return Answer("timeout", detail=f"more than {seconds:.3g} s")
    if isinstance(error, aiohttp.InvalidURL):
        return Answer("scheme", detail=text, connected=False)
    if isinstance(error, aiohttp.ServerConnectionError | aiohttp.ClientPayloadError | OSError):
        return Answer("connect", detail=text)
    return Answer("protocol", detail=text)
