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
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from pinxit.config import UsageError
from pinxit.data.row import Row, Unit
from pinxit.data.sources.columns import Columns, FieldColumns, make_row, one_line, unread_columns
from pinxit.data.sources.damage import DamagedFile, first_readable, mended, unreadable_unit
from pinxit.data.sources.file_names import printable
from pinxit.data.sources.files import File, open_file, reading
from pinxit.data.sources.tables.open_tables import LastOpened
from pinxit.data.sources.tables.parquet_types import holds_bytes, usable_columns
from pinxit.data.sources.tables.url_check import check_urls
from pinxit.lfs_pointer import pointer_problem

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Table
    from pyarrow.parquet import ParquetFile

BATCH = {True: 32, False: 1024}
"""The number of rows in memory at a time, with images (True) and without (False)."""
READERS = 8
"""The number of footers read in parallel if the files are remote."""
CACHED_BYTES = 256 * 2**20
"""The largest row group of a remote file that a process caches, in bytes."""
LOOKED_AT = 100
"""The number of rows that are looked at for URLs when the source is opened."""
LOOK_BUFFER = 2**16
"""The number of bytes that are read at a time for this look."""
DAMAGE = ("thrift", "CRC checksum", "Corrupt", "Unexpected end of stream", "decompress")
"""Words of pyarrow's messages about damaged files, which are OSErrors without an error number."""


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
    text_encoding: str | None = None
    """The encoding of texts that are not UTF-8."""

    def units(self, *, limit: int | None = None) -> list[Unit]:
        """Returns all units, or the first `limit`. Reads only as many footers as needed.

        A file that cannot be read, or has other columns, is one unit that fails when it is read.
        """
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
            opening = partial(open_batches, unit.path)
            with _named(unit.path), _LAST.taken(unit.path, None, opening) as opened:
                table, groups = opened.table, opened.groups
                by_field = self._match(table, unit.path)
                if unit.rows is None:
                    raise mended(unit)
                start, stop = opened.units(self.unit_rows)[unit.part]
                touched, first = _overlapping(groups, start, stop)
                columns = sorted({name for names in by_field.values() for name in names})
                if not _worth_caching(table, unit.path, touched, stop - start, columns):
                    size = BATCH["image" in by_field]
                    batches, at = opened.batches(touched, first, columns, size=size, start=start)
                    yield from self._rows(unit, batches, by_field, at=at, rows=(start, stop))
                    return
                whole = table.read_row_group(touched[0], columns=columns, use_threads=False)
            cached = _CachedGroup(
                unit.path, self.revision, self.columns, groups, by_field, first, whole
            )
            _CACHE[:] = [cached]
        start, stop = units_of(cached.groups, unit_rows=self.unit_rows)[unit.part]
        part = cached.table.slice(start - cached.first, stop - start)
        batches = part.to_batches(max_chunksize=BATCH["image" in cached.by_field])
        yield from self._rows(unit, batches, cached.by_field, at=start, rows=(start, stop))

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

    def check(self) -> ParquetSource:
        """Returns this source with the facts of the first file that can be read.

        Raises ValueError if that file lacks a required column, or has no URLs in that of URLs.
        """

        def look(file: File) -> ParquetSource:
            with open_table(file.path, buffer_size=LOOK_BUFFER) as table:
                by_field = match(self.columns, table, where=f"{self.name}: {file.path}")
                unused = unread_columns(file.name, table.schema_arrow.names, by_field)
                if "image" not in by_field:
                    with contextlib.suppress(DamagedFile):  # its unit fails when it is read
                        records = _first_records(table, by_field, file.path)
                        check_urls(records, by_field, where=f"{self.name}: {file.path}")
            return replace(self, has_images="image" in by_field, unused=unused)

        return first_readable(self.name, self.files, look)

    def _match(self, table: ParquetFile, path: str) -> FieldColumns:
        where = f"{self.name}: {path}"
        by_field = match(self.columns, table, where=where)
        if ("image" in by_field) != self.has_images:
            kinds = ("URLs", "images") if self.has_images else ("images", "URLs")
            raise UsageError(f"{where} holds {kinds[0]}, but the first file holds {kinds[1]}")
        return by_field

    def _rows(
        self,
        unit: Unit,
        batches: Iterable[RecordBatch],
        by_field: FieldColumns,
        *,
        at: int,
        rows: tuple[int, int],
    ) -> Iterator[Row]:
        """Yields the rows from the first of `rows` to before the second, of batches that begin at
        row `at`."""
        start, stop = rows
        file = one_line(printable(posixpath.basename(unit.path)))
        for batch in batches:
            low, high = max(start - at, 0), min(stop - at, batch.num_rows)
            records = _records(batch.slice(low, high - low)) if low < high else []
            for number, record in enumerate(records, start=at + low):
                yield make_row(
                    f"{unit.id}/{number:08d}",
                    record,
                    by_field,
                    place=(f"{file}, row", number + 1),
                    text_encoding=self.text_encoding,
                )
            at += batch.num_rows
            if at >= stop:
                break

    def _units_of(self, index: int) -> list[Unit]:
        path = self.files[index].path
        try:
            with open_table(path) as table:
                self._match(table, path)
                parts = units_of(_group_rows(table), unit_rows=self.unit_rows)
        except UsageError:
            return [unreadable_unit(index, self.files[index])]
        return [
            Unit(f"{index:05d}-{part:03d}", path, part, stop - start)
            for part, (start, stop) in enumerate(parts)
        ]


class OpenBatches:
    """An open file, and the batches that are read from it."""

    def __init__(self, table: ParquetFile) -> None:
        self.table = table
        self.groups = _group_rows(table)
        """The number of rows of each row group."""
        self.units = cache(lambda unit_rows: units_of(self.groups, unit_rows=unit_rows))
        """Returns (first row, row after the last) of each unit of at most `unit_rows` rows."""
        self._key: object = None
        self._at = 0
        self._last: RecordBatch | None = None
        self._rest: Iterator[RecordBatch] = iter(())

    def batches(
        self, groups: Sequence[int], first: int, columns: Sequence[str], *, size: int, start: int
    ) -> tuple[Iterator[RecordBatch], int]:
        """Returns batches of row groups that begin at row `first`, and the row at which the first
        batch begins: at most `start`, and as late as the batches before allow."""
        key = (*groups, *columns, size)
        if key != self._key or self._at > start:
            self._key, self._at, self._last = key, first, None
            self._rest = self.table.iter_batches(
                batch_size=size, row_groups=list(groups), columns=list(columns), use_threads=False
            )
        return self._continued(), self._at

    def _continued(self) -> Iterator[RecordBatch]:
        """Yields the batch that was read last, and those after it."""
        if self._last is not None:
            yield self._last
        for batch in self._rest:
            self._at += self._last.num_rows if self._last is not None else 0
            self._last = batch
            yield batch


_LAST: LastOpened[OpenBatches] = LastOpened()


@contextlib.contextmanager
def open_batches(path: str) -> Iterator[OpenBatches]:
    """Opens a parquet file for its batches."""
    with open_table(path) as table:
        yield OpenBatches(table)


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Names the file in errors of reading it."""
    with reading(path), damage_named(path):
        yield


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
    """Returns the table's columns by field. Raises UsageError if one is missing, or of a type that
    cannot be used."""
    schema = table.schema_arrow
    binary = [field.name for field in schema if holds_bytes(field.type)]
    by_field = columns.match(schema.names, where=where, binary=binary)
    return usable_columns(by_field, schema, where=where)


@contextlib.contextmanager
def open_table(path: str, *, buffer_size: int = 0) -> Iterator[ParquetFile]:
    """Opens a parquet file. Raises `DamagedFile` if it is damaged, OSError if it is unreachable.

    With a `buffer_size`, columns are read in pieces of that many bytes.
    """
    from pyarrow.parquet import ParquetFile

    with reading(path), open_file(path) as stream, damage_named(path):
        table = ParquetFile(stream, page_checksum_verification=True, buffer_size=buffer_size)
        with table:
            yield table


@contextlib.contextmanager
def damage_named(path: str) -> Iterator[None]:
    """Converts pyarrow's errors about the content of a file to `DamagedFile`."""
    import pyarrow

    try:
        yield
    except GeneratorExit:  # when Python ends, pyarrow's names may be gone
        raise
    except pyarrow.ArrowException as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if _is_damage(path, error):
            raise _damaged(path, error) from error
        raise


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


def _records(batch: RecordBatch) -> list[dict[str, Any]]:
    """Returns the records of a batch. If any text is not UTF-8, all texts are bytes."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        import pyarrow

        columns = [_texts_as_bytes(column) for column in batch.columns]
        return pyarrow.table(columns, names=batch.schema.names).to_pylist()


def _texts_as_bytes(column: Any) -> Any:
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if types.is_list(kind) or types.is_large_list(kind):
        return column.cast(pyarrow.list_(pyarrow.binary()))
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return column.cast(pyarrow.binary()) if is_text else column


def _first_records(table: ParquetFile, by_field: FieldColumns, path: str) -> list[dict[str, Any]]:
    """Returns the URLs and captions of the first rows of the file at `path`."""
    if not table.metadata.num_rows:
        return []
    columns = sorted({name for field in ("url", "caption") for name in by_field.get(field, ())})
    batches = table.iter_batches(batch_size=LOOKED_AT, columns=columns, use_threads=False)
    with damage_named(path):
        return next((_records(batch) for batch in batches), [])


def _is_damage(path: str, error: OSError) -> bool:
    """Returns whether an OSError is pyarrow's, about the content of the file.

    Errors of the system have a number, and those of clients of remote files other types.
    """
    if type(error) is not OSError or error.errno is not None:
        return False
    return "://" not in path or any(word in str(error) for word in DAMAGE)


def _damaged(path: str, error: Exception) -> DamagedFile:
    if problem := pointer_problem(path):
        return DamagedFile(problem)
    return DamagedFile(f"{path} is not a readable parquet file: {' '.join(str(error).split())}")


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
