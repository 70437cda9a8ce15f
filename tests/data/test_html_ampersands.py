"""URLs that were copied out of a page's source are requested as the page meant them."""

from __future__ import annotations

from typing import Any

import pytest

from pinxit.data.fetch.fetcher import Fetched
from pinxit.data.filters.row_filter import Filter, FilterConfig
from pinxit.data.html_ampersands import without_entities
from pinxit.data.images.decode import Decoded
from pinxit.data.row import Row
from pinxit.data.row_images import row_images

MEANT = {
    "http://a.b/i?w=1&amp;h=2": "http://a.b/i?w=1&h=2",
    "http://a.b/i?w=1&amp;amp;h=2&amp;c": "http://a.b/i?w=1&h=2&c",
    "http://a.b/x&amp;y?w=1": "http://a.b/x&y?w=1",
    "http://a.b/x&amp;y.jpg": "http://a.b/x&amp;y.jpg",
    "http://a.b/i?w=1&amp=2": "http://a.b/i?w=1&amp=2",
    "http://a.b/i?a&AMP;b&lt;c&copy=1": "http://a.b/i?a&AMP;b&lt;c&copy=1",
    "http://a.b/i?w=1&h=2": "http://a.b/i?w=1&h=2",
    "": "",
}


@pytest.mark.parametrize("url", MEANT)
def test_only_escaped_ampersands_of_urls_with_a_query_are_undone(url: str):
    assert without_entities(url) == MEANT[url]
    assert without_entities(MEANT[url]) == MEANT[url]


def test_the_url_that_is_fetched_is_undone_and_the_rows_own_stays():
    asked: list[str] = []

    def fetch(items: Any) -> Any:
        for keys, url in items:
            asked.append(url)
            yield keys, Fetched("ok", b"x")

    def decode(items: Any) -> Any:
        yield from ((key, Decoded("ok")) for key, _ in items)

    rows = [Row(f"0/{i}", f"http://a.b/i?w=1&{'amp;' * i}h=2", "caption") for i in range(3)]
    images = row_images(
        ((row.key, row) for row in rows),
        has_images=False,
        fetch=fetch,
        decode=decode,
        failed=lambda *failure: None,
        share_urls=True,
    )
    assert [key for key, _ in images] == ["0/0", "0/1", "0/2"]
    assert asked == ["http://a.b/i?w=1&h=2"] and rows[2].url == "http://a.b/i?w=1&amp;amp;h=2"


@pytest.mark.parametrize("field", ["url", "origin"])
def test_duplicates_are_found_among_the_undone_urls(field: str):
    row_filter = Filter(FilterConfig(min_words=0))
    image = b"x" if field == "origin" else None
    urls = ("http://a.b/i?w=1&amp;h=2", "http://a.b/i?w=1&h=2", "http://a.b/i?w=1&amp;h=3")
    rows = [
        Row(f"0/{i}", **{"url": None, field: url}, caption="c", image=image)
        for i, url in enumerate(urls)
    ]
    assert [row_filter.check(row) for row in rows] == [None, "filtered_url", None]
