"""Reads the files in an image folder that name images and describe them.

``metadata`` and ``captions`` are tables (``.jsonl``, ``.csv``, ``.tsv``, ``.parquet``) or JSON: a
list of objects, or one object whose keys are the names of the images (``meta_cap.json``). Every
record must name its image.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pinxit.config import UsageError
from pinxit.data.sources.columns import text
from pinxit.data.sources.file_names import printable
from pinxit.data.sources.files import File, open_file, reading
from pinxit.data.sources.tables.text_layout import read_layout
from pinxit.data.sources.tables.text_records import table_records
from pinxit.data.sources.tables.text_stream import open_lines
from pinxit.text_decoding import UnknownEncoding, decode_text

TEXT_TABLES = ("csv", "jsonl", "tsv")
FORMATS = (*TEXT_TABLES, "json", "parquet")
METADATA = (
    *(f"{stem}.{suffix}" for stem in ("metadata", "captions") for suffix in FORMATS),
    *("meta_cap.json", "meta_clean.json", "meta_lat.json"),
)
"""The names of the files that describe images, in lower case."""
NAMED = ("file_name", "filename", "file", "image", "image_path", "path")
"""The columns in which a record may name its image."""


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
    objects = _objects(file, encoding)
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


def _objects(file: File, encoding: str | None) -> Iterator[dict[str, Any]]:
    """Yields the records of a metadata file of any of the `FORMATS`."""
    suffix = file.name.lower().rpartition(".")[2]
    if suffix in TEXT_TABLES:
        yield from _table_objects(file, suffix, encoding)
        return
    with reading(file.path), open_file(file.path) as stream:
        if suffix == "parquet":
            yield from _parquet_objects(stream, file)
            return
        data = stream.read()  # type: ignore[attr-defined]
    try:
        content = decode_text(data, fallback=encoding)
    except UnknownEncoding as error:
        raise _not_decoded(f"{printable(file.path)} is {error}") from error
    yield from _json_objects(content, file)


def _table_objects(file: File, format: str, encoding: str | None) -> Iterator[dict[str, Any]]:
    """Yields the records of a CSV, TSV or JSONL file. Raises UsageError for an invalid one."""
    layout = read_layout(file.path, format, header=True, quotable=True, text_encoding=encoding)
    with open_lines(file.path, text_encoding=encoding) as stream:
        stream.seek(layout.start)
        records = table_records(stream, format, quoted=layout.quoted, text_encoding=encoding)
        for number, record in enumerate(records, start=1):
            values = record.problem if record.fields is None else layout.values(record.fields)
            place = f"{printable(file.path)}, record {number}"
            if isinstance(values, str):
                raise UsageError(f"{place}: {values}{_advice(format)}")
            if any(isinstance(value, bytes) for value in values.values()):
                raise _not_decoded(f"{place} is not Unicode text")
            yield dict(values)


def _advice(format: str) -> str:
    if format == "jsonl":
        return "; valid: one JSON object per line"
    return "; a field that contains the separator must be quoted"


def _not_decoded(problem: str) -> UsageError:
    return UsageError(f"{problem}; set --text_encoding, for example to cp1252")


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
        f"{printable(file.path)} has an unreadable record; valid: JSON objects; "
        f"record {number} is: {_start(record)}"
    )


def _start(record: str) -> str:
    return record if len(record) <= 80 else f"{record[:77]}..."
