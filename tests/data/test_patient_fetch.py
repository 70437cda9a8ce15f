"""Failures are not believed before a host answers, and dead hosts are never waited for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from pinxit.data.fetch.fetcher import Fetched
from pinxit.data.patient_fetch import LAST_PAUSES, PatientFetch, pauses_within
from pinxit.data.reachability import Reachability


class Gone(Exception):
    """The network stays away."""


class Web:
    """Hosts that are away for some time. Each request takes a second; so do pauses."""

    def __init__(self, away: dict[str, tuple[float, float]], status: str = "connect") -> None:
        self.away, self.status = away, status
        """When each host is away, by its name, "*" for all."""
        self.now = 0.0
        self.asked: Counter[str] = Counter()
        self.waits: list[str] = []
        self.limit = 1e9

    def fetch(self, items: Iterable[tuple[Any, str]]) -> Iterator[tuple[Any, Fetched]]:
        for key, url in items:
            self.now += 1
            self.asked[url] += 1
            yield key, self.answer(url)

    def probe(self, items: Iterable[tuple[Any, str]]) -> Iterator[tuple[Any, Fetched]]:
        for key, url in items:
            yield key, self.answer(url)

    def answer(self, url: str) -> Fetched:
        for host in (url.split("/")[2], "*"):
            start, end = self.away.get(host, (1e9, 1e9))
            if start <= self.now < end:
                return Fetched(self.status, None, "away", url, reached=False)
        if "broken" in url:
            return Fetched("connect", None, "broke off", url)
        return Fetched("ok", url.encode(), url=url)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, problem: str, is_over: Callable[[], bool]) -> None:
        self.waits.append(problem)
        start = self.now
        while not is_over():
            if self.now - start > self.limit:
                raise Gone(problem)
            self.now += 5


def patient(web: Web, **more: Any) -> PatientFetch:
    settings = {"last_pauses": LAST_PAUSES, "sleep": web.sleep} | more
    return PatientFetch(web.fetch, probe=web.probe, wait=web.wait, **settings)


def fetched(web: Web, urls: list[str], **more: Any) -> dict[int, str]:
    """The status of each URL, which must come exactly once."""
    results = list(patient(web, **more)(enumerate(urls)))
    assert sorted(key for key, _ in results) == list(range(len(urls)))
    return {key: result.status for key, result in results}


def hosts(count: int, rows: int) -> list[str]:
    return [f"http://h{i % count}.test/{i}" for i in range(rows)]


def test_without_an_outage_each_url_is_asked_for_once():
    web = Web({})
    assert set(fetched(web, hosts(10, 200)).values()) == {"ok"}
    assert set(web.asked.values()) == {1} and web.now == 200 and web.waits == []


@pytest.mark.parametrize("status", ["connect", "dns", "timeout"])
def test_an_outage_of_all_hosts_is_waited_for(status: str):
    web = Web({"*": (50, 400)}, status)
    assert set(fetched(web, hosts(10, 200)).values()) == {"ok"}
    [problem] = web.waits
    assert problem.startswith("none of 8 hosts could be reached in 8 consecutive attempts (the")
    assert problem.endswith(f": {status}: away)") and web.now < 700


def test_a_host_that_had_answered_is_waited_for_at_the_end():
    web = Web({"h3.test": (50, 215)})
    assert set(fetched(web, hosts(10, 200)).values()) == {"ok"}
    assert web.waits == [] and 215 < web.now < 260
    asked = {count for url, count in web.asked.items() if "h3.test" not in url}
    assert asked == {1}


def test_the_only_host_is_the_network():
    web = Web({"h0.test": (50, 900)})
    assert set(fetched(web, hosts(1, 100)).values()) == {"ok"} and len(web.waits) == 1
    gone = Web({"h0.test": (50, 1e8)})
    gone.limit = 60
    with pytest.raises(Gone, match="none of 1 host could be reached"):
        fetched(gone, hosts(1, 100))


def test_a_host_that_stays_away_is_waited_for_once():
    web, known = Web({"h3.test": (50, 1e8)}), Reachability()
    statuses = fetched(web, hosts(10, 200), reachability=known)
    assert Counter(statuses.values()) == {"ok": 185, "connect": 15}
    assert web.waits == [] and web.now == 200 + sum(LAST_PAUSES)
    start = web.now
    assert fetched(web, hosts(10, 200), reachability=known)[3] == "connect"
    assert web.now == start + 200  # it is dead now


def test_hosts_that_never_answered_are_not_waited_for():
    web = Web({f"h{i}.test": (0, 1e9) for i in range(0, 300, 2)})
    statuses = fetched(web, hosts(300, 600))
    assert Counter(statuses.values()) == {"ok": 300, "connect": 300}
    assert web.now == 600 and set(web.asked.values()) == {1} and web.waits == []


def test_without_any_answer_nothing_is_waited_for():
    web = Web({"*": (0, 1e9)})
    one = patient(web)
    assert {result.status for _, result in one(enumerate(hosts(50, 200)))} == {"connect"}
    assert not one.reached and len(one.reachability.hosts) == 50
    assert web.waits == [] and web.now == 200


def test_hosts_known_from_before_tell_an_outage_from_dead_links():
    known = Reachability()
    known.answered("http://other.test/1")
    web = Web({"*": (0, 300)})
    assert set(fetched(web, hosts(50, 200), reachability=known).values()) == {"ok"}
    assert len(web.waits) == 1


def test_a_response_that_broke_off_proves_a_connection_and_is_tried_twice():
    web = Web({})
    urls = [*hosts(3, 9), "http://h1.test/broken"]
    one = patient(web)
    statuses = {key: result.status for key, result in one(enumerate(urls))}
    assert statuses[9] == "connect" and web.asked[urls[9]] == 2 and one.reached and web.now == 11


def test_a_row_that_asks_nobody_proves_nothing():
    def refuse(items: Any) -> Any:
        for key, url in items:
            kind = url.split("/")[2]
            yield key, Fetched(kind, None, reached=False if kind == "connect" else None)

    one = PatientFetch(refuse, probe=refuse, wait=Web({}).wait, last_pauses=())
    kinds = ("scheme", "connect", "blocked", "tls", "fetch_error", "connect")
    results = dict(one((i, f"http://{kind}/") for i, kind in enumerate(kinds)))
    assert tuple(results[i].status for i in range(6)) == kinds
    assert not one.reached and one.reachability.attempts == 2


def test_the_last_pauses_are_bounded():
    assert pauses_within(0) == (0.0,) and pauses_within(7) == (0.0, 1.0, 2.0, 4.0)
    assert pauses_within(1e9) == LAST_PAUSES and sum(LAST_PAUSES) == 45
