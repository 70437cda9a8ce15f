"""Hostile rows end in the same status while preparing and while streaming."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fuzzed_web import mutated_url
from hostile_server import LOOPBACK, HostileServer, picture

from pinxit.data.fetch.fetcher import FetchConfig
from pinxit.data.fetch.shared_fetcher import fetch_all
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.images.decode import ImageConfig
from pinxit.data.images.decode_pool import DecodePool
from pinxit.data.row import Row, Unit
from pinxit.prepare.images import prepare_images
from pinxit.prepare.outcome_files import read_outcomes
from pinxit.train.input.image_stream import Stream

FETCH = FetchConfig(allow_networks=(LOOPBACK,), retries=0, timeout=5, concurrency=8, ports=(1,))
FILTERS = FilterConfig(min_side=None, min_words=0, blocked_domains=("blocked.test",))
IMAGES = ImageConfig(size=16, workers=1)


@dataclass(frozen=True)
class Hostile:
    """Rows of hostile URLs, then some good ones."""

    urls: tuple[str, ...]
    name: str = "hostile"
    revision: str | None = "1"
    has_images: bool = False
    unit_rows: None = None
    columns: None = None
    unused: tuple[str, ...] = ()

    def units(self, *, limit: int | None = None) -> list[Unit]:
        return [Unit("0", "hostile")]

    def read(self, unit: Unit) -> Iterator[Row]:
        for number, url in enumerate(self.urls):
            yield Row(f"0/{number:08d}", url, "a caption")

    def count(self, unit: Unit) -> int:
        return len(self.urls)


def test_hostile_rows_end_alike_in_both_ways(tmp_path: Path):
    assert picture(0)
    with HostileServer() as server:
        server.state.targets = ["http://[::1]@/", "//[::1]@/", "http://\u3002/"]
        base = f"http://127.0.0.1:{server.port}"
        rng = random.Random(3)
        fixed = ["http://[::1]@/", "//[::1]@/", "http://a.b\ud800/", "http://x.blocked.test/"]
        fixed += [f"{base}/to/{i}" for i in range(3)]
        odd = [url for url in (mutated_url(rng) for _ in range(500)) if "://" not in url]
        good = [f"{base}/good/{i}?a=1&amp;b=2" for i in range(20)]
        source = Hostile((*fixed, *dict.fromkeys(odd), *good))

        with DecodePool(IMAGES) as pool:
            record = prepare_images(
                source.units()[0],
                source,
                tmp_path / "set",
                filters=FILTERS,
                fetch=partial(fetch_all, config=FETCH),
                decode=pool.map,
            )
        path = tmp_path / "set" / "outcomes" / record.files["outcomes"].name
        prepared = {outcome.key: outcome.status for outcome in read_outcomes(path)}
        assert len(prepared) == len(source.urls) and record.counts["ok"] == 20
        keys = [f"0/{i:08d}" for i in range(7)]
        assert [prepared[key] for key in keys[:4]] == ["scheme"] * 3 + ["filtered_domain"]
        assert [prepared[key] for key in keys[4:]] == ["redirects"] * 3

        log = tmp_path / "outcomes.jsonl"
        stream = Stream(source, filters=FILTERS, fetch=FETCH, images=IMAGES, log=log)
        for image in itertools.islice(stream.row_images(), 20):
            stream.settle([image.attempt])
        streamed = [json.loads(line) for line in log.read_text().splitlines()]
    ends = {line["key"]: line["status"] for line in streamed}  # of one epoch, or two
    assert [line["status"] for line in streamed] == [prepared[line["key"]] for line in streamed]
    assert len(ends) > 100 and Counter(line["status"] for line in streamed)["ok"] == 20
