"""What the units that one process has open share of the network: a fetcher, and the outages.

The fetcher is opened once and keeps what hosts have asked for. Hosts that answered one unit are
known to the others. If the network goes away, one unit waits for it, and the others wait for that.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from functools import partial
from typing import Any

from pinxit.data.fetch.async_map import Closed
from pinxit.data.fetch.fetcher import FetchConfig, Fetched
from pinxit.data.fetch.shared_fetcher import SharedFetcher, fetch_all
from pinxit.data.patient_fetch import PatientFetch, pauses_within, probing
from pinxit.data.reachability import REMEMBERED, Reachability
from pinxit.prepare.network_wait import NetworkWait, SharedWait


class ProcessNetwork:
    """The network of a process. It is opened with the first request."""

    def __init__(self, config: FetchConfig, *, outage_seconds: float) -> None:
        """Waits for the network, or for hosts that had answered, for at most `outage_seconds`."""
        self.config = config
        self.known = Reachability()
        """The hosts that have answered this process."""
        self._pauses = pauses_within(outage_seconds)
        self._wait = SharedWait(NetworkWait(outage_seconds, sleep=self._rest))
        self._opening = threading.Lock()
        self._fetcher: SharedFetcher | None = None
        self._closing = threading.Event()

    def learn(self, known: Reachability) -> None:
        """Adds the hosts that answered other processes."""
        for url in reversed(known.latest(REMEMBERED)):
            self.known.remember(url)

    def fetch(self, items: Iterable[tuple[Any, str]]) -> Generator[tuple[Any, Fetched], None, None]:
        """Yields (key, result) for each (key, URL), like `SharedFetcher.fetch`."""
        with self._opening:
            if self._closing.is_set():
                raise Closed("the network was closed")
            if self._fetcher is None:
                self._fetcher = SharedFetcher(self.config).__enter__()
        yield from self._fetcher.fetch(items)

    def patient(self) -> PatientFetch:
        """Returns the fetch of one unit. A test of the connection has a fetcher of its own, so that
        it does not wait behind the requests of the units."""
        return PatientFetch(
            self.fetch,
            probe=partial(fetch_all, config=probing(self.config)),
            wait=self._wait,
            tested=self._wait.tested,
            reachability=Reachability(known=self.known),
            last_pauses=self._pauses,
            forget=self._forget,
            sleep=self._rest,
        )

    def close(self) -> None:
        """Ends all requests and waits: the units that are still open raise `async_map.Closed`."""
        with self._opening:
            self._closing.set()
        if self._fetcher is not None:
            self._fetcher.close()

    def _forget(self) -> None:
        if self._fetcher is not None:
            self._fetcher.forget_failures()

    def _rest(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise Closed("the network was closed")
