"""One row per URL and hash in a whole set, whoever reads its units and whenever it was killed."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from coyo_files import write_coyo

from pinxit.cli.prepare import prepare_command
from pinxit.config import UsageError
from pinxit.data.filters.duplicate_list import DuplicateList, filters_identity, open_duplicates
from pinxit.data.filters.row_filter import Filter, FilterConfig
from pinxit.data.row import Row, Source
from pinxit.data.sources.catalogue import open_source
from pinxit.prepare import find_duplicates as search
from pinxit.prepare.engines.local import InlineEngine, LocalEngine
from pinxit.prepare.find_duplicates import Incomplete, find_duplicates
from pinxit.prepare.images import ImageStage
from pinxit.train.input.attempt_order import Attempts

CONFIG = FilterConfig(blocked_domains=("bad.test",))
ROWS = 900


def write_set(root: Path) -> Path:
    """Three files; each hash comes about six times, each URL twice, some rows have neither or pass
    no filter."""
    rng = np.random.default_rng(0)
    for number in range(3):
        picks = rng.integers(0, 150, ROWS // 3).tolist()
        hashes = [None if pick % 11 == 0 else f"{pick * 2654435761 % 2**64:016x}" for pick in picks]
        urls = [
            f"http://{'bad' if pick % 17 == 0 else 'good'}.test/{pick}"
            for pick in rng.integers(0, 450, ROWS // 3).tolist()
        ]
        captions = [
            ("too short" if pick % 7 == 0 else " " if pick % 23 == 0 else "words enough for all")
            for pick in rng.integers(0, 1000, ROWS // 3)
        ]
        write_coyo(
            root / f"part-{number}.parquet", ROWS // 3, group=70, image_phash=hashes, url=urls,
            text=captions,
        )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("coyo"))


def source_of(folder: Path, **more) -> Source:
    return open_source("coyo", path=str(folder), **({"unit_rows": 40} | more))


def rows_of(source: Source) -> list[Row]:
    return [row for unit in source.units() for row in source.read(unit)]


def brute_force(source: Source, config: FilterConfig) -> dict[str, str]:
    """Key to status of the duplicates, with everything in memory."""
    plain, found = Filter(config), {}
    left = [r for r in rows_of(source) if r.caption.strip() and plain.alone(r) is None]
    seen: set[str] = set()
    for row in left if config.unique_url else []:
        if row.url in seen:
            found[row.key] = "filtered_url"
        seen.add(row.url or "")
    seen = set()
    for row in left if config.unique_phash else []:
        if row.key not in found and row.phash is not None:
            if row.phash in seen:
                found[row.key] = "filtered_phash"
            seen.add(row.phash)
    return found


def read_all(path: Path, source: Source) -> dict[str, str]:
    listed = DuplicateList(path)
    found = {row.key: listed.get(row.key) for row in rows_of(source)}
    return {key: reason for key, reason in found.items() if reason is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"unique_url": False},
        {"unique_phash": False},
        {"min_words": None, "blocked_domains": ()},
    ],
    ids=lambda changes: ",".join(changes) or "defaults",
)
@pytest.mark.parametrize("partition_rows", [2**22, 60])
def test_the_list_is_what_memory_would_find(
    folder: Path, tmp_path: Path, monkeypatch, changes, partition_rows: int
):
    monkeypatch.setattr(search, "PARTITION_ROWS", partition_rows)
    monkeypatch.setattr(search, "GROUP", 4)
    source, config = source_of(folder), dataclasses.replace(CONFIG, **changes)
    counts = find_duplicates(tmp_path / "list", source, config, InlineEngine())
    wanted = brute_force(source, config)
    assert len(wanted) > 50 and read_all(tmp_path / "list", source) == wanted
    assert sum(counts.values()) == ROWS
    for reason in ("filtered_url", "filtered_phash"):
        assert counts.get(reason, 0) == sum(found == reason for found in wanted.values())
    assert not (tmp_path / "list.work").exists()


def test_engines_and_partitions_make_the_same_bytes(folder: Path, tmp_path: Path, monkeypatch):
    find_duplicates(tmp_path / "one", source_of(folder), CONFIG, InlineEngine())
    monkeypatch.setattr(search, "PARTITION_ROWS", 200)
    find_duplicates(tmp_path / "two", source_of(folder), CONFIG, LocalEngine(), workers=2)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    before = (tmp_path / "one").stat().st_mtime_ns
    again = find_duplicates(tmp_path / "one", source_of(folder), CONFIG, InlineEngine())
    assert (tmp_path / "one").stat().st_mtime_ns == before and sum(again.values()) == ROWS


def kept_keys(source: Source, config: FilterConfig) -> list[str]:
    """What units in any order keep."""
    kept = []
    for number in np.random.default_rng(1).permutation(len(source.units())).tolist():
        filters = Filter(config, duplicates=open_duplicates(source, config))
        unit = source.units()[number]
        kept += [r.key for r in source.read(unit) if r.caption.strip() and not filters.check(r)]
    return sorted(kept)


def test_units_in_any_order_keep_the_first_of_each(folder: Path, tmp_path: Path):
    source = source_of(folder)
    find_duplicates(tmp_path / "list", source, CONFIG, InlineEngine())
    config = dataclasses.replace(CONFIG, duplicates=str(tmp_path / "list"))
    dropped, plain = brute_force(source, CONFIG), Filter(CONFIG)
    wanted = [
        row.key
        for row in rows_of(source)
        if row.caption.strip() and plain.alone(row) is None and row.key not in dropped
    ]
    assert kept_keys(source, config) == sorted(wanted)
    assert len(kept_keys(source, CONFIG)) > len(wanted)  # units do not know of one another
    # streamed training tries exactly these
    attempts, tried = Attempts(source, config), []
    for attempt in attempts:
        if attempts.epoch_attempts is not None or len(tried) == len(wanted):
            break
        tried.append(attempt.row.key)
    assert sorted(tried) == sorted(wanted)


def test_a_list_for_something_else_is_refused(folder: Path, tmp_path: Path):
    source, path = source_of(folder), tmp_path / "list"
    find_duplicates(path, source, CONFIG, InlineEngine(), limit=3)
    config = dataclasses.replace(CONFIG, duplicates=str(path))
    assert open_duplicates(source, config) is not None
    other = dataclasses.replace(config, min_side=300)
    with pytest.raises(UsageError, match=r"filters.min_side \(was 256, is 300\)"):
        open_duplicates(source, other)
    with pytest.raises(UsageError, match=r"source.unit_rows \(was 40, is 50\)"):
        ImageStage(source_of(folder, unit_rows=50), tmp_path / "out", filters=config).identity()
    last = rows_of(source)[-1]
    with pytest.raises(ValueError, match="ends before unit 00002-"):
        DuplicateList(path).get(last.key)
    with pytest.raises(UsageError, match="a list of 3 units, not of"):
        find_duplicates(path, source, CONFIG, InlineEngine())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"not a list of duplicates \(its SHA-256 differs\)"):
        open_duplicates(source, config)
    for content in (b"", b"something else"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="not a list of duplicates"):
            open_duplicates(source, config)
    with pytest.raises(UsageError, match=r"not a list of duplicates .*--find_duplicates FILE"):
        open_duplicates(source, dataclasses.replace(CONFIG, duplicates="nowhere"))


def test_a_dataset_knows_its_list_by_content(folder: Path, tmp_path: Path):
    find_duplicates(tmp_path / "list", source_of(folder), CONFIG, InlineEngine())
    here = dataclasses.replace(CONFIG, duplicates=str(tmp_path / "list"))
    (tmp_path / "moved").write_bytes((tmp_path / "list").read_bytes())
    moved = dataclasses.replace(CONFIG, duplicates=str(tmp_path / "moved"))
    assert filters_identity(here) == filters_identity(moved) != filters_identity(CONFIG)
    assert "duplicates" not in filters_identity(CONFIG)


def test_another_search_in_the_same_place_is_refused(folder: Path, tmp_path: Path, monkeypatch):
    source, path = source_of(folder), tmp_path / "list"

    def broken(self, partition):
        raise OSError("the disk is on holiday")

    with monkeypatch.context() as patch:
        patch.setattr(search.FirstOfHashes, "__call__", broken)
        with pytest.raises(
            Incomplete, match=r"phash 0: OSError: the disk .*; run the same command again"
        ):
            find_duplicates(path, source, CONFIG, InlineEngine())
    with pytest.raises(ValueError, match=r"started with other settings: filters.min_words \(was 3"):
        find_duplicates(path, source, dataclasses.replace(CONFIG, min_words=4), InlineEngine())
    find_duplicates(path, source, CONFIG, InlineEngine())
    assert read_all(path, source) == brute_force(source, CONFIG)


COMMAND = """
import sys, time
from pinxit.prepare import find_duplicates as search
search.GROUP, search.PARTITION_ROWS = 2, 100
commit = search.write_json
def slowly(path, value):
    time.sleep(0.05)
    commit(path, value)
search.write_json = slowly
from pinxit.cli.main import main
sys.exit(main(["prepare", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_to_the_same_bytes(folder: Path, tmp_path: Path):
    """Kills at points that the work has reached, not at times: load moves none of them."""
    path, work = tmp_path / "list", tmp_path / "list.work"
    words = ["coyo", "--dataset_path", folder, "--unit_rows", 40, "--engine", "inline"]
    words += ["--filters.blocked_domains", "bad.test", "--find_duplicates", path]
    command = [sys.executable, "-c", COMMAND, *map(str, words)]

    def done() -> int:
        return len(list(work.glob("*/*.json")))

    most = 0
    for target in (5, 20):  # of 14 groups and two times 16 partitions
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while done() < target and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it was killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert done() >= most and not path.exists()
        most = done()
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "are duplicates" in finished.stderr and "--filters.duplicates" in finished.stderr
    find_duplicates(tmp_path / "whole", source_of(folder), CONFIG, InlineEngine())
    assert path.read_bytes() == (tmp_path / "whole").read_bytes() and not work.exists()


def test_ranks_cannot_search(folder: Path, tmp_path: Path):
    words = ["coyo", "--dataset_path", str(folder), "--find_duplicates", str(tmp_path / "x")]
    with pytest.raises(UsageError, match="engine: 'rank' is not supported here"):
        prepare_command([*words, "--engine", "rank", "--rank", "0", "--world", "2"])
