"""Reads parquet tables of captions with URLs or with encoded images.

A unit is a run of whole row groups of one file with at most `unit_rows` rows in total. A row group
with more rows than that is cut into units of about equal size. Units therefore have similar sizes
whatever row groups the writer chose, and reading a unit touches few row groups, and only the needed
columns of those. When a row group of a remote file is cut into several units, the machine downloads
it once for all of them.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pinxit.config import UsageError
from pinxit.data.row import Row, Unit
from pinxit.data.sources.columns import Columns, FieldColumns, make_row, one_line, unread_columns
from pinxit.data.sources.damage import DamagedFile, first_readable, mended, unreadable_unit
from pinxit.data.sources.file_names import printable
from pinxit.data.sources.files import File, reading
from pinxit.data.sources.tables.open_parquet import damage_named, open_table
from pinxit.data.sources.tables.open_tables import LastOpened
from pinxit.data.sources.tables.parquet_types import holds_bytes, usable_columns
from pinxit.data.sources.tables.remote_files import is_remote
from pinxit.data.sources.tables.row_groups import (
    OpenBatches,
    cut_groups,
    group_rows,
    is_part,
    open_batches,
    overlapping,
    shared_group,
    units_of,
)
from pinxit.data.sources.tables.url_check import check_urls

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetFile

BATCH = {True: 32, False: 1024}
"""The number of rows in memory at a time, with images (True) and without (False)."""
READERS = 8
"""The number of footers read in parallel if the files are remote."""
LOOKED_AT = 100
"""The number of rows that are looked at for URLs when the source is opened."""
LOOK_BUFFER = 2**16
"""The number of bytes that are read at a time for this look."""


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
        if limit is None and any(is_remote(file.path) for file in self.files):
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
        opening = partial(open_batches, unit.path)
        with _named(unit.path), _LAST.taken(unit.path, None, opening) as opened:
            by_field = self._match(opened.table, unit.path)
            if unit.rows is None:
                raise mended(unit)
            start, stop = opened.units(self.unit_rows)[unit.part]
            touched, first = overlapping(opened.groups, start, stop)
            columns = sorted({name for names in by_field.values() for name in names})
            size = BATCH["image" in by_field]
            table = None
            if is_remote(unit.path) and is_part(opened.groups, touched, stop - start):
                table = shared_group(opened, touched[0], columns)
            if table is None:
                batches, at = opened.batches(touched, first, columns, size=size, start=start)
                yield from self._rows(unit, batches, by_field, at=at, rows=(start, stop))
                return
        batches = table.slice(start - first, stop - start).to_batches(max_chunksize=size)
        yield from self._rows(unit, batches, by_field, at=start, rows=(start, stop))

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
                groups = group_rows(table)
        except UsageError:
            return [unreadable_unit(index, self.files[index])]
        parts = units_of(groups, unit_rows=self.unit_rows)
        shared = cut_groups(groups, parts) if is_remote(path) else [None] * len(parts)
        return [
            Unit(
                f"{index:05d}-{part:03d}",
                path,
                part,
                stop - start,
                group="" if group is None else f"{index:05d}-{group:05d}",
            )
            for part, ((start, stop), group) in enumerate(zip(parts, shared, strict=True))
        ]


_LAST: LastOpened[OpenBatches] = LastOpened()


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Names the file in errors of reading it."""
    with reading(path), damage_named(path):
        yield


def match(columns: Columns, table: ParquetFile, *, where: str) -> FieldColumns:
    """Returns the table's columns by field. Raises UsageError if one is missing, or of a type that
    cannot be used."""
    schema = table.schema_arrow
    binary = [field.name for field in schema if holds_bytes(field.type)]
    by_field = columns.match(schema.names, where=where, binary=binary)
    return usable_columns(by_field, schema, where=where)


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
