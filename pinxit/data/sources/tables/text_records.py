"""Cuts lines of CSV, TSV and JSONL into records, with the offset at which each one ends.

A record that is not valid is yielded with its problem, and reading goes on at the line after its
first one. A quote that is never closed therefore costs its own line, not the rest of the file.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

LONGEST_FIELD = 2**24
"""The most characters of one CSV field. A longer field makes its record unreadable."""
LONGEST_RECORD = 1000
"""The most lines of one CSV record. A longer record counts as a quote that is not closed."""
KINDS = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
"""Names of the types of JSON values; all others are numbers."""


class Record(NamedTuple):
    """One record of a text table."""

    after: int
    """The byte offset of the next record."""
    fields: list[Any] | dict[str, Any] | None
    """The values; None if the record is not valid. Texts that cannot be decoded are bytes."""
    problem: str = ""
    """One line that says why the record is not valid."""


TextLine = tuple[str, int, bool]
"""A line with its line break, the byte offset of the next line, and whether all bytes of it could
be decoded. If not, they are lone surrogates."""


class _Unclosed(ValueError):
    """Raised when a quoted field goes on for too long."""


def table_records(
    stream: io.IOBase, format: str, *, quoted: bool = False, text_encoding: str | None = None
) -> Iterator[Record]:
    """Yields the records from the current position of the stream on, and skips blank lines.

    `format` is "csv", "tsv" or "jsonl". `quoted` says that the fields of a TSV may stand in quotes.
    Lines that are not UTF-8 are decoded with `text_encoding`, if it is set and fits.
    """
    lines = _lines(stream, text_encoding)
    if format == "csv" or quoted:
        yield from _quoted_records(lines, "," if format == "csv" else "\t")
        return
    for line, after, is_decoded in lines:
        bare = line.rstrip("\r\n")
        if not bare.strip():
            continue
        if format == "tsv":
            fields: list[Any] = bare.split("\t")
            yield Record(after, fields if is_decoded else _as_bytes(fields))
        else:
            yield _json_record(bare, after, is_decoded)


def _lines(stream: io.IOBase, text_encoding: str | None) -> Iterator[TextLine]:
    """Yields decoded lines, without a byte order mark and without NUL characters."""
    after = stream.tell()
    for data in stream:
        start, after = after, after + len(data)
        if start == 0:
            data = data.removeprefix(codecs.BOM_UTF8)
        try:
            text, is_decoded = data.decode(), True
        except UnicodeDecodeError:
            text, is_decoded = _otherwise(data, text_encoding)
        yield text.replace("\0", "") if "\0" in text else text, after, is_decoded


def _otherwise(data: bytes, text_encoding: str | None) -> tuple[str, bool]:
    """Returns a line that is not UTF-8 as text, and whether the declared encoding fits it."""
    if text_encoding is not None:
        try:
            return data.decode(text_encoding), True
        except UnicodeDecodeError:
            pass
    return data.decode("utf-8", "surrogateescape"), False


class _Feed:
    """Passes lines to the CSV reader one by one, and takes back those of an invalid record."""

    def __init__(self, lines: Iterator[TextLine]) -> None:
        self._lines = lines
        self._again: deque[TextLine] = deque()
        self.taken: list[TextLine] = []
        """The lines of the current record."""

    def __iter__(self) -> Iterator[str]:
        """Returns this object."""
        return self

    def __next__(self) -> str:
        """Returns the next line. Raises `_Unclosed` if the current record is too long."""
        line = self._again.popleft() if self._again else next(self._lines, None)
        if line is None:
            if self.taken:
                raise _Unclosed("a quote is not closed")
            raise StopIteration
        self.taken.append(line)
        if len(self.taken) > LONGEST_RECORD:
            raise _Unclosed(f"a quote is not closed within {LONGEST_RECORD:,} lines")
        return line[0]

    def reject(self) -> TextLine:
        """Gives back all lines of the current record except the first, which is returned."""
        first, *others = self.taken
        self._again.extendleft(reversed(others))
        return first


def _quoted_records(lines: Iterator[TextLine], delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(LONGEST_FIELD)
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.taken.clear()
        try:
            fields: list[Any] = next(reader)
        except StopIteration:
            return
        except (csv.Error, _Unclosed) as error:
            yield Record(feed.reject()[1], None, f"not valid CSV: {error}")
            continue
        if not fields:
            continue
        if not all([is_decoded for _, _, is_decoded in feed.taken]):
            fields = _as_bytes(fields)
        yield Record(feed.taken[-1][1], fields)


def _json_record(text: str, after: int, is_decoded: bool) -> Record:
    try:
        value = json.loads(text)
    except RecursionError:
        return Record(after, None, "not valid JSON: nested too deeply")
    except ValueError as error:
        return Record(after, None, f"not valid JSON: {str(error).splitlines()[0]}")
    if not isinstance(value, dict):
        kind = KINDS.get(type(value), "a number")
        return Record(after, None, f"{kind}, not a JSON object")
    return Record(after, value if is_decoded else _values_as_bytes(value))


def _values_as_bytes(value: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _as_bytes(inner) if isinstance(inner, list) else _as_bytes([inner])[0]
        for name, inner in value.items()
    }


def _as_bytes(fields: list[Any]) -> list[Any]:
    """Returns the fields, those that could not be decoded as the bytes of the file."""
    return [_undecoded(field) if isinstance(field, str) else field for field in fields]


def _undecoded(field: str) -> str | bytes:
    if not any("\udc80" <= character <= "\udcff" for character in field):
        return field
    try:
        return field.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # JSON can also hold half a character as an escape
        return field.encode("utf-8", "replace") + b"\xff"
