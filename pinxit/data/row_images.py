"""Turns rows into decoded images, for preparing and for streaming alike.

::

    rows that pass the filters -> fetch, unless the row holds its image -> decode -> images
                                    |
                                    v
                               failures

`reason_to_drop` applies the filters, and `row_images` fetches and decodes. Preparing writes the
images into shards in the order of the rows. Streaming trains on them in the order of their arrival.
Both count every row exactly once: it is dropped, its fetch fails, or it has the decoder's status.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, TypeVar

from pinxit.data.fetch.fetcher import Fetched
from pinxit.data.filters.row_filter import Filter
from pinxit.data.html_ampersands import without_entities
from pinxit.data.images.decode import Decoded
from pinxit.data.row import Row, unusable

K = TypeVar("K")
FetchFn = Callable[[Iterable[tuple[Any, str]]], Iterator[tuple[Any, Fetched]]]
"""Yields (key, result) for each (key, URL), in any order, as `fetch_all` does."""
DecodeFn = Callable[[Iterable[tuple[Any, bytes]]], Iterator[tuple[Any, Decoded]]]
"""Yields (key, result) for each (key, encoded image), as `DecodePool.map` does. ``str(key)`` seeds
the random crop."""


def reason_to_drop(row: Row, row_filter: Filter) -> str | None:
    """Returns the status of a row that is dropped before fetching, or None if it is kept."""
    return unusable(row) or row_filter.check(row)


def row_images(
    rows: Iterable[tuple[K, Row]],
    *,
    has_images: bool,
    fetch: FetchFn,
    decode: DecodeFn,
    failed: Callable[[K, str, str], None],
    share_urls: bool = False,
) -> Generator[tuple[K, Decoded], None, None]:
    """Yields (key, decoded image) for each (key, row) whose image could be fetched.

    ``str(key)`` must be the row's key. `failed` receives the key, status and detail of every other
    row. `rows` is consumed lazily. With `share_urls` it is read to its end first, and a URL that
    several rows share is fetched once. Closing the generator ends fetching and decoding.
    """
    bodies = _embedded(rows) if has_images else _fetched(rows, fetch, failed, share_urls)
    with closing(bodies):
        images = decode(bodies)
        try:
            yield from images
        finally:
            _close(images)


def _embedded(rows: Iterable[tuple[K, Row]]) -> Generator[tuple[K, bytes], None, None]:
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
    """Yields the encoded images that the rows' URLs lead to, without ``&amp;`` in their queries."""
    links = ((key, without_entities(row.url or "")) for key, row in rows)
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
    """Groups the keys by URL, in the order in which the URLs first occur."""
    keys: dict[str, list[K]] = {}
    for key, url in links:
        keys.setdefault(url, []).append(key)
    return [(tuple(same), url) for url, same in keys.items()]


def _close(results: Iterator[Any]) -> None:
    """Closes a generator; other iterators have nothing to close."""
    if isinstance(results, Generator):
        results.close()
