"""Reads text tables: CSV, TSV and JSONL, plain or gzipped, in units of `unit_rows` records.

A unit stores its byte offset, so that a worker seeks there and reads only its own lines. Listing
the units finds the offsets in one pass over each file. The pass and the reading use the same
parser, so that line breaks inside quoted CSV fields are handled. TSV has no quoting (the format of
the CC12M release), unless its first records show that it has. A record that cannot be read, or has
more or fewer fields than the header, becomes a row with the status ``bad_record``; no row is lost.
Text tables hold no images, so that a column called ``image`` is not read as one.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import posixpath
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from pinxit.config import UsageError
from pinxit.data.row import Row, Unit
from pinxit.data.sources.columns import (
    Columns,
    FieldColumns,
    check_values,
    make_row,
    one_line,
    unread_columns,
    unreadable,
)
from pinxit.data.sources.damage import first_readable, mended
from pinxit.data.sources.file_names import printable
from pinxit.data.sources.files import File
from pinxit.data.sources.tables.remote_files import RemoteVersion, is_remote, version_of
from pinxit.data.sources.tables.text_layout import TableLayout, read_layout
from pinxit.data.sources.tables.text_records import Record, table_records
from pinxit.data.sources.tables.text_stream import from_beginning, lines_from, lines_once
from pinxit.data.sources.tables.url_check import check_urls

FORMATS = ("csv", "tsv", "jsonl")


@dataclass(frozen=True)
class LinesSource:
    """A source that reads text files in one of the `FORMATS`."""

    name: str
    revision: str | None
    files: tuple[File, ...]
    columns: Columns
    format: str
    header: bool = True
    """Whether the first record names the columns. Otherwise they are called 0, 1, 2 ..."""
    unit_rows: int = 10_000
    has_images: bool = False
    unused: tuple[str, ...] = ()
    text_encoding: str | None = None
    """The encoding of lines that are not UTF-8."""
    quotable: bool = True
    """Whether the fields of a TSV may stand in quotes."""

    def units(self, *, limit: int | None = None) -> list[Unit]:
        """Returns all units, or the first `limit`. Reads each file once, as far as needed.

        A file that cannot be read, or not to its end, ends in a unit that fails when it is read.
        """
        units: list[Unit] = []
        for index, file in enumerate(self.files):
            with contextlib.closing(self._parts(file)) as parts:
                for part, (offset, rows) in enumerate(parts):
                    if limit is not None and len(units) >= limit:
                        return units
                    group = f"{index:05d}" if self._is_shared(file, rows) else ""
                    name = f"{index:05d}-{part:03d}"
                    units.append(Unit(name, file.path, part, rows, offset, group))
        return units

    def read(self, unit: Unit) -> Iterator[Row]:
        """Yields the rows of a unit, numbered by their position in the file without the header."""
        first = unit.part * self.unit_rows
        layout = self._layout(unit.path)
        self._match(layout, unit.path)
        matched: dict[tuple[str, ...], FieldColumns] = {}
        file = one_line(printable(posixpath.basename(unit.path)))
        offset = max(unit.offset, layout.start)
        with lines_from(unit.path, offset, text_encoding=self.text_encoding) as stream:
            records = self._records(stream, layout)
            for number, record in enumerate(itertools.islice(records, unit.rows), start=first):
                key, place = f"{unit.id}/{number:08d}", (f"{file}, record", number + 1)
                values = record.problem if record.fields is None else layout.values(record.fields)
                if isinstance(values, str):
                    yield unreadable(key, name=" ".join(map(str, place)), detail=values)
                    continue
                shape = tuple(values) if self.format == "jsonl" else layout.names
                if shape not in matched:
                    matched[shape] = self._columns_of(shape, unit.path)
                yield make_row(
                    key, values, matched[shape], place=place, text_encoding=self.text_encoding
                )
        if unit.rows is None:
            raise mended(unit)

    def check(self) -> LinesSource:
        """Returns this source with the facts of the first file that can be read.

        Raises ValueError if it lacks a required column, or holds something else than its format
        says.
        """

        def look(file: File) -> LinesSource:
            layout, where = self._layout(file.path), f"{self.name}: {file.path}"
            by_field = self._match(layout, file.path)
            check_values(layout.sample, by_field, where=where)
            check_urls(layout.sample, by_field, where=where)
            return replace(self, unused=unread_columns(file.name, layout.names, by_field))

        return first_readable(self.name, self.files, look)

    def count(self, unit: Unit) -> int:
        """Returns the number of rows of a unit, and reads it only if the unit does not state it."""
        return sum(1 for _ in self.read(unit)) if unit.rows is None else unit.rows

    def _is_shared(self, file: File, rows: int | None) -> bool:
        """Returns whether a machine must download the whole file for any of its units."""
        return (
            rows is not None
            and is_remote(file.path)
            and from_beginning(file.path, self.text_encoding)
        )

    def _parts(self, file: File) -> Generator[tuple[int, int | None], None, None]:
        """Yields (byte offset, number of records) of each unit of a file.

        The last number is None if the file cannot be read from there to its end.
        """
        start, rows = 0, 0
        try:
            layout = self._layout(file.path)
            self._match(layout, file.path)
            with lines_once(file.path, text_encoding=self.text_encoding) as stream:
                start = stream.seek(layout.start)
                for record in self._records(stream, layout):
                    rows += 1
                    if rows == self.unit_rows:
                        yield start, rows
                        start, rows = record.after, 0
        except UsageError:
            yield start, None
            return
        if rows:
            yield start, rows

    def _layout(self, path: str) -> TableLayout:
        read = read_layout
        if is_remote(path):
            read = partial(_remote_layout, version_of(path))
        return read(
            path,
            self.format,
            header=self.header,
            quotable=self.quotable,
            text_encoding=self.text_encoding,
        )

    def _records(self, stream: io.IOBase, layout: TableLayout) -> Iterator[Record]:
        return table_records(
            stream, self.format, quoted=layout.quoted, text_encoding=self.text_encoding
        )

    def _match(self, layout: TableLayout, path: str) -> FieldColumns:
        """Returns the columns of a file by field. Raises UsageError if one is missing."""
        if self.format == "jsonl" and not layout.sample:
            return {}
        return self.columns.match(layout.names, where=f"{self.name}: {path}", binary=())

    def _columns_of(self, names: tuple[str, ...], path: str) -> FieldColumns:
        """Returns the columns of one record by field; JSON keys may differ from line to line."""
        columns = self.columns.optional() if self.format == "jsonl" else self.columns
        return columns.match(names, where=path, binary=())


@lru_cache(maxsize=64)
def _remote_layout(version: RemoteVersion, path: str, format: str, **settings: Any) -> TableLayout:
    """Returns the layout of a remote table, which a process reads once."""
    return read_layout(path, format, **settings)
