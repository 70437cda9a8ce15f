"""One fetcher for a whole process: several threads fetch their lists with it at the same time.

What hosts have asked for, and which could not be reached, is remembered as long as the fetcher is
open. The limits of `FetchConfig` hold for all lists together, and so do the bounds on the results
that wait: a list whose results are not taken stops new requests for all lists, until they are.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from pinxit.data.fetch.async_map import LoopThread
from pinxit.data.fetch.fetcher import FetchConfig, Fetched, Fetcher

if TYPE_CHECKING:
    from pinxit.data.fetch.body_memory import BodyShare
    from pinxit.data.fetch.dns_resolver import Lookup

K = TypeVar("K")

READY_BYTES = 64 * 2**20
"""Bytes of finished bodies that may wait for their callers; above this, no new request begins.
Requests under way continue, within the memory that `http_request` reserves for bodies."""
WINDOW = 8
"""Number of URLs of a list under way, waiting for their host or finished, per
`FetchConfig.concurrency`."""


class SharedFetcher:
    """Fetches lists of URLs for any number of threads; a context manager."""

    def __init__(self, config: FetchConfig, *, lookup: Lookup | None = None) -> None:
        """Takes the settings, and a function that resolves names in place of the system's."""
        self.config = config
        self._fetcher = Fetcher(config, lookup=lookup)
        self._thread: LoopThread[str, Any] | None = None

    def __enter__(self) -> SharedFetcher:
        self._thread = LoopThread(
            lambda: self._fetcher,
            limits=(self.config.concurrency, READY_BYTES),
            weigh=_weight,
            on_take=_release,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancels all requests and ends the thread. Lists that are still being fetched raise
        `async_map.Closed`."""
        if self._thread is not None:
            self._thread.close()

    def fetch(self, items: Iterable[tuple[K, str]]) -> Generator[tuple[K, Fetched], None, None]:
        """Yields (key, result) for each (key, URL), in the order in which they finish.

        At most `WINDOW` times `config.concurrency` URLs of a list are read ahead of the results
        that its caller has received. Closing the generator cancels the requests of this list only.
        A fault of this machine is raised in the threads of all lists.
        """
        if self._thread is None:
            raise RuntimeError("the SharedFetcher is not open; use it in a with statement")
        results = self._thread.map(items, window=WINDOW * self.config.concurrency)
        try:
            for key, (fetched, _) in results:
                yield key, fetched
        finally:
            results.close()

    def forget_failures(self) -> None:
        """Forgets which hosts could not be reached, so that the next requests try them again."""
        if self._thread is not None:
            self._thread.run(self._fetcher.forget_failures)


def fetch_all(
    items: Iterable[tuple[K, str]],
    config: FetchConfig,
    *,
    lookup: Lookup | None = None,
) -> Generator[tuple[K, Fetched], None, None]:
    """Yields (key, result) for each (key, URL) with a fetcher of its own, as `SharedFetcher.fetch`
    does.

    Fetching runs in its own thread. While finished results wait for the caller, no new request
    begins; long bodies under way stop growing, and their time limit pauses. A host is asked for
    `config.per_host` URLs at a time, so a list that is not sorted by host is faster.
    """
    with SharedFetcher(config, lookup=lookup) as fetcher:
        yield from fetcher.fetch(items)


def _weight(result: tuple[Fetched, BodyShare | None]) -> int:
    """Returns the number of bytes of a result of `Fetcher`."""
    return len(result[0].data or b"")


def _release(result: tuple[Fetched, BodyShare | None]) -> None:
    """Releases the memory that the body of a result of `Fetcher` occupies."""
    if result[1] is not None:
        result[1].release()
