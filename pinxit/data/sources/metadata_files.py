"""Reads the files in an image folder that name images and describe them.

``metadata`` and ``captions`` are tables (``.jsonl``, ``.csv``, ``.tsv``, ``.parquet``) or JSON: a
list of objects, or one object whose keys are the names of the images (``meta_cap.json``). Every
record must name its image.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pinxit.config import UsageError
from pinxit.data.sources.columns import text
from pinxit.data.sources.files import File, open_file, reading
from pinxit.data.sources.sample_names import printable
from pinxit.text_decoding import UnknownEncoding, decode_text, split_lines

FORMATS = ("csv", "json", "jsonl", "parquet", "tsv")
METADATA = (
    *(f"{stem}.{suffix}" for stem in ("metadata", "captions") for suffix in FORMATS),
    *("meta_cap.json", "meta_clean.json", "meta_lat.json"),
)
"""The names of the files that describe images, in lower case."""
NAMED = ("file_name", "filename", "file", "image", "image_path", "path")
"""The columns in which a record may name its image."""
LONGEST_FIELD = 2**24
"""The most characters of one CSV field."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One record about an image."""

    named: str
    """The name of the image, as the record spells it."""
    folder: str
    """The folder of the metadata file, relative to the dataset's."""
    values: Mapping[str, Any]
    where: str
    """The file and the number of the record, such as "metadata.csv, record 17"."""


def is_metadata(name: str) -> bool:
    """Returns whether a file of this name describes images."""
    return posixpath.basename(name).lower() in METADATA


def read_records(file: File, *, encoding: str | None = None) -> Iterator[ImageRecord]:
    """Yields the records of a metadata file. Raises UsageError for the first one without a name."""
    suffix = file.name.lower().rpartition(".")[2]
    with reading(file.path), open_file(file.path) as stream:
        if suffix == "parquet":
            objects = _parquet_objects(stream, file)
        else:
            objects = _text_objects(stream.read(), suffix, file, encoding)  # type: ignore[attr-defined]
    folder = posixpath.dirname(file.name)
    for number, values in enumerate(objects, start=1):
        where = f"{printable(file.name)}, record {number}"
        by_lower = {key.lower(): value for key, value in reversed(values.items())}
        named = next((text(by_lower[key]) for key in NAMED if by_lower.get(key)), None)
        if named is None:
            raise UsageError(
                f"{printable(file.path)} has a record without {' or '.join(NAMED)} "
                f"(record {number}); it has: {', '.join(values)}"
            )
        yield ImageRecord(named, folder, values, where)


def _text_objects(
    data: bytes, suffix: str, file: File, encoding: str | None
) -> list[dict[str, Any]]:
    try:
        content = decode_text(data, fallback=encoding)
    except UnknownEncoding as error:
        raise UsageError(
            f"{printable(file.path)} is {error}; set --text_encoding, for example to cp1252"
        ) from error
    if suffix == "json":
        return _json_objects(content, file)
    if suffix == "jsonl":
        lines = [line for line in split_lines(content) if line.strip()]
        return [_json_line(line, number, file) for number, line in enumerate(lines, start=1)]
    return _table_objects(content, suffix, file)


def _json_line(line: str, number: int, file: File) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _unreadable(file, number, line)
    return value


def _json_objects(content: str, file: File) -> list[dict[str, Any]]:
    """Returns the objects of a list, or those that an object holds by the names of images."""
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{printable(file.path)} is not valid JSON: {error}") from error
    if isinstance(whole, list):
        items: Sequence[tuple[str | None, Any]] = [(None, value) for value in whole]
    elif isinstance(whole, dict):
        items = list(whole.items())
    else:
        raise _unreadable(file, 1, content)
    objects = []
    for number, (name, value) in enumerate(items, start=1):
        if name is not None and isinstance(value, str):
            value = {"caption": value}
        if not isinstance(value, dict):
            raise _unreadable(file, number, json.dumps(value))
        objects.append(value if name is None else {**value, NAMED[0]: name})
    return objects


def _table_objects(content: str, suffix: str, file: File) -> list[dict[str, Any]]:
    csv.field_size_limit(LONGEST_FIELD)
    if suffix == "tsv":
        quoting = csv.QUOTE_MINIMAL if '"' in content.partition("\n")[0] else csv.QUOTE_NONE
        reader = csv.reader(io.StringIO(content, newline=""), delimiter="\t", quoting=quoting)
    else:
        reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    try:
        header, *rows = (fields for fields in reader if fields)
    except (csv.Error, ValueError) as error:
        problem = error if isinstance(error, csv.Error) else "it is empty"
        raise UsageError(f"{printable(file.path)} has an unreadable record: {problem}") from error
    for number, fields in enumerate(rows, start=1):
        if len(fields) != len(header):
            raise UsageError(
                f"{printable(file.path)}, record {number}: {len(fields)} fields instead of the "
                f"{len(header)} of the header ({', '.join(header)}): {_start(', '.join(fields))}; "
                "a field that contains the separator must be quoted"
            )
    return [dict(zip(header, fields, strict=True)) for fields in rows]


def _parquet_objects(stream: Any, file: File) -> list[dict[str, Any]]:
    """Returns the records of a parquet table, without columns of bytes."""
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(stream)
        names = [
            field.name for field in table.schema_arrow if not pyarrow.types.is_binary(field.type)
        ]
        return table.read(columns=names).to_pylist()
    except pyarrow.ArrowException as error:
        raise UsageError(f"{printable(file.path)} is not a parquet file: {error}") from error


def _unreadable(file: File, number: int, record: str) -> UsageError:
    return UsageError(
        f"{printable(file.path)} has an unreadable record; valid: JSON objects (.jsonl, .json), a "
        f"table with a header (.csv, .tsv) or parquet; record {number} is: {_start(record)}"
    )


def _start(record: str) -> str:
    return record if len(record) <= 80 else f"{record[:77]}..."
