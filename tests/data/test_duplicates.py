"""One row per hash in a whole set, whoever reads its units; a Bloom filter that keeps its word."""

from pathlib import Path

import numpy as np
import pytest
from coyo_files import write_coyo

from pinxit.data.duplicates import Bloom, find_duplicates
from pinxit.data.filters import Filter, FilterConfig
from pinxit.data.schema import Row
from pinxit.data.sources import open_source

CONFIG = FilterConfig()


def rows_of(tmp_path: Path) -> list[list[Row]]:
    """Units of 10 rows; every hash comes about three times."""
    hashes = [f"{number:016x}" for number in np.random.default_rng(0).integers(0, 20, 60)]
    captions = ["too short" if number % 7 == 0 else "words enough for all" for number in range(60)]
    path = write_coyo(tmp_path / "a.parquet", 60, image_phash=hashes, text=captions)
    source = open_source("coyo", path=str(path), unit_rows=10)
    return [list(source.read(unit)) for unit in source.units()]


def test_one_row_per_hash_in_any_order_of_units(tmp_path: Path):
    units = rows_of(tmp_path)
    rows = [row for unit in units for row in unit]
    duplicates = find_duplicates(rows, CONFIG, seen=set(), found=set())
    order = np.random.default_rng(1).permutation(len(units))
    kept = {
        number: [row for row, reason in _checked(units[number], duplicates) if reason is None]
        for number in order
    }
    keys = [row.key for number in sorted(kept) for row in kept[number]]
    one = Filter(CONFIG)
    assert keys == [row.key for row in rows if one.check(row) is None]
    hashes = [row.phash for number in kept for row in kept[number]]
    passing = {row.phash for row in rows if row.caption != "too short"}
    assert len(hashes) == len(set(hashes)) and set(hashes) == passing
    alone = [row for unit in units for row, reason in _checked(unit, set()) if reason is None]
    assert len(alone) > len(hashes)  # without the list, units do not know of one another


def _checked(unit: list[Row], duplicates) -> list[tuple[Row, str | None]]:
    filters = Filter(CONFIG, duplicates=duplicates)
    return [(row, filters.check(row)) for row in unit]


def test_bloom_never_forgets_and_seldom_errs():
    bloom = Bloom(2000)
    for number in range(2000):
        bloom.add(f"phash {number}")
    assert all(f"phash {number}" in bloom for number in range(2000))
    errors = sum(f"phash {number}" in bloom for number in range(2000, 7000))
    assert 0 < errors / 5000 < 0.02  # 0.8 % expected


def test_bloom_finds_every_duplicate_and_is_the_same_each_time(tmp_path: Path):
    rows = [row for unit in rows_of(tmp_path) for row in unit]
    exact = find_duplicates(rows, CONFIG, seen=set(), found=set())
    found = [find_duplicates(rows, CONFIG, seen=Bloom(500), found=Bloom(500)) for _ in range(2)]
    assert exact and all(key in found[0] for key in exact)
    assert found[0] == found[1] != Bloom(500)
    found[0].save(tmp_path / "duplicates")
    again = Bloom.load(tmp_path / "duplicates")
    assert again == found[0] and again.hashes == found[0].hashes


def test_wrong_files_and_sizes_are_named(tmp_path: Path):
    for data in (b"", b"something else", b"pinxit bloom 1\n", b"pinxit bloom 1\n\0\0"):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(ValueError, match="no list of duplicates"):
            Bloom.load(tmp_path / "x")
    with pytest.raises(ValueError, match="entries 0"):
        Bloom(0)
