"""A limit in rows: the least number of units that hold them, whatever a source tells beforehand."""

import dataclasses
import io
from pathlib import Path

import pytest
from prepare_work import ToySource  # pyrefly: ignore
from tar_files import JPEG, sample, write_tar  # pyrefly: ignore

from pinxit.data.sources.catalogue import open_source
from pinxit.data.sources.samples import webdataset as source_archives
from pinxit.prepare.row_limit import units_for

CASES = [
    ([10] * 9, 1, 1),
    ([10] * 9, 10, 1),
    ([10] * 9, 11, 2),
    ([3] * 20, 31, 11),
    ([10], 99, 1),
    ([1, 50, 1, 50], 52, 3),
]


class Silent(ToySource):
    """Units that do not say how many rows they have."""

    def units(self, *, limit=None):
        return [dataclasses.replace(unit, rows=None) for unit in super().units(limit=limit)]


@pytest.mark.parametrize(("sizes", "rows", "count"), CASES)
def test_units_that_tell_their_rows(sizes: list[int], rows: int, count: int):
    assert units_for(ToySource(tuple(sizes)), rows) == count


@pytest.mark.parametrize(("sizes", "rows", "count"), CASES)
def test_units_that_do_not(sizes: list[int], rows: int, count: int):
    assert units_for(Silent(tuple(sizes)), rows) == count


def test_what_is_known_is_not_counted():
    asked = []

    def known(unit):
        asked.append(unit.id)
        return 7

    assert units_for(Silent((1,) * 9), 20, known=known) == 3
    assert asked == ["00000-000", "00001-000", "00002-000"]


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    for number in range(4):
        keys = [f"{number}{i:04d}" for i in range(5)]
        write_tar(tmp_path / f"{number}.tar", [m for key in keys for m in sample(key)])
    return tmp_path


@pytest.mark.parametrize(("rows", "count"), [(1, 1), (5, 1), (6, 2), (15, 3), (99, 4)])
def test_tars_are_counted(tars: Path, rows: int, count: int):
    source = open_source("webdataset", path=str(tars))
    assert units_for(source, rows) == count
    for unit in source.units():
        assert source.count(unit) == len(list(source.read(unit))) == 5


def test_a_tar_is_counted_by_its_headers(tmp_path: Path, monkeypatch):
    large = [("a.jpg", JPEG + bytes(10**6)), ("a.txt", b"a"), ("b.jpg", bytes(10**6))]
    write_tar(tmp_path / "a.tar", large)
    source, read = open_source("webdataset", path=str(tmp_path)), []

    class Counted(io.FileIO):
        def read(self, size=-1):
            data = super().read(size)
            read.append(len(data))
            return data

    monkeypatch.setattr(source_archives, "open_file", Counted)
    assert source.count(source.units()[0]) == 2 and sum(read) < 10_000


def test_a_damaged_tar_has_no_rows_and_the_next_are_counted(tars: Path):
    (tars / "1.tar").write_bytes((tars / "1.tar").read_bytes()[:1500])
    assert units_for(open_source("webdataset", path=str(tars)), 10) == 3
