"""Tables of text: CSV, TSV and JSONL, plain or gzipped, in runs of `unit_rows` records.

A unit knows where it begins in bytes, so a worker seeks there and reads no line that is not its
own. Finding these places takes one pass over each file when the units are listed; the pass and the
reading go through the same parser, so that a line break inside a quoted CSV field is no surprise.
TSV has no quotes (the form of CC12M's release). A record that cannot be read becomes a row without
a URL, which ends as ``no_url``: nothing is lost. Text holds no images: a column that is called
``image`` is not taken for one.
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
from pinxit.data.sources.columns import Columns, Found, make_row, unreadable
from pinxit.data.sources.files import File, open_file, reading

FORMATS = ("csv", "tsv", "jsonl")
LONGEST_FIELD = 2**24
"""Characters of one CSV field; a longer one makes its record unreadable."""

Record = tuple[int, list[str] | dict[str, Any] | None]
"""Where the next record begins (bytes), and the fields of this one; None: unreadable."""


@dataclass(frozen=True)
class LinesSource:
    """Rows of text files."""

    name: str
    revision: str | None
    files: tuple[File, ...]
    columns: Columns
    format: str
    header: bool = True
    """Whether the first record names the columns; otherwise they are called 0, 1, 2 ..."""
    unit_rows: int = 10_000
    bears_images: bool = False

    def units(self, *, limit: int | None = None) -> list[Unit]:
        """Every unit; passes once over every file, or over as much as `limit` needs."""
        units: list[Unit] = []
        for index, file in enumerate(self.files):
            for part, (offset, rows) in enumerate(self._parts(file)):
                if limit is not None and len(units) >= limit:
                    return units
                units.append(Unit(f"{index:05d}-{part:03d}", file.path, part, rows, offset))
        return units

    def read(self, unit: Unit) -> Iterator[Row]:
        """The rows of a unit, numbered as in their file, without the header."""
        first = unit.part * self.unit_rows
        matched: dict[tuple[str, ...], Found] = {}
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
        """Raises ValueError where the first file lacks a column."""
        path = self.files[0].path
        with open_lines(path) as stream:
            found = records(stream, self.format)
            names = self._names(found, path)
            _, fields = next(found, (0, None)) if self.format == "jsonl" else (0, names)
        if fields:
            self.columns.match(list(fields), where=f"{self.name}: {path}", binary=())

    def count(self, unit: Unit) -> int:
        """The rows of a unit, read only where it does not state them."""
        return sum(1 for _ in self.read(unit)) if unit.rows is None else unit.rows

    def _parts(self, file: File) -> Iterator[tuple[int, int]]:
        """(first byte, records) of each unit of a file."""
        with open_lines(file.path) as stream:
            found = records(stream, self.format)
            start, rows = 0, 0
            if self.header and self.format != "jsonl":
                start, _ = next(found, (0, None))
            for after, _ in found:
                rows += 1
                if rows == self.unit_rows:
                    yield start, rows
                    start, rows = after, 0
            if rows:
                yield start, rows

    def _names(self, found: Iterator[Record], path: str) -> list[str]:
        if self.format == "jsonl":
            return []
        _, fields = next(found, (0, None))
        if not isinstance(fields, list):
            raise UsageError(f"{path} has no readable first line")
        return fields if self.header else [str(i) for i in range(len(fields))]

    def _match(self, names: tuple[str, ...], path: str) -> Found:
        if self.format == "jsonl":  # keys may differ from line to line
            return self.columns.optional().match(names, where=path, binary=())
        return self.columns.match(names, where=f"{self.name}: {path}", binary=())


@contextmanager
def open_lines(path: str) -> Iterator[io.IOBase]:
    """A text file as bytes, unpacked where its name ends in .gz; seeks backwards are for plain."""
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
    """The records from here on; blank lines are none."""
    place = [stream.tell()]
    if format == "csv":
        yield from _csv_records(stream, place)
        return
    for line in _lines(stream, place):
        bare = line.rstrip("\r\n")
        if bare.strip():
            yield place[0], bare.split("\t") if format == "tsv" else _json_object(bare)


def _csv_records(stream: io.IOBase, place: list[int]) -> Iterator[Record]:
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(_lines(stream, place))
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield place[0], None
            continue
        if fields:
            yield place[0], fields


def _lines(stream: io.IOBase, place: list[int]) -> Iterator[str]:
    """Lines as text; `place` holds the bytes up to the end of the last one given."""
    for line in stream:
        start = place[0]
        place[0] += len(line)
        yield line.decode("utf-8-sig" if start == 0 else "utf-8", errors="replace")


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
