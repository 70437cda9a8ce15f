"""One fetcher for a whole process: several threads fetch their lists with it at the same time.

What hosts have asked for, and which could not be reached, is remembered as long as the fetcher is
open. The limits of `FetchConfig` hold for all lists together, and so do the bounds on the results
that wait: a list whose results are not taken stops new requests for all lists, until they are.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

from pinxit.data.fetch.async_map import LoopThread
from pinxit.data.fetch.fetcher import (
    READY_BYTES,
    WINDOW,
    FetchConfig,
    Fetched,
    Fetcher,
    release,
    weight,
)

if TYPE_CHECKING:
    from pinxit.data.fetch.dns_resolver import Lookup


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
            weigh=weight,
            on_take=release,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancels all requests and ends the thread. Lists that are still being fetched raise
        `async_map.Closed`."""
        if self._thread is not None:
            self._thread.close()

    def fetch(self, items: Iterable[tuple[Any, str]]) -> Generator[tuple[Any, Fetched], None, None]:
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
