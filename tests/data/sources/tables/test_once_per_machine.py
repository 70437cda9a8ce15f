"""A remote table is downloaded once per machine, whatever the processes, threads and ranks."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from range_server import RangeServer, serve_ranges
from table_work import ReadUnit

from pinxit.data.network_fault import is_network_fault
from pinxit.data.sources.catalogue import open_source
from pinxit.data.sources.tables import (
    kept_lines,
    machine_cache,
    open_parquet,
    remote_files,
    row_groups,
    text_lines,
    text_stream,
)
from pinxit.data.sources.tables.machine_cache import CacheFault, Draft, MachineCache
from pinxit.prepare.engines.local import LocalEngine
from pinxit.prepare.engines.ranks import RankEngine

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
    text_stream.from_beginning.cache_clear()
    open_parquet._FOOTERS.clear()


def opened(server: RangeServer, name: str):
    form = "parquet" if name.endswith(".parquet") else "csv"
    return open_source(form, path=server.url(name), unit_rows=300)


PROCESSES = [(name, 2) for name in NAMES] + [
    (name, workers) for name in ("rows.parquet", "rows.csv.gz") for workers in (1, 4, 8)
]


@pytest.mark.parametrize(("name", "workers"), PROCESSES)
def test_processes_share_one_download(name: str, workers: int):
    with serve_ranges({name: BODIES[name]}) as server:
        source = opened(server, name)
        units = source.units()
        results = list(LocalEngine().map(ReadUnit(source), units, workers=workers))
        assert not [result.reason for result in results if result.failed]
        captions = {result.unit.id: result.value for result in results}
        assert [text for unit in units for text in captions[unit.id]] == letters(ROWS)
        assert server.sent <= 1.1 * server.size, server.sent / server.size


@pytest.mark.parametrize("name", NAMES)
def test_threads_share_one_download(name: str):
    with serve_ranges({name: BODIES[name]}) as server:
        source = opened(server, name)
        units = source.units()
        order = random.Random(0).sample(units, len(units))
        with ThreadPoolExecutor(8) as pool:
            captions = dict(zip(order, pool.map(ReadUnit(source), order), strict=True))
        assert [text for unit in units for text in captions[unit]] == letters(ROWS)
        assert server.sent <= 1.1 * server.size, server.sent / server.size


@pytest.mark.parametrize("name", NAMES)
def test_ranks_of_two_machines(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each machine has its own cache, and lists the table for itself."""
    with serve_ranges({name: BODIES[name]}) as server:
        captions = {}
        for rank in range(2):
            monkeypatch.setenv("PINXIT_TABLES", str(tmp_path / f"machine {rank}"))
            forget()
            source = opened(server, name)
            units = source.units()
            for unit in RankEngine(rank, 2).share(units):
                captions[unit.id] = ReadUnit(source)(unit)
        assert [text for unit in units for text in captions[unit.id]] == letters(ROWS)
        ranks = (
            1.5 if name == "rows.parquet" else 2.0
        )  # one of three row groups is cut; lines twice
        assert server.sent <= 1.1 * ranks * server.size, server.sent / server.size


@pytest.mark.parametrize("name", NAMES)
def test_another_machine_reads_units_that_it_has_not_listed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with serve_ranges({name: BODIES[name]}) as server:
        source = opened(server, name)
        units = source.units()
        monkeypatch.setenv("PINXIT_TABLES", str(tmp_path / "other"))
        forget()
        server.forget()
        order = random.Random(1).sample(units, len(units))
        captions = {unit: ReadUnit(source)(unit) for unit in order}
        assert [text for unit in units for text in captions[unit]] == letters(ROWS)
        most = {"rows.csv": 5.0}.get(name, 1.7)  # units of 42 kB are read by pieces of 128 KiB
        assert server.sent <= most * server.size, server.sent / server.size


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_entry_is_made_again(name: str, tmp_path: Path):
    with serve_ranges({name: BODIES[name]}) as server:
        source = opened(server, name)
        units = source.units()
        first = [ReadUnit(source)(unit) for unit in units]
        for damage in (lambda data: data[:-9], lambda data: data[:99] + b"?" + data[100:]):
            entries = list((tmp_path / "tables").glob("*.entry"))
            assert entries
            for path in entries:
                path.write_bytes(damage(path.read_bytes()))
            forget()
            assert [ReadUnit(source)(unit) for unit in units] == first
    assert not list((tmp_path / "tables").glob("*.lock"))
    assert not list((tmp_path / "tables").glob(".*"))


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_table_is_read_again(name: str):
    with serve_ranges({name: BODIES[name]}) as server:
        before = [ReadUnit(opened(server, name))(unit) for unit in opened(server, name).units()]
        server.marks = {"ETag": '"2"'}
        server.files[name] = BODIES[name].replace(b"http://a/", b"http://b/")
        forget()
        source = opened(server, name)
        rows = [row for unit in source.units() for row in source.read(unit)]
        assert [row.caption for row in rows] == [text for unit in before for text in unit]
        if name in ("rows.parquet", "rows.csv"):
            assert rows[0].url == "http://b/0"


def test_parts_of_a_file_without_a_mark_are_valid_for_a_day(tmp_path: Path):
    name = "rows.csv.gz"
    with serve_ranges({name: BODIES[name]}) as server:
        server.marks = {}
        opened(server, name).units()
        assert server.sent <= 1.1 * server.size
        forget()
        opened(server, name).units()
        assert server.sent <= 1.1 * server.size
        for path in (tmp_path / "tables").glob("*.entry"):
            os.utime(path, (time.time(), time.time() - remote_files.UNMARKED_AGE - 60))
        forget()
        opened(server, name).units()
        assert server.sent >= 2 * server.size


@contextmanager
def full(path: Path) -> Iterator[Path]:
    """Writes to a disk that is full when a file is synced."""
    yield Path("/dev/null")
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reason", ["off", "read-only", "no room", "full"])
def test_without_a_cache_everything_is_read_and_the_fault_is_said_once(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
):
    machine_cache._cache_in.cache_clear()
    machine_cache._faults_of.cache_clear()
    if reason == "off":
        monkeypatch.setenv("PINXIT_TABLES", "")
    elif reason == "read-only":
        (tmp_path / "file").write_text("no folder")
        monkeypatch.setenv("PINXIT_TABLES", str(tmp_path / "file"))
    elif reason == "no room":
        monkeypatch.setattr(machine_cache, "SHARE", 0.0)
    else:
        monkeypatch.setattr(machine_cache, "whole", full)
    with serve_ranges({name: BODIES[name]}) as server:
        source = opened(server, name)
        units = source.units()
        captions = [ReadUnit(source)(unit) for unit in units]
        assert [text for unit in captions for text in unit] == letters(ROWS)
    lines = capfd.readouterr().err.count("cannot keep parts of remote tables")
    assert lines == (0 if reason == "off" else 1)


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_a_limit_reads_only_the_beginning(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_stream, "PASS_BUFFER", 2**15)
    monkeypatch.setattr(kept_lines, "COPIED", 2**15)
    monkeypatch.setattr(text_stream, "UNIT_BUFFER", 2**13)
    with serve_ranges({name: BODIES[name]}) as server:
        source = opened(server, name)
        few = source.units(limit=3)
        captions = [text for unit in few for text in ReadUnit(source)(unit)]
        assert captions == letters(ROWS)[:900]
        assert server.sent < 0.5 * server.size
        forget()
        later = source.units(limit=6)[3:]  # their lines begin in the kept beginning
        monkeypatch.setattr(kept_lines.machine_cache(), "gigabytes", 0.0)
        captions = [text for unit in later for text in ReadUnit(source)(unit)]
        assert captions == letters(ROWS)[900:1800]
        assert source.units()[:6] == [*few, *later]


def test_a_server_that_is_away_is_a_fault_of_the_network(monkeypatch: pytest.MonkeyPatch):
    for name in NAMES:
        with serve_ranges({name: BODIES[name]}) as server:
            source = opened(server, name)
            unit = source.units(limit=2)[-1]
            monkeypatch.setenv("PINXIT_TABLES", "")
            forget()
            server.broken = True
            with pytest.raises(OSError, match=name) as error:
                list(source.read(unit))
            assert is_network_fault(error.value)
        forget()
        with pytest.raises(OSError, match=name) as error:
            list(source.read(unit))
        assert is_network_fault(error.value)


def test_the_bound_removes_what_was_used_least_recently_but_nothing_in_use(tmp_path: Path):
    cache = MachineCache(tmp_path / "small", gigabytes=2.5e-6)

    def put(name: str) -> None:
        with Draft(cache, name) as draft:
            draft.write(name.encode() * 1000)
            draft.commit()

    put("a")
    held = cache.open("a")
    put("b")
    put("c")
    assert held is not None and bytes(held) == b"a" * 1000
    assert cache.open("b") is None and cache.open("a") is not None and cache.open("c") is not None
    both = [cache.open("a"), cache.open("c")]
    with pytest.raises(CacheFault, match="do not fit"):
        put("d")
    del held, both
    put("d")
    assert cache.open("d") is not None
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= 2500
    assert {path.suffix for path in cache.folder.iterdir()} == {".entry"}


KILLED = """
import sys, time
from pathlib import Path
from pinxit.data.sources.tables.machine_cache import Draft, MachineCache
cache = MachineCache(Path(sys.argv[1]))
with cache.locked("a"), Draft(cache, "a") as draft:
    draft.write(b"half")
    print("writing", flush=True)
    time.sleep(600)
"""


def test_a_process_that_is_killed_while_it_writes_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "tables"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    cache = MachineCache(folder)
    assert cache.open("a") is None and not machine_cache._removed(folder / "a.lock")
    process.kill()
    process.communicate()
    with cache.locked("a"), Draft(cache, "a") as draft:
        draft.write(b"whole")
        draft.commit()
    content = cache.open("a")
    assert content is not None and bytes(content) == b"whole"
    assert len(list(folder.glob(".a.entry.*.partial"))) == 1
    monkeypatch.setattr(machine_cache, "STALE_SECONDS", -1.0)
    cache.make_room(1)
    assert sorted(path.name for path in folder.iterdir()) == ["a.entry"]


def test_a_lock_that_is_never_released_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache = MachineCache(tmp_path / "tables")
    with cache.locked("a"):
        monkeypatch.setattr(machine_cache, "PATIENCE", 0.05)
        with cache.locked("a"):
            assert (cache.folder / "a.lock").exists()
    assert not list(cache.folder.iterdir())


@pytest.mark.parametrize("group", [7, 40])
def test_images_of_a_remote_table(group: int, tmp_path: Path):
    """Row groups are cut into units (40), or are put together to one (7)."""
    rng = random.Random(0)
    images = [{"bytes": rng.randbytes(500 + number), "path": None} for number in range(100)]
    kinds = pa.array(["a cat", "a dog"] * 50).dictionary_encode()
    table = io.BytesIO()
    columns = {"image": images, "caption": kinds, "other": [rng.randbytes(99) for _ in images]}
    pq.write_table(pa.table(columns), table, row_group_size=group)
    (tmp_path / "a.parquet").write_bytes(table.getvalue())
    local = open_source("parquet", path=str(tmp_path / "a.parquet"), unit_rows=15)
    with serve_ranges({"a.parquet": table.getvalue()}) as server:
        remote = open_source("parquet", path=server.url("a.parquet"), unit_rows=15)
        units = remote.units()
        assert [unit.rows for unit in units] == [unit.rows for unit in local.units()]
        assert [bool(unit.group) for unit in units] == [group == 40 for _ in units]
        rows = [list(remote.read(unit)) for unit in units]
        assert rows == [list(local.read(unit)) for unit in local.units()]
        assert server.sent <= server.size
