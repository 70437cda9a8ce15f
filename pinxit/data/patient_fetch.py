"""Fetches URLs, and does not take an outage for dead links.

A failure to reach a host (`fetcher.UNREACHED`) says little while no other host answers. So it is
withheld until one does. After many such failures in a row the connection is tested, with the hosts
that answered last. If the network is down, the fetch waits for it, and then requests all URLs under
way again, in their order. Hosts that never answered are not waited for: half of the web is dead.

A host that had answered and is gone, while others answer, gets another chance. Streaming, whose
rows never end, repeats its URLs once, at once. Preparing keeps them until all other rows are done,
and requests them when the host is back, for which it waits a limited time.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from pinxit.data.fetch.fetcher import UNREACHED, FetchConfig, Fetched
from pinxit.data.reachability import Reachability
from pinxit.data.row_images import FetchFn
from pinxit.data.url_host import host_of
from pinxit.progress import counted

LOST_ROWS = 8
"""Number of consecutive attempts at hosts that had answered before, of which none answers now,
after which the connection is tested."""
DOUBTFUL_ROWS = 64
"""The same number for attempts at any hosts."""
DOUBTFUL_SECONDS = 5.0
"""Seconds of waiting without an answer after which two failures are enough for a test."""
TESTED = 4
"""Number of hosts that answered last, and of hosts that failed last, whose URLs test the
connection."""
TEST_SECONDS = 10.0
"""Longest time, in seconds, for one test of the connection."""
SETTLE_SECONDS = 1.0
"""Seconds after which an answer says that an earlier failure was not due to the network. When the
network breaks down, answers under way still arrive for a moment."""
LAST_PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0)
"""Seconds of waiting before each test whether a host that had answered is back."""

WaitFn = Callable[[str, Callable[[], bool]], None]
"""Takes a clause that says what cannot be reached, and a test whether that is over. Returns once it
is over, and raises if it is not within a limit."""


class _Unreachable(Exception):
    """Ends a round of fetching because no host can be reached."""


@dataclass(eq=False, slots=True)
class _Attempt:
    """One URL to fetch."""

    serial: int
    key: Any
    url: str


def probing(config: FetchConfig) -> FetchConfig:
    """Returns the settings for a test of the connection: one short attempt for each URL."""
    return replace(config, retries=0, timeout=min(config.timeout, TEST_SECONDS))


def pauses_within(seconds: float) -> tuple[float, ...]:
    """Returns as many of the `LAST_PAUSES` as take `seconds` together, but at least the first."""
    return tuple(
        p for p, total in zip(LAST_PAUSES, accumulate(LAST_PAUSES), strict=True) if total <= seconds
    )


def _at_once(is_over: Callable[[], bool]) -> bool:
    """Runs a test of the connection in this thread."""
    return is_over()


def _nothing() -> None:
    """Does nothing, since each round of `fetch_all` begins without failures."""


class PatientFetch:
    """Fetches URLs like a `FetchFn`, for one caller at a time."""

    def __init__(
        self,
        fetch: FetchFn,
        *,
        probe: FetchFn,
        wait: WaitFn,
        reachability: Reachability | None = None,
        last_pauses: Sequence[float] | None = None,
        tested: Callable[[Callable[[], bool]], bool] = _at_once,
        forget: Callable[[], object] = _nothing,
        sleep: Callable[[float], Any] = time.sleep,
    ) -> None:
        """Fetches with `fetch`, and tests the connection with `probe`.

        `wait` waits for the network. `reachability` may know hosts from an earlier fetch. With
        `last_pauses`, the fetch ends, and URLs of hosts that had answered are requested again at
        its end, after these pauses in seconds. `tested` runs a test of the connection.
        """
        self.reachability = reachability or Reachability()
        self.reachability.restart()
        self.reached = False
        """Whether this fetch has reached any host."""
        self.doubtful: deque[tuple[float, _Attempt, Fetched]] = deque()
        """The failures that may be due to the network, with their times."""
        self._fetch, self._probe, self._wait, self._tested = fetch, probe, wait, tested
        self._last_pauses, self._forget, self._sleep = last_pauses, forget, sleep
        self.settle_seconds = SETTLE_SECONDS
        """Seconds before a failure is believed because of an answer, or a URL is repeated."""
        self._again: deque[tuple[float, _Attempt]] = deque()
        """Attempts to make before the remaining ones, from these times on."""
        self._late: list[tuple[_Attempt, Fetched]] = []
        """Failed attempts that are made again at the end."""
        self._under_way: dict[int, _Attempt] = {}
        """Attempts whose result is not certain, by serial number."""
        self._repeated: set[int] = set()
        """Serial numbers of attempts that are made a second time."""
        self._waited = 0.0
        """Seconds of waiting for results since a host answered."""
        self._serial = 0

    def __call__(
        self, items: Iterable[tuple[Any, str]]
    ) -> Generator[tuple[Any, Fetched], None, None]:
        """Yields (key, result) for each (key, URL), in any order. Raises what `wait` raises."""
        yield from self._rounds(self._numbered(items))
        if self._last_pauses is not None:
            yield from self._last_tries(self._last_pauses)

    def _numbered(self, items: Iterable[tuple[Any, str]]) -> Iterator[_Attempt]:
        for key, url in items:
            self._serial += 1
            yield _Attempt(self._serial, key, url)

    def _rounds(self, attempts: Iterator[_Attempt]) -> Iterator[tuple[Any, Fetched]]:
        """Fetches in rounds, of which an outage ends each but the last."""
        while True:
            try:
                yield from self._certain(self._to_try(attempts))
                yield from self._at_end()
            except _Unreachable:
                unreached = self.reachability
                self._await_network(
                    f"none of {counted(len(unreached.hosts), 'host')} could be reached in "
                    f"{unreached.attempts} consecutive attempts"
                )
            else:
                if not self._again:
                    return

    def _to_try(self, attempts: Iterator[_Attempt]) -> Iterator[tuple[_Attempt, str]]:
        """Yields the attempts that are made again, then new ones."""
        while True:
            is_due = self._again and self._again[0][0] <= time.monotonic()
            attempt = None if is_due else next(attempts, None)
            if attempt is None:
                if not self._again:
                    return
                attempt = self._again.popleft()[1]
            self._under_way[attempt.serial] = attempt
            yield attempt, attempt.url

    def _certain(self, links: Iterator[tuple[_Attempt, str]]) -> Iterator[tuple[Any, Fetched]]:
        """Fetches URLs, and withholds failures until a host answers."""
        results = self._fetch(links)
        try:
            start = time.monotonic()
            for attempt, fetched in results:
                self._waited += time.monotonic() - start
                yield from self._judged(attempt, fetched)
                start = time.monotonic()
        finally:
            if isinstance(results, Generator):
                results.close()

    def _judged(self, attempt: _Attempt, fetched: Fetched) -> Iterator[tuple[Any, Fetched]]:
        """Yields what is certain once this result is known.

        A response that broke off proves a connection, but not that the network still works.
        """
        self.reached = self.reached or bool(fetched.reached)
        if fetched.status not in UNREACHED:
            yield self._end(attempt, fetched)
            if fetched.reached:
                self.reachability.answered(attempt.url)
                yield from self._released(until=time.monotonic() - self.settle_seconds)
            return
        self.doubtful.append((time.monotonic(), attempt, fetched))
        if fetched.reached:
            self.reachability.remember(attempt.url)
        else:
            self.reachability.failed(attempt.url)
            yield from self._examined()

    def _end(self, attempt: _Attempt, fetched: Fetched) -> tuple[Any, Fetched]:
        """Notes that a result is certain, and returns it."""
        self._under_way.pop(attempt.serial, None)
        self._repeated.discard(attempt.serial)
        return attempt.key, fetched

    def _examined(self) -> Iterator[tuple[Any, Fetched]]:
        """Tests the connection after many failures in a row."""
        unreached = self.reachability
        lost, many = unreached.lost >= LOST_ROWS, unreached.attempts >= DOUBTFUL_ROWS
        if not lost and not many and (self._waited < DOUBTFUL_SECONDS or unreached.attempts < 2):
            return
        if self._last_pauses is not None and not unreached.ever:
            return  # fast failures may come before the first answer; the end of the fetch decides
        yield from self._examined_now(again=lost)

    def _examined_now(self, *, again: bool) -> Iterator[tuple[Any, Fetched]]:
        """Yields the failures that are certain. Raises `_Unreachable` if no host answers."""
        if not self._tested(self._is_network_up):
            raise _Unreachable
        self.reached = True
        yield from self._released(again=again)
        self.reachability.restart()

    def _at_end(self) -> Iterator[tuple[Any, Fetched]]:
        """Decides on the failures since the last answer, when all URLs were requested."""
        if self.doubtful and self.reachability.ever:
            yield from self._examined_now(again=self.reachability.lost >= LOST_ROWS)
            return
        for _, attempt, fetched in self.doubtful:
            yield self._end(attempt, fetched)
        self.doubtful.clear()

    def _released(
        self, *, again: bool = False, until: float = math.inf
    ) -> Iterator[tuple[Any, Fetched]]:
        """Yields the failures before `until` that were withheld, since the network works. It may
        have been down for a moment, so those of hosts that had answered, or all with `again`, are
        requested once more."""
        self._waited = 0.0
        while self.doubtful and self.doubtful[0][0] <= until:
            _, attempt, fetched = self.doubtful.popleft()
            repeat = again or self.reachability.has_answered(attempt.url)
            if not repeat or attempt.serial in self._repeated:
                yield self._end(attempt, fetched)
            elif self._last_pauses is None:
                self._repeated.add(attempt.serial)
                self._again.append((time.monotonic() + self.settle_seconds, attempt))
            else:
                self._under_way.pop(attempt.serial, None)
                self._late.append((attempt, fetched))

    def _is_network_up(self) -> bool:
        """Returns whether any of the hosts answers that answered last or failed last."""
        doubtful = [attempt for _, attempt, _ in self.doubtful]
        failed = {host_of(a.url): a.url for a in (*(a for a, _ in self._late), *doubtful)}
        urls = [*self.reachability.latest(TESTED), *list(failed.values())[-TESTED:]]
        return any(self._answering(urls))

    def _answering(self, urls: Iterable[str]) -> Iterator[str]:
        """Yields those of these URLs whose host responds."""
        results = self._probe([(url, url) for url in urls])
        try:
            yield from (url for url, fetched in results if fetched.reached)
        finally:
            if isinstance(results, Generator):
                results.close()

    def _await_network(self, problem: str) -> None:
        """Waits until a host can be reached, and arranges that all attempts under way are made
        again, in their order."""
        attempt, fetched = self.doubtful[-1][1:] if self.doubtful else self._late[-1]
        last = f"{fetched.url or host_of(attempt.url)}: {fetched.status}: {fetched.detail}"
        self._wait(f"{problem} (the last: {last})", self._is_network_up)
        self._forget()
        self.reached = True
        self.reachability.restart()
        self._waited = 0.0
        self.doubtful.clear()
        self._repeated.clear()
        self._again = deque((0.0, self._under_way[serial]) for serial in sorted(self._under_way))

    # --- the end of a fetch that ends ---------------------------------------------------------

    def _last_tries(self, pauses: Sequence[float]) -> Iterator[tuple[Any, Fetched]]:
        """Requests the late URLs again when their host is back. Those of hosts that do not come
        back end as they failed, and the host is not waited for again."""
        for pause in pauses:
            if not self._late:
                return
            self._sleep(pause)
            ready = self._take_ready()
            if ready:
                self._forget()
            self._repeated.update(attempt.serial for attempt in ready)
            yield from self._rounds(iter(ready))
        for attempt, fetched in self._late:
            self.reachability.forget(attempt.url)
            yield self._end(attempt, fetched)
        self._late = []

    def _take_ready(self) -> list[_Attempt]:
        """Returns the late attempts whose host answers again, or never has. If no host at all
        answers, waits for the network first."""
        known = self.reachability
        urls = {
            host_of(a.url): known.answered_url(a.url)
            for a, _ in self._late
            if known.has_answered(a.url)
        }
        back = {host_of(url) for url in self._answering(urls.values())}
        if urls and not back and not self._tested(self._is_network_up):
            self._await_network(
                f"none of {counted(len(urls), 'host')} that had answered answers now"
            )
            back = {host_of(url) for url in self._answering(urls.values())}
        gone = urls.keys() - back
        ready = [a for a, _ in self._late if host_of(a.url) not in gone]
        self._late = [(a, fetched) for a, fetched in self._late if host_of(a.url) in gone]
        return ready
