"""Reads parquet tables of captions with URLs or with encoded images.

A unit is a run of whole row groups of one file with at most `unit_rows` rows in total. A row group
with more rows than that is cut into units of about equal size. Units therefore have similar sizes
whatever row groups the writer chose, and reading a unit touches few row groups, and only the needed
columns of those. When a row group of a remote file is cut into several units, the process that
read it caches it, so that its other units need no second download.
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
from pinxit.data.sources.columns import Columns, FieldColumns, make_row
from pinxit.data.sources.files import File, open_file, reading

if TYPE_CHECKING:
    from pyarrow import DataType, RecordBatch, Table
    from pyarrow.parquet import ParquetFile

BATCH = {True: 32, False: 1024}
"""The number of rows in memory at a time, with images (True) and without (False)."""
READERS = 8
"""The number of footers read in parallel if the files are remote."""
CACHED_BYTES = 256 * 2**20
"""The largest row group of a remote file that a process caches, in bytes."""


@dataclass(frozen=True)
class ParquetSource:
    """A source that reads parquet files."""

    name: str
    revision: str | None
    files: tuple[File, ...]
    columns: Columns
    has_images: bool = False
    unit_rows: int = 10_000
    unused: tuple[str, ...] = ()

    def units(self, *, limit: int | None = None) -> list[Unit]:
        """Returns all units, or the first `limit`. Reads only as many footers as needed."""
        units: list[Unit] = []
        if limit is None and any("://" in file.path for file in self.files):
            with ThreadPoolExecutor(READERS) as pool:
                for file_units in pool.map(self._units_of, range(len(self.files))):
                    units += file_units
            return units
        for index in range(len(self.files)):
            if limit is not None and len(units) >= limit:
                break
            units += self._units_of(index)
        return units[:limit]

    def read(self, unit: Unit) -> Iterator[Row]:
        """Yields the rows of a unit, numbered by their position in the file."""
        cached = next((group for group in _CACHE if self._is_of(group, unit)), None)
        if cached is None:
            with open_table(unit.path) as table:
                by_field = match(self.columns, table, where=f"{self.name}: {unit.path}")
                groups = _group_rows(table)
                start, stop = units_of(groups, unit_rows=self.unit_rows)[unit.part]
                touched, first = _overlapping(groups, start, stop)
                columns = sorted({name for names in by_field.values() for name in names})
                if not _worth_caching(table, unit.path, touched, stop - start, columns):
                    batches = table.iter_batches(
                        batch_size=BATCH["image" in by_field],
                        row_groups=touched,
                        columns=columns,
                        use_threads=False,
                    )
                    yield from _rows(unit, batches, by_field, at=first, start=start, stop=stop)
                    return
                whole = table.read_row_group(touched[0], columns=columns, use_threads=False)
            cached = _CachedGroup(
                unit.path, self.revision, self.columns, groups, by_field, first, whole
            )
            _CACHE[:] = [cached]
        start, stop = units_of(cached.groups, unit_rows=self.unit_rows)[unit.part]
        part = cached.table.slice(start - cached.first, stop - start)
        batches = part.to_batches(max_chunksize=BATCH["image" in cached.by_field])
        yield from _rows(unit, batches, cached.by_field, at=start, start=start, stop=stop)

    def _is_of(self, cached: _CachedGroup, unit: Unit) -> bool:
        """Returns whether a cached row group holds the unit."""
        expected = (unit.path, self.revision, self.columns)
        if (cached.path, cached.revision, cached.columns) != expected:
            return False
        start, stop = units_of(cached.groups, unit_rows=self.unit_rows)[unit.part]
        return cached.first <= start and stop <= cached.first + cached.table.num_rows

    def count(self, unit: Unit) -> int:
        """Returns the number of rows of a unit, and reads it only if the unit does not state it."""
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
class _CachedGroup:
    """A row group in memory."""

    path: str
    revision: str | None
    columns: Columns
    groups: list[int]
    """The number of rows of each row group of the file."""
    by_field: FieldColumns
    first: int
    """The position of its first row in the file."""
    table: Table


_CACHE: list[_CachedGroup] = []
"""The last row group that this process cached: a list of at most one."""


def match(columns: Columns, table: ParquetFile, *, where: str) -> FieldColumns:
    """Returns the table's columns by field. Images are bytes, or the hub's structs with bytes."""
    schema = table.schema_arrow
    binary = [field.name for field in schema if _holds_bytes(field.type)]
    return columns.match(schema.names, where=where, binary=binary)


@contextlib.contextmanager
def open_table(path: str) -> Iterator[ParquetFile]:
    """Opens a parquet file. Raises ValueError if it is damaged, OSError if it is unreachable."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    with reading(path), open_file(path) as stream:
        try:
            with ParquetFile(stream, page_checksum_verification=True) as table:
                yield table
        except pyarrow.ArrowException as error:
            raise UsageError(f"{path} is not a readable parquet file: {error}") from error


def units_of(group_rows: Sequence[int], *, unit_rows: int) -> list[tuple[int, int]]:
    """Returns (first row, row after the last) of each unit of a file with these row groups."""
    units: list[tuple[int, int]] = []
    start = at = 0
    for rows in group_rows:
        if at > start and at + rows - start > unit_rows:
            units.append((start, at))
            start = at
        at += rows
        if at - start > unit_rows:  # a single row group is larger than a unit
            parts = -(-rows // unit_rows)
            cuts = [start + rows * part // parts for part in range(parts + 1)]
            units += list(itertools.pairwise(cuts))
            start = at
    return [*units, (start, at)] if at > start else units


def _holds_bytes(kind: DataType) -> bool:
    """Returns whether `image_bytes` can find an image in values of this type."""
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


def _worth_caching(
    table: ParquetFile, path: str, groups: Sequence[int], rows: int, columns: Sequence[str]
) -> bool:
    """Returns whether a unit of `rows` rows is part of one remote row group that fits the cache."""
    if "://" not in path or len(groups) != 1:
        return False
    group = table.metadata.row_group(groups[0])
    chunks = [group.column(i) for i in range(group.num_columns)]
    needed = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns]
    size = sum(chunk.total_uncompressed_size for chunk in needed)
    return rows < group.num_rows and size <= CACHED_BYTES


def _rows(
    unit: Unit,
    batches: Iterable[RecordBatch],
    by_field: FieldColumns,
    *,
    at: int,
    start: int,
    stop: int,
) -> Iterator[Row]:
    """Yields rows `start` to `stop - 1` of batches that begin at row `at`."""
    for batch in batches:
        low, high = max(start - at, 0), min(stop - at, batch.num_rows)
        records = batch.slice(low, high - low).to_pylist() if low < high else []
        for number, record in enumerate(records, start=at + low):
            yield make_row(f"{unit.id}/{number:08d}", record, by_field)
        at += batch.num_rows
        if at >= stop:
            break


def _group_rows(table: ParquetFile) -> list[int]:
    return [table.metadata.row_group(i).num_rows for i in range(table.metadata.num_row_groups)]


def _overlapping(group_rows: Sequence[int], start: int, stop: int) -> tuple[list[int], int]:
    """Returns the row groups that hold rows `start` to `stop - 1`, and the position of their first
    row."""
    touched, first, at = [], 0, 0
    for group, rows in enumerate(group_rows):
        if at < stop and at + rows > start:
            first = at if not touched else first
            touched.append(group)
        at += rows
    return touched, first
