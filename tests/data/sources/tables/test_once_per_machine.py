"""A remote table is downloaded once per machine, whatever the processes, threads and ranks."""

from __future__ import annotations

import gzip
import io
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from range_server import RangeServer, serve_ranges
from table_work import ReadUnit

from pinxit.data.sources.catalogue import open_source
from pinxit.data.sources.tables import remote_files, row_groups, text_lines
from pinxit.prepare.engines.local import LocalEngine

ROWS = 6000


def letters(count: int) -> list[str]:
    """Captions that hardly compress."""
    rng = random.Random(count)
    return [f"{number} {rng.randbytes(60).hex()}" for number in range(count)]


def bodies() -> dict[str, bytes]:
    """One table in each form; the row groups of the parquet file are cut into units."""
    captions, urls = letters(ROWS), [f"http://a/{number}" for number in range(ROWS)]
    table = io.BytesIO()
    columns = {"url": urls, "caption": captions, "other": captions[::-1]}
    pq.write_table(pa.table(columns), table, row_group_size=2000, use_dictionary=False)
    rows = [f"{url},{caption}\n" for url, caption in zip(urls, captions, strict=True)]
    text = ("url,caption\n" + "".join(rows)).encode()
    utf_16 = text.decode().encode("utf-16")
    return {
        "rows.parquet": table.getvalue(),
        "rows.csv": text,
        "rows.csv.gz": gzip.compress(text),
        "wide.csv": utf_16,
    }


BODIES = bodies()
NAMES = list(BODIES)


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a cache of its own, and a process that remembers nothing."""
    monkeypatch.setenv("PINXIT_TABLES", str(tmp_path / "tables"))
    forget()
    yield
    forget()


def forget() -> None:
    """Makes this process forget the remote tables, as a new one would."""
    row_groups.release_groups()
    remote_files.version_of.cache_clear()
    text_lines._remote_layout.cache_clear()
    from pinxit.data.sources.tables import open_parquet, text_stream

    text_stream.from_beginning.cache_clear()
    open_parquet._FOOTERS.clear()


def opened(server: RangeServer, name: str):
    form = "parquet" if name.endswith(".parquet") else "csv"
    return open_source(form, path=server.url(name), unit_rows=300)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("workers", [1, 4])
def test_processes_share_one_download(name: str, workers: int):
    with serve_ranges({name: BODIES[name]}) as server:
        source = opened(server, name)
        units = source.units()
        results = list(LocalEngine().map(ReadUnit(source), units, workers=workers))
        assert not [result.reason for result in results if result.failed]
        captions = {result.unit.id: result.value for result in results}
        assert [text for unit in units for text in captions[unit.id]] == letters(ROWS)
        assert server.sent <= 1.1 * server.size, server.sent / server.size
