"""Fetches URLs, of which half are dead and some hostile; every URL ends in a status.

A URL is attempted a few times. One time limit covers a whole attempt, redirects included. The
fetcher follows redirects itself instead of leaving them to the HTTP client, so that each target is
checked like the first URL. Failures that may pass within seconds (a broken connection, an
overloaded server) are retried after a pause that doubles; other failures are left to a later run
over the failed rows. Pinxit identifies itself and respects refusals: ``X-Robots-Tag`` opt-outs,
per-host limits and ``Retry-After``, over all processes of a machine (`machine_limits`).

Call `fetch_all`, or `shared_fetcher.SharedFetcher` for several lists; `Fetcher` fetches a single
URL inside an event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from pinxit.config import UsageError, positive
from pinxit.data.fetch.address_guard import Guard, follow, parse_url
from pinxit.data.fetch.host_backoff import Resting, Silent, Unreachable
from pinxit.data.fetch.machine_fault import is_machine_fault
from pinxit.data.fetch.machine_limits import limits_of_machine
from pinxit.data.fetch.request_turns import Turns, spare_places
from pinxit.data.outcome import can_heal, http_code
from pinxit.version import __version__

if TYPE_CHECKING:
    from pinxit.data.fetch.body_memory import BodyShare
    from pinxit.data.fetch.dns_resolver import Lookup
    from pinxit.data.fetch.http_request import Answer

UNREACHED = frozenset({"dns", "connect", "timeout"})
"""The statuses of requests that no server answered completely."""
UNPROVEN = frozenset({"scheme", "blocked", "tls", "fetch_error"})
"""The statuses that do not say whether the network works. The first two need no packet, and a
handshake fails at every host if a login page intercepts the connections."""
LONGEST_PAUSE = 30.0
"""Longest pause, in seconds, that the fetcher waits for. If a server asks for a longer one, its
URLs end immediately with the status that it returned, until the pause is over."""


@dataclass(frozen=True)
class FetchConfig:
    """Settings for fetching URLs."""

    concurrency: int = 256
    """Number of requests at the same time."""
    per_host: int = 8
    """Number of requests to one host at the same time, of all processes on a machine together."""
    timeout: float = 15.0
    """Seconds for a whole attempt: name lookup, connection, redirects and body."""
    connect_timeout: float = 5.0
    """Seconds for one connection, and for one name lookup."""
    max_bytes: int = 20 * 2**20
    """Largest body that is accepted, in bytes."""
    max_redirects: int = 5
    """Number of redirects that are followed in one attempt."""
    retries: int = 2
    """Number of retries for failures that may pass; none begins after `timeout` seconds."""
    backoff: float = 0.5
    """Seconds before the first retry; doubles with each retry."""
    contact: str = ""
    """A web page or e-mail address where owners can reach you; part of the User-Agent."""
    honour_opt_out: bool = True
    """Skip images whose owner opts out (X-Robots-Tag noai, noimageai, noindex, ...)."""
    allow_networks: tuple[str, ...] = ()
    """Private networks that may be fetched from nevertheless, such as 127.0.0.1/32."""
    ports: tuple[int, ...] = (80, 443)
    """Ports that may be connected to; () allows all. They do not bind allow_networks."""
    blocked_domains: tuple[str, ...] = ()
    """Domains that are never contacted, including their subdomains."""

    def __post_init__(self) -> None:
        for field in ("concurrency", "per_host", "max_bytes"):
            positive(field, getattr(self, field))
        for field in ("max_redirects", "retries", "backoff"):
            positive(field, getattr(self, field), minimum=0)
        for field in ("timeout", "connect_timeout"):
            positive(field, getattr(self, field), minimum=0.001)
        for port in self.ports:
            if not 1 <= port <= 65535:
                raise UsageError("ports", port, problem="not a port", valid="1 to 65535")
        if not self.contact.isascii() or not self.contact.isprintable() or "(" in self.contact:
            valid = "a URL or an e-mail address in plain ASCII"
            raise UsageError("contact", self.contact, problem="not for a header", valid=valid)
        self.guard()

    def guard(self) -> Guard:
        """Returns the guard; raises `UsageError` for invalid networks or domains."""
        return Guard(
            allow_networks=self.allow_networks,
            ports=self.ports,
            blocked_domains=self.blocked_domains,
        )

    @property
    def user_agent(self) -> str:
        """The User-Agent header, which names Pinxit and the contact."""
        return f"Pinxit/{__version__}" + (f" (+{self.contact})" if self.contact else "")


@dataclass(frozen=True)
class Fetched:
    """Holds the result of fetching one URL."""

    status: str
    """A status of `outcome.STATUSES`, or http_<code>."""
    data: bytes | None
    """The body if the status is ok, otherwise None."""
    detail: str = ""
    """One line of explanation for people."""
    url: str = ""
    """The last URL requested, after redirects."""
    attempts: int = 1
    """Number of attempts made."""
    reached: bool | None = True
    """Whether a server responded to the last attempt, even if the response broke off. None means
    that nothing was learned about the network, as when no request was made."""


@dataclass(slots=True)
class _Attempt:
    """The progress of one attempt, which is known even if a library raises."""

    url: str
    """The URL to request next, or the last one requested."""
    spent: float = 0.0
    """Seconds spent on requests."""
    reached: bool | None = None
    """Whether a server was reached, as in `Fetched.reached`."""
    unforeseen: str = "scheme"
    """The status for an exception in the current step."""


class Fetcher:
    """Fetches URLs; an asynchronous context manager."""

    def __init__(self, config: FetchConfig, *, lookup: Lookup | None = None) -> None:
        """Uses `lookup`, if it is passed, instead of the operating system to resolve names.

        Raises `UsageError` for a concurrency above the limit of open files.
        """
        self.config = config
        self._guard = config.guard()
        self._lookup = lookup
        spare = spare_places(config.concurrency)
        machine = limits_of_machine()
        self._turns = Turns(config.concurrency, config.per_host, spare=spare, machine=machine)
        self._unreachable = Unreachable()
        self._silent = Silent(machine.silent)
        self._resting = Resting(shared=machine.pauses)

    async def __aenter__(self) -> Fetcher:
        from pinxit.data.fetch.dns_resolver import system_lookup
        from pinxit.data.fetch.http_request import Exchange

        self._exchange = Exchange(
            self._guard,
            lookup=self._lookup or system_lookup,
            user_agent=self.config.user_agent,
            concurrency=self.config.concurrency,
            connect_timeout=self.config.connect_timeout,
            max_bytes=self.config.max_bytes,
            honour_opt_out=self.config.honour_opt_out,
        )
        await self._exchange.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exchange.__aexit__(kind, error, trace)

    def pause(self) -> None:
        """Stops new requests until `resume` is called; requests under way continue."""
        self._turns.pause()

    def resume(self) -> None:
        """Allows new requests again."""
        self._turns.resume()

    def forget_failures(self) -> None:
        """Forgets which hosts could not be reached or did not answer, and which names could not be
        resolved."""
        self._unreachable.clear()
        self._silent.clear()
        self._exchange.forget_failures()

    async def __call__(self, url: str) -> tuple[Fetched, BodyShare | None]:
        """Returns the result for this URL, and the memory that its body occupies until released.

        Raises OSError only for faults of this machine.
        """
        spent, attempt = 0.0, 0
        while True:
            attempt += 1
            last, answer, seconds, reached = await self._attempt(url)
            spent += seconds
            pause = self._pause_before_retry(url, answer, attempt, spent)
            if pause is None:
                detail = _one_line(answer.detail)
                last = _one_line(last, 2048)
                result = Fetched(answer.status, answer.data, detail, last, attempt, reached)
                return result, answer.share
            await asyncio.sleep(pause)

    async def _attempt(self, url: str) -> tuple[str, Answer, float, bool | None]:
        """Makes one attempt with redirects; returns the last URL, its answer, the seconds, and
        whether a server was reached.

        Whatever a library raises for a hostile URL or response becomes a status here, and only
        here. Faults of this machine are raised.
        """
        from pinxit.data.fetch.http_request import Answer

        attempt = _Attempt(url)
        try:
            answer = await self._requests(attempt)
        except Exception as error:
            if is_machine_fault(error):
                raise
            detail = str(error) if isinstance(error, ValueError) else ""
            detail = detail or f"{type(error).__name__}: {error}"
            answer = Answer(attempt.unforeseen, detail=detail, lasting=True)
        return attempt.url, answer, attempt.spent, attempt.reached

    async def _requests(self, attempt: _Attempt) -> Answer:
        """Requests the attempt's URL and the targets of its redirects, and returns the last answer.

        Raises what the parsers and the client raise.
        """
        from pinxit.data.fetch.http_request import Answer

        loop = asyncio.get_running_loop()
        for _ in range(self.config.max_redirects + 1):
            attempt.unforeseen = "scheme"
            target = parse_url(attempt.url)
            reason = self._guard.refuses_url(target)
            if reason is not None:
                return Answer("blocked", detail=reason)
            host, origin = str(target.raw_host), f"{target.raw_host}:{target.port}"
            attempt.unforeseen = "fetch_error"
            async with self._turns.turn(host):
                if self._unreachable.is_known(origin):
                    attempt.reached = attempt.reached or False
                    detail = "the host could not be reached a moment ago"
                    return Answer("connect", detail=detail, lasting=True)
                if self._silent.is_known(origin):
                    attempt.reached = attempt.reached or False
                    detail = "the host has not answered its last requests"
                    return Answer("timeout", detail=detail, lasting=True)
                if (status := self._resting.status(origin)) is not None:
                    detail = "the server asked for a longer pause than the fetcher waits"
                    return Answer(status, detail=detail, lasting=True)
                start = loop.time()
                answer = await self._exchange.get(
                    target,
                    seconds=self.config.timeout - attempt.spent,
                    keep=self._turns.awaited(host),
                )
                attempt.spent += loop.time() - start
                self._remember(host, origin, answer)
                attempt.reached = _reached(answer, before=attempt.reached)
            if answer.location is None:
                return answer
            attempt.unforeseen = "redirects"
            attempt.url = follow(target, answer.location)
        return Answer("redirects", detail=f"more than {self.config.max_redirects}")

    def _remember(self, host: str, origin: str, answer: Answer) -> None:
        """Records what this answer means for the next request to the host."""
        if answer.connected:
            self._unreachable.reached(origin)
        elif answer.status == "connect":
            self._unreachable.failed(origin)
        if answer.responded:
            self._silent.answered(origin)
        elif answer.status == "timeout":
            self._silent.failed(origin)
        if answer.retry_after is None or http_code(answer.status) not in (429, 503):
            return
        if answer.retry_after > LONGEST_PAUSE:
            self._resting.ask(origin, answer.status, answer.retry_after)
        else:
            self._turns.quiet(host, answer.retry_after)

    def _pause_before_retry(
        self, url: str, answer: Answer, attempt: int, spent: float
    ) -> float | None:
        """Returns the seconds until the next attempt, or None if there is none."""
        if attempt > self.config.retries or spent >= self.config.timeout:
            return None
        if not can_heal(answer.status) or answer.lasting:
            return None
        asked = answer.retry_after or 0.0
        if asked > LONGEST_PAUSE:
            return None
        return max(asked, self.config.backoff * 2 ** (attempt - 1) * _jitter(url, attempt))


def _reached(answer: Answer, *, before: bool | None) -> bool | None:
    """Returns whether an attempt has reached a server, from `before` and its next answer."""
    if answer.responded:
        return True
    if answer.status in UNREACHED:
        return before or False
    return before if answer.status in UNPROVEN else True


def _jitter(url: str, attempt: int) -> float:
    """Returns a factor between 0.5 and 1.5 that depends on the URL and the attempt alone."""
    digest = hashlib.blake2b(f"{attempt} {url}".encode(errors="replace"), digest_size=4).digest()
    return 0.5 + int.from_bytes(digest, "big") / 2**32


def _one_line(text: str, longest: int = 200) -> str:
    """Returns untrusted text as one printable line of at most `longest` characters."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())[:longest]
