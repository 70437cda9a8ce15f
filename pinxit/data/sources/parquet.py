"""Parquet tables: of URLs and captions, or with a column of encoded images.

A unit is a run of whole row groups of one file with at most `unit_rows` rows together, or, where a
single row group has more than that, one of equal parts of it. So a unit is about as long whatever
the writer chose, and reading one touches few row groups, and of those the wanted columns alone. A
row group of a remote file that is cut into units is kept by the process that read it, so that its
other units cost no second download.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinxit.config import UsageError
from pinxit.data.row import Row, Unit
from pinxit.data.sources.columns import Columns, Found, make_row
from pinxit.data.sources.files import File, open_file, reading

if TYPE_CHECKING:
    from pyarrow import DataType, RecordBatch, Table
    from pyarrow.parquet import ParquetFile

BATCH = {True: 32, False: 1024}
"""Rows in memory at a time, with images and without."""
READERS = 8
"""Footers read at a time, where the files are remote."""
KEPT_BYTES = 256 * 2**20
"""Size of the row group of a remote file that a process keeps, at most."""


@dataclass(frozen=True)
class ParquetSource:
    """Rows of parquet files."""

    name: str
    revision: str | None
    files: tuple[File, ...]
    columns: Columns
    bears_images: bool = False
    unit_rows: int = 10_000

    def units(self, *, limit: int | None = None) -> list[Unit]:
        """Every unit; reads the footer of each file, of as few files as `limit` needs."""
        units: list[Unit] = []
        if limit is None and any("://" in file.path for file in self.files):
            with ThreadPoolExecutor(READERS) as pool:
                for some in pool.map(self._units_of, range(len(self.files))):
                    units += some
            return units
        for index in range(len(self.files)):
            if limit is not None and len(units) >= limit:
                break
            units += self._units_of(index)
        return units[:limit]

    def read(self, unit: Unit) -> Iterator[Row]:
        """The rows of a unit, numbered as in their file."""
        kept = next((kept for kept in _KEPT if self._is_of(kept, unit)), None)
        if kept is None:
            with open_table(unit.path) as table:
                found = match(self.columns, table, where=f"{self.name}: {unit.path}")
                groups = _group_rows(table)
                start, stop = units_of(groups, unit_rows=self.unit_rows)[unit.part]
                touched, first = _overlapping(groups, start, stop)
                columns = sorted({name for names in found.values() for name in names})
                if not _worth_keeping(table, unit.path, touched, stop - start, columns):
                    batches = table.iter_batches(
                        batch_size=BATCH["image" in found],
                        row_groups=touched,
                        columns=columns,
                        use_threads=False,
                    )
                    yield from _rows(unit, batches, found, at=first, start=start, stop=stop)
                    return
                whole = table.read_row_group(touched[0], columns=columns, use_threads=False)
            kept = _Kept(unit.path, self.revision, self.columns, groups, found, first, whole)
            _KEPT[:] = [kept]
        start, stop = units_of(kept.groups, unit_rows=self.unit_rows)[unit.part]
        part = kept.table.slice(start - kept.first, stop - start)
        batches = part.to_batches(max_chunksize=BATCH["image" in kept.found])
        yield from _rows(unit, batches, kept.found, at=start, start=start, stop=stop)

    def _is_of(self, kept: _Kept, unit: Unit) -> bool:
        """Whether a row group holds the unit."""
        asked = (unit.path, self.revision, self.columns)
        if (kept.path, kept.revision, kept.columns) != asked:
            return False
        start, stop = units_of(kept.groups, unit_rows=self.unit_rows)[unit.part]
        return kept.first <= start and stop <= kept.first + kept.table.num_rows

    def count(self, unit: Unit) -> int:
        """The rows of a unit, read only where it does not state them."""
        return sum(1 for _ in self.read(unit)) if unit.rows is None else unit.rows

    def _units_of(self, index: int) -> list[Unit]:
        path = self.files[index].path
        with open_table(path) as table:
            match(self.columns, table, where=f"{self.name}: {path}")
            parts = units_of(_group_rows(table), unit_rows=self.unit_rows)
        return [
            Unit(f"{index:05d}-{part:03d}", path, part, stop - start)
            for part, (start, stop) in enumerate(parts)
        ]


@dataclass(frozen=True)
class _Kept:
    """A row group in memory."""

    path: str
    revision: str | None
    columns: Columns
    groups: list[int]
    """Rows of each group of the file."""
    found: Found
    first: int
    """Its first row's number."""
    table: Table


_KEPT: list[_Kept] = []
"""The last one that this process read, at most."""


def match(columns: Columns, table: ParquetFile, *, where: str) -> Found:
    """What the columns of a table mean; images are bytes, or the hub's structs of them."""
    schema = table.schema_arrow
    binary = [field.name for field in schema if _holds_bytes(field.type)]
    return columns.match(schema.names, where=where, binary=binary)


@contextlib.contextmanager
def open_table(path: str) -> Iterator[ParquetFile]:
    """A parquet file; ValueError names one that is damaged, OSError one that is out of reach."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    with reading(path), open_file(path) as stream:
        try:
            with ParquetFile(stream, page_checksum_verification=True) as table:
                yield table
        except pyarrow.ArrowException as error:
            raise UsageError(f"{path} is no readable parquet file: {error}") from error


def units_of(group_rows: Sequence[int], *, unit_rows: int) -> list[tuple[int, int]]:
    """The units of a file with these row groups: (first row, row after the last) of each."""
    units: list[tuple[int, int]] = []
    start = at = 0
    for rows in group_rows:
        if at > start and at + rows - start > unit_rows:
            units.append((start, at))
            start = at
        at += rows
        if at - start > unit_rows:  # one group alone
            parts = -(-rows // unit_rows)
            cuts = [start + rows * part // parts for part in range(parts + 1)]
            units += list(itertools.pairwise(cuts))
            start = at
    return [*units, (start, at)] if at > start else units


def _holds_bytes(kind: DataType) -> bool:
    """Whether `image_bytes` can find an image in values of this type."""
    from pyarrow import types

    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return any(
        test(kind)
        for test in (
            *(types.is_binary, types.is_large_binary),
            *(types.is_fixed_size_binary, types.is_binary_view),
        )
    )


def _worth_keeping(
    table: ParquetFile, path: str, groups: Sequence[int], rows: int, columns: Sequence[str]
) -> bool:
    """Whether a unit of `rows` rows is a part of one remote row group that is not too large."""
    if "://" not in path or len(groups) != 1:
        return False
    group = table.metadata.row_group(groups[0])
    chunks = [group.column(i) for i in range(group.num_columns)]
    wanted = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns]
    size = sum(chunk.total_uncompressed_size for chunk in wanted)
    return rows < group.num_rows and size <= KEPT_BYTES


def _rows(
    unit: Unit, batches: Iterable[RecordBatch], found: Found, *, at: int, start: int, stop: int
) -> Iterator[Row]:
    """Rows `start` to `stop - 1` of batches that begin with row `at`."""
    for batch in batches:
        low, high = max(start - at, 0), min(stop - at, batch.num_rows)
        records = batch.slice(low, high - low).to_pylist() if low < high else []
        for number, record in enumerate(records, start=at + low):
            yield make_row(f"{unit.id}/{number:08d}", record, found)
        at += batch.num_rows
        if at >= stop:
            break


def _group_rows(table: ParquetFile) -> list[int]:
    return [table.metadata.row_group(i).num_rows for i in range(table.metadata.num_row_groups)]


def _overlapping(group_rows: Sequence[int], start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows `start` to `stop`, and the number of their first row."""
    touched, first, at = [], 0, 0
    for group, rows in enumerate(group_rows):
        if at < stop and at + rows > start:
            first = at if not touched else first
            touched.append(group)
        at += rows
    return touched, first
