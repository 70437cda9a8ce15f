"""Looks at the beginning of a text table, and refuses one that is not what its format says.

A table in another format would be read to its end as rubbish: a JSON array as JSONL, semicolons as
CSV, a table without a header. The message shows the first record and says what to do.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pinxit.config import UsageError
from pinxit.data.sources.damage import DamagedFile
from pinxit.data.sources.tables.text_records import Record, table_records
from pinxit.data.sources.tables.text_stream import open_lines
from pinxit.data.sources.tables.url_check import is_url, shown_record, suggested_columns
from pinxit.text_decoding import valid_unicode

SAMPLE = 100
"""The number of lines that are looked at, besides the header."""
CUT = 20
"""The most lines of a record that the end of the sample may cut."""
MISFITS = 0.1
"""The largest share of fields in quotes that may be malformed in a TSV with quotes."""
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


@dataclass(frozen=True)
class TableLayout:
    """The form of one text table."""

    names: tuple[str, ...]
    """The names of the columns; of JSONL, all keys of the first records."""
    start: int
    """The byte offset of the first record after the header."""
    quoted: bool
    """Whether the fields of a TSV may stand in quotes."""
    has_header: bool
    sample: tuple[dict[str, Any], ...]
    """The values of the first valid records, by column."""

    def values(self, fields: list[Any] | dict[str, Any]) -> Mapping[str, Any] | str:
        """Returns a record's values by column, or the problem if it does not fit the header.

        Empty fields behind the last column are ignored, since many programs write them.
        """
        if isinstance(fields, dict):
            return fields
        count, expected = len(fields), len(self.names)
        if count > expected and not any(field.strip() for field in fields[expected:]):
            count = expected
        if count != expected:
            header = "the header" if self.has_header else "the first record"
            return f"{len(fields)} field{'' if len(fields) == 1 else 's'}, {header} has {expected}"
        return dict(zip(self.names, fields, strict=False))


def read_layout(
    path: str, format: str, *, header: bool, quotable: bool, text_encoding: str | None
) -> TableLayout:
    """Reads the beginning of a table. Raises `DamagedFile` or UsageError if it is another format.

    `header` says whether the first record names the columns; otherwise they are called 0, 1, 2 ...
    `quotable` allows a TSV to have its fields in quotes.
    """
    with open_lines(path, text_encoding=text_encoding) as stream:
        lines = list(itertools.islice(stream, SAMPLE + 1))
    start, is_cut = b"".join(lines), len(lines) > SAMPLE
    if b"\n" not in start and b"\r" in start.strip():
        raise UsageError(f"{path}: its lines end in carriage returns alone; use line feeds instead")

    def first_records(quoted: bool) -> list[Record]:
        beginning = io.BytesIO(start)
        return list(table_records(beginning, format, quoted=quoted, text_encoding=text_encoding))

    records = first_records(quoted=False)
    if format == "jsonl":
        return _json_layout(path, start, records)
    in_quotes = first_records(quoted=True) if format == "tsv" and quotable else []
    quoted = bool(in_quotes) and _is_quoted(records, in_quotes, is_cut=is_cut)
    if quoted:
        records = in_quotes
    if not records or not isinstance(records[0].fields, list):
        problem = f": {records[0].problem}" if records else ""
        raise DamagedFile(f"{path} has no readable first line{problem}")
    first, rest = records[0].fields, records[1:] if header else records
    names = _names(first) if header else tuple(str(i) for i in range(len(first)))
    if header:
        _check_header(path, format, names, first)
    layout = TableLayout(names, records[0].after if header else 0, quoted, header, ())
    read = [(record, _values(layout, record)) for record in rest]
    sample = tuple(dict(values) for _, values in read if isinstance(values, Mapping))
    if rest and not sample:
        raise UsageError(
            f"{path}: none of the first {len(rest)} records fits the columns {', '.join(names)}. "
            f"Record 1 ({_values(layout, rest[0])}) is {shown_start(start, header)}"
        )
    return TableLayout(names, layout.start, quoted, header, sample)


def shown_start(start: bytes, header: bool) -> str:
    """Returns the first line after the header for a message, or the first lines without one."""
    lines = start.decode("utf-8", "replace").lstrip("\ufeff").splitlines()
    lines = [line for line in lines if line.strip()]
    return shown_record(" ".join(lines[1:2] if header else lines[:5]))


def _names(fields: Sequence[Any]) -> tuple[str, ...]:
    """Returns the names in a header, without empty ones at its end."""
    names = [
        name.decode("utf-8", "replace") if isinstance(name, bytes) else valid_unicode(name)
        for name in fields
    ]
    while len(names) > 1 and not names[-1].strip():
        names.pop()
    return tuple(" ".join(name.split()) for name in names)


def _values(layout: TableLayout, record: Record) -> Mapping[str, Any] | str:
    return record.problem if record.fields is None else layout.values(record.fields)


def _is_quoted(plain: Sequence[Record], quoted: Sequence[Record], *, is_cut: bool) -> bool:
    """Returns whether a TSV has its fields in quotes: its whole header, or fields of the sample.

    If more than a few quotes do not fit, they are part of the texts, as in CC12M. `is_cut` says
    that the last records of the sample may be incomplete.
    """
    lines = [record.fields for record in plain if isinstance(record.fields, list)]
    if lines and all(len(name) > 1 and name[:1] == name[-1:] == '"' for name in lines[0]):
        return True
    width = len(quoted[0].fields or ()) if quoted else 0
    misfits = [len(record.fields or ()) != width for record in quoted]
    for _ in range(CUT if is_cut else 0):
        if misfits and misfits[-1]:
            misfits.pop()
    with_quotes = sum(
        any(isinstance(field, str) and field.startswith('"') for field in fields)
        for fields in lines
    )
    return sum(misfits) <= MISFITS * with_quotes and with_quotes > 0


def _check_header(path: str, format: str, names: Sequence[str], first: Sequence[Any]) -> None:
    """Raises UsageError for a header that shows another separator, or that is a record."""
    urls = [i for i, name in enumerate(names) if is_url(name)]
    own = "," if format == "csv" else "\t"
    for separator, word in SEPARATORS.items():
        if len(names) > 1 or separator == own or separator not in str(first[0]):
            continue
        other = {",": "csv", "\t": "tsv"}.get(separator)
        advice = f"read it as {other}" if other else f"save it with {SEPARATORS[own]}"
        raise UsageError(
            f"{path}: the fields are separated by {word}, not by {SEPARATORS[own]}: "
            f"{shown_record(first[0])}; {advice}"
        )
    if urls:
        values = {str(i): name for i, name in enumerate(first)}
        raise UsageError(
            f"{path} has no header: its first record is {shown_record(values)}. Set the columns by "
            f"number: {suggested_columns([values])}"
        )


def _json_layout(path: str, start: bytes, records: Sequence[Record]) -> TableLayout:
    sample = [record.fields for record in records if isinstance(record.fields, dict)]
    opening = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if records and (not sample or (opening == b"[" and len(sample) < 2)):
        form = {
            b"[": "a JSON array; write its records as lines: jq -c '.[]' FILE > FILE.jsonl",
            b"{": "JSON objects of several lines; write each as one: jq -c . FILE > FILE.jsonl",
        }.get(opening, f"no JSON object (record 1: {records[0].problem})")
        raise UsageError(
            f"{path} does not hold one JSON object per line, but {form}. It begins with "
            f"{shown_start(start, False)}"
        )
    names = dict.fromkeys(name for values in sample for name in values)
    return TableLayout(tuple(names), 0, False, False, tuple(sample))
