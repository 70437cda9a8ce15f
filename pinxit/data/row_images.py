"""From rows to decoded images: the way that preparing and streaming share.

::

    rows that pass the filters -> fetch, unless the row holds its image -> decode -> images
                                    |
                                    v
                               failures

`reason_to_drop` asks the filters, `row_images` does the rest. Preparing writes the images into
shards, in the order of the rows; a stream trains on them as they come. Both count every row once:
a row is dropped, fails to be fetched, or comes out with its decoder's status.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, TypeVar

from pinxit.data.fetch.fetcher import Fetched
from pinxit.data.filters.row_filter import Filter
from pinxit.data.images.decode import Decoded
from pinxit.data.row import Row, unusable

K = TypeVar("K")
FetchFn = Callable[[Iterable[tuple[Any, str]]], Iterator[tuple[Any, Fetched]]]
"""(key, result) for each (key, URL), in any order: `fetch_all` with its settings."""
DecodeFn = Callable[[Iterable[tuple[Any, bytes]]], Iterator[tuple[Any, Decoded]]]
"""(key, result) for each (key, encoded image); ``str(key)`` seeds its crop: `DecodePool.map`."""


def reason_to_drop(row: Row, row_filter: Filter) -> str | None:
    """Returns the status of a row whose image is not wanted, or None if it is."""
    return unusable(row) or row_filter.check(row)


def row_images(
    rows: Iterable[tuple[K, Row]],
    *,
    bears_images: bool,
    fetch: FetchFn,
    decode: DecodeFn,
    failed: Callable[[K, str, str], None],
    share_urls: bool = False,
) -> Generator[tuple[K, Decoded], None, None]:
    """Yields (key, decoder's result) for each (key, row) whose image arrives.

    ``str(key)`` must be the row's key. `failed` receives the key, status and detail of every other
    row. `rows` are read as they are needed; with `share_urls` all are read first, and a URL that
    several rows link to is fetched once. Closing the generator ends fetching and decoding.
    """
    bodies = _borne(rows) if bears_images else _fetched(rows, fetch, failed, share_urls)
    with closing(bodies):
        images = decode(bodies)
        try:
            yield from images
        finally:
            _close(images)


def _borne(rows: Iterable[tuple[K, Row]]) -> Generator[tuple[K, bytes], None, None]:
    """Yields the encoded images that the rows hold."""
    for key, row in rows:
        assert row.image is not None
        yield key, row.image


def _fetched(
    rows: Iterable[tuple[K, Row]],
    fetch: FetchFn,
    failed: Callable[[K, str, str], None],
    share_urls: bool,
) -> Generator[tuple[K, bytes], None, None]:
    """Yields the encoded images that the rows link to."""
    links = ((key, row.url or "") for key, row in rows)
    requests = _by_url(links) if share_urls else (((key,), url) for key, url in links)
    results = fetch(requests)
    try:
        for keys, fetched in results:
            for key in keys:
                if fetched.data is None:
                    failed(key, fetched.status, fetched.detail)
                else:
                    yield key, fetched.data
    finally:
        _close(results)


def _by_url(links: Iterable[tuple[K, str]]) -> list[tuple[tuple[K, ...], str]]:
    """Returns the keys of each URL, in the order in which the URLs first occur."""
    keys: dict[str, list[K]] = {}
    for key, url in links:
        keys.setdefault(url, []).append(key)
    return [(tuple(same), url) for url, same in keys.items()]


def _close(results: Iterator[Any]) -> None:
    """Closes a generator; other iterators have nothing to close."""
    if isinstance(results, Generator):
        results.close()
