"""Every row ends in one status, whatever its URL, its server or a library does."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from typing import Any

import pytest
from fuzzed_web import URLS, FuzzedServer, mutated_url
from hostile_server import LOOPBACK, HostileServer

from pinxit.data.fetch.address_guard import Guard, Refused
from pinxit.data.fetch.fetcher import FetchConfig, Fetched, Fetcher
from pinxit.data.fetch.http_request import Exchange
from pinxit.data.fetch.shared_fetcher import fetch_all
from pinxit.data.filters.row_filter import Filter, FilterConfig
from pinxit.data.outcome import Outcome, can_heal
from pinxit.data.row import Row
from pinxit.data.url_host import host_of

CONFIG = FetchConfig(
    allow_networks=(LOOPBACK,), concurrency=32, per_host=16, retries=0, timeout=5.0, backoff=0.01
)


def no_such_host(host: str) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "no such host")


def one(url: str, **more: Any) -> Fetched:
    [(_, fetched)] = fetch_all([(0, url)], CONFIG, **more)
    return fetched


@pytest.fixture
def no_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets no connection leave, also not to the addresses that URLs name."""

    def refuse(self: Guard, info: tuple[Any, ...]) -> Any:
        raise Refused("a test")

    monkeypatch.setattr(Guard, "socket", refuse)


URL_ENDS = {
    "http://[::1]@/": ("scheme", "IndexError: string index out of range"),
    "//[::1]@/": ("scheme", "IndexError: string index out of range"),
    "http://\u300206": ("scheme", ""),
    "//c\U00101625t.\U00088541/x": ("scheme", ""),
    "http://[": ("scheme", "Invalid IPv6 URL"),
    "http://a.b:99999/": ("scheme", ""),
    "http://\u2100.com/": ("scheme", ""),
    "http://a\ud800.com/": ("scheme", ""),
    "": ("scheme", "no URL"),
}
"""URLs of which parsers raise, found by the tests below: the status, and a part of its detail."""


@pytest.mark.usefixtures("no_packets")
@pytest.mark.parametrize("url", URL_ENDS, ids=ascii)
def test_a_url_of_which_a_parser_raises_ends_as_scheme(url: str):
    fetched = one(url, lookup=no_such_host)
    status, detail = URL_ENDS[url]
    assert (fetched.status, fetched.attempts, fetched.reached) == (status, 1, None)
    assert fetched.detail and detail in fetched.detail and fetched.detail.isprintable()
    fetched.url.encode()


@pytest.mark.parametrize("target", ["http://[::1]@/", "//[::1]@/", "http://[::1/"])
def test_a_location_of_which_a_parser_raises_ends_as_redirects(target: str):
    with HostileServer() as server:
        server.state.targets = [target]
        fetched = one(server.url("to", 0, host="a.test"), lookup=server.lookup)
    assert (fetched.status, fetched.reached) == ("redirects", True)


def test_whatever_the_client_raises_is_a_status_and_not_retried(monkeypatch: pytest.MonkeyPatch):
    async def broken(self: Exchange, url: Any, **_: Any) -> Any:
        raise KeyError("surprise \ud800\n")

    monkeypatch.setattr(Exchange, "get", broken)
    config = FetchConfig(retries=3)
    [(_, fetched)] = fetch_all([(0, "http://a.test/")], config, lookup=no_such_host)
    assert (fetched.status, fetched.attempts, fetched.reached) == ("fetch_error", 1, None)
    assert fetched.detail.startswith("KeyError: 'surprise") and fetched.detail.isprintable()
    assert not can_heal("fetch_error")


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(code, "too many open files") for code in (12, 23, 24, 28, 105)),
        MemoryError(),
        RuntimeError("can't start new thread"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("step", ["request", "lookup"])
def test_faults_of_this_machine_are_raised(
    monkeypatch: pytest.MonkeyPatch, error: Exception, step: str
):
    def failing(host: str) -> list[str]:
        raise error

    async def broken(self: Exchange, url: Any, **_: Any) -> Any:
        raise error

    if step == "request":
        monkeypatch.setattr(Exchange, "get", broken)
    with pytest.raises(type(error), match=str(error.args[-1]) if error.args else None):
        one("http://a.test/", lookup=failing)


def test_a_cancelled_request_is_cancelled(monkeypatch: pytest.MonkeyPatch):
    async def hang(self: Exchange, url: Any, **_: Any) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(Exchange, "get", hang)

    async def main() -> None:
        async with Fetcher(CONFIG) as fetcher:
            task = asyncio.create_task(fetcher("http://a.test/"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


def fuzzed_urls(count: int) -> Counter[str]:
    """The statuses of so many hostile URLs, each of which has gone every way of a row."""
    rng = random.Random(15)
    urls = [*URLS, *(mutated_url(rng) for _ in range(count - len(URLS)))]
    row_filter = Filter(FilterConfig(blocked_domains=("example.com",), min_words=0))
    statuses = dict[int, str]()
    for number, fetched in fetch_all(enumerate(urls), CONFIG, lookup=no_such_host):
        assert number not in statuses and fetched.data is None
        statuses[number] = Outcome("k", fetched.status, fetched.detail).status
        (fetched.detail + fetched.url).encode()  # no surrogates
    for url in urls:
        assert host_of(url) == host_of(url).lower()
        row_filter.check(Row("u/0", url, "caption"))
    assert len(statuses) == count == row_filter.counts.total()
    return Counter(statuses.values())


def fuzzed_answers(count: int) -> Counter[str]:
    """The statuses of so many random answers."""
    statuses = dict[int, str]()
    with FuzzedServer() as server:
        urls = ((number, server.url(number)) for number in range(count))
        for number, fetched in fetch_all(urls, CONFIG, lookup=lambda host: ["127.0.0.1"]):
            assert number not in statuses and (fetched.data is None) == (fetched.status != "ok")
            statuses[number] = Outcome("k", fetched.status, fetched.detail).status
            (fetched.detail + fetched.url).encode()
    assert len(statuses) == count
    return Counter(statuses.values())


@pytest.mark.usefixtures("no_packets")
def test_3_000_hostile_urls_end_in_a_status():
    assert fuzzed_urls(3000).keys() == {"scheme", "blocked", "dns"}


def test_300_random_answers_end_in_a_status():
    counts = fuzzed_answers(300)
    assert counts.keys() >= {"ok", "protocol", "connect", "http_404"}, counts


@pytest.mark.slow
@pytest.mark.usefixtures("no_packets")
def test_300_000_hostile_urls_end_in_a_status():
    counts = fuzzed_urls(300_000)
    print(dict(counts.most_common()))
    assert counts.keys() == {"scheme", "blocked", "dns"}


@pytest.mark.slow
def test_12_000_random_answers_end_in_a_status():
    counts = fuzzed_answers(12_000)
    print(dict(counts.most_common()))
    assert counts["fetch_error"] == 0, counts
