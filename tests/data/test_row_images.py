"""The way from rows to images that preparing and streaming share, without a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from pinxit.data.fetch.fetcher import Fetched
from pinxit.data.filters.row_filter import Filter, FilterConfig
from pinxit.data.images.decode import Decoded
from pinxit.data.row import Row
from pinxit.data.row_images import reason_to_drop, row_images

IMAGE = np.zeros((2, 2, 3), np.uint8)


class Web:
    """Gives a body for each URL but those with "404"; remembers what was asked and closed."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closed = False

    def __call__(self, items: Iterable[tuple[Any, str]]) -> Iterator[tuple[Any, Fetched]]:
        try:
            for key, url in items:
                self.asked.append(url)
                gone = "404" in url
                yield key, Fetched("http_404", None) if gone else Fetched("ok", url.encode())
        finally:
            self.closed = True


def decode(items: Iterable[tuple[Any, bytes]]) -> Iterator[tuple[Any, Decoded]]:
    for key, data in items:
        corrupt = b"corrupt" in data
        yield key, Decoded("decode_error") if corrupt else Decoded("ok", IMAGE)


def rows(*urls: str | None, **more: Any) -> Iterator[tuple[str, Row]]:
    for number, url in enumerate(urls):
        yield f"0/{number}", Row(f"0/{number}", url, "a caption", **more)


def pipeline(some: Iterable[tuple[str, Row]], web: Web, failures: list[Any], **more: Any) -> Any:
    return row_images(
        some,
        has_images=more.pop("has_images", False),
        fetch=web,
        decode=decode,
        failed=lambda *failure: failures.append(failure),
        **more,
    )


def test_every_row_ends_once():
    web, failures = Web(), []
    some = rows("http://a/1", "http://a/404", "http://a/corrupt", None)
    images = list(pipeline(some, web, failures))
    assert [(key, decoded.status) for key, decoded in images] == [
        ("0/0", "ok"), ("0/2", "decode_error"), ("0/3", "ok"),
    ]  # fmt: skip
    assert failures == [("0/1", "http_404", "")] and web.asked[-1] == ""


def test_rows_are_read_as_they_are_needed_unless_urls_are_shared():
    read: list[str] = []

    def noted() -> Iterator[tuple[str, Row]]:
        for key, row in rows("http://a/1", "http://a/2", "http://a/1"):
            read.append(key)
            yield key, row

    web = Web()
    assert next(pipeline(noted(), web, []))[0] == "0/0" and read == ["0/0"]
    read.clear()
    shared = Web()
    images = pipeline(noted(), shared, [], share_urls=True)
    assert [next(images)[0] for _ in range(2)] == ["0/0", "0/2"]
    assert len(read) == 3 and shared.asked == ["http://a/1"]


def test_closing_ends_the_fetching():
    web = Web()
    images = pipeline(rows("http://a/1", "http://a/2"), web, [])
    next(images)
    assert not web.closed
    images.close()
    assert web.closed and web.asked == ["http://a/1"]


def test_rows_that_bear_images_ask_nobody():
    web = Web()
    some = rows(None, None, image=b"x")
    images = list(pipeline(some, web, [], has_images=True))
    assert len(images) == 2 and not web.asked


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"url": None}, "no_url"),
        ({"caption": " \n"}, "no_caption"),
        ({"url": None, "caption": ""}, "no_url"),
        ({"caption": "cat"}, "filtered_words"),
    ],
)
def test_the_reason_to_drop_a_row(changes: dict[str, Any], reason: str | None):
    row = Row(**{"key": "0/0", "url": "http://a/1", "caption": "three short words"} | changes)
    assert reason_to_drop(row, Filter(FilterConfig(min_words=2))) == reason
