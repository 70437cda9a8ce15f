"""Reads text tables: CSV, TSV and JSONL, plain or gzipped, in units of `unit_rows` records.

A unit stores its byte offset, so that a worker seeks there and reads only its own lines. Listing
the units finds the offsets in one pass over each file. The pass and the reading use the same
parser, so that line breaks inside quoted CSV fields are handled. TSV has no quoting (the format of
the CC12M release). A record that cannot be read becomes a row without a URL, whose status is
``no_url``; no row is lost. Text tables hold no images, so that a column called ``image`` is not
read as one.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pinxit.config import UsageError
from pinxit.data.row import Row, Unit
from pinxit.data.sources.columns import Columns, FieldColumns, make_row, unreadable
from pinxit.data.sources.files import File, open_file, reading

FORMATS = ("csv", "tsv", "jsonl")
LONGEST_FIELD = 2**24
"""The most characters of one CSV field. A longer field makes its record unreadable."""

Record = tuple[int, list[str] | dict[str, Any] | None]
"""The byte offset of the next record, and the fields of this one (None if unreadable)."""


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

    def units(self, *, limit: int | None = None) -> list[Unit]:
        """Returns all units, or the first `limit`. Reads each file once, as far as needed."""
        units: list[Unit] = []
        for index, file in enumerate(self.files):
            for part, (offset, rows) in enumerate(self._parts(file)):
                if limit is not None and len(units) >= limit:
                    return units
                units.append(Unit(f"{index:05d}-{part:03d}", file.path, part, rows, offset))
        return units

    def read(self, unit: Unit) -> Iterator[Row]:
        """Yields the rows of a unit, numbered by their position in the file without the header."""
        first = unit.part * self.unit_rows
        matched: dict[tuple[str, ...], FieldColumns] = {}
        with open_lines(unit.path) as stream:
            names = self._names(records(stream, self.format), unit.path)
        with open_lines(unit.path) as stream:
            stream.seek(unit.offset)
            for number, (_, fields) in enumerate(records(stream, self.format)):
                if number == self.unit_rows:
                    return
                key = f"{unit.id}/{first + number:08d}"
                if fields is None:
                    yield unreadable(key)
                    continue
                is_object = isinstance(fields, dict)
                values = fields if is_object else dict(zip(names, fields, strict=False))
                shape = tuple(values) if is_object else tuple(names)
                if shape not in matched:
                    matched[shape] = self._match(shape, unit.path)
                yield make_row(key, values, matched[shape])

    def check(self) -> None:
        """Raises ValueError if the first file lacks a required column."""
        path = self.files[0].path
        with open_lines(path) as stream:
            lines = records(stream, self.format)
            names = self._names(lines, path)
            _, fields = next(lines, (0, None)) if self.format == "jsonl" else (0, names)
        if fields:
            self.columns.match(list(fields), where=f"{self.name}: {path}", binary=())

    def count(self, unit: Unit) -> int:
        """Returns the number of rows of a unit, and reads it only if the unit does not state it."""
        return sum(1 for _ in self.read(unit)) if unit.rows is None else unit.rows

    def _parts(self, file: File) -> Iterator[tuple[int, int]]:
        """Yields (byte offset, number of records) of each unit of a file."""
        with open_lines(file.path) as stream:
            lines = records(stream, self.format)
            start, rows = 0, 0
            if self.header and self.format != "jsonl":
                start, _ = next(lines, (0, None))
            for after, _ in lines:
                rows += 1
                if rows == self.unit_rows:
                    yield start, rows
                    start, rows = after, 0
            if rows:
                yield start, rows

    def _names(self, lines: Iterator[Record], path: str) -> list[str]:
        if self.format == "jsonl":
            return []
        _, fields = next(lines, (0, None))
        if not isinstance(fields, list):
            raise UsageError(f"{path} has no readable first line")
        return fields if self.header else [str(i) for i in range(len(fields))]

    def _match(self, names: tuple[str, ...], path: str) -> FieldColumns:
        if self.format == "jsonl":  # keys may differ from line to line
            return self.columns.optional().match(names, where=path, binary=())
        return self.columns.match(names, where=f"{self.name}: {path}", binary=())


@contextmanager
def open_lines(path: str) -> Iterator[io.IOBase]:
    """Opens a text file as bytes, decompressed if its name ends in .gz.

    Only plain files are meant to be read backwards.
    """
    with reading(path), open_file(path) as stream:
        if not path.lower().endswith(".gz"):
            yield stream
            return
        try:
            with gzip.open(stream, "rb") as unpacked:  # type: ignore[arg-type]
                yield unpacked
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UsageError(f"{path} is damaged: {error}") from error


def records(stream: io.IOBase, format: str) -> Iterator[Record]:
    """Yields the records from the current position of the stream on, and skips blank lines."""
    offset = [stream.tell()]
    if format == "csv":
        yield from _csv_records(stream, offset)
        return
    for line in _lines(stream, offset):
        bare = line.rstrip("\r\n")
        if bare.strip():
            yield offset[0], bare.split("\t") if format == "tsv" else _json_object(bare)


def _csv_records(stream: io.IOBase, offset: list[int]) -> Iterator[Record]:
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(_lines(stream, offset))
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield offset[0], None
            continue
        if fields:
            yield offset[0], fields


def _lines(stream: io.IOBase, offset: list[int]) -> Iterator[str]:
    """Yields lines as text, and sets `offset[0]` to the byte offset of the end of the last one."""
    for line in stream:
        start = offset[0]
        offset[0] += len(line)
        yield line.decode("utf-8-sig" if start == 0 else "utf-8", errors="replace")


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
