"""Looks whether the column of URLs holds URLs, before millions of rows end as no URL at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pinxit.config import UsageError
from pinxit.data.sources.columns import FieldColumns
from pinxit.text_decoding import valid_unicode

URL = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*://|data:|//|www\.|[\w-]+(?:\.[\w-]+)+/)", re.IGNORECASE)
SHOWN = 120
"""The most characters of a record that a message shows."""
SHOWN_VALUE = 50
"""The most characters of one value that a message shows."""


def is_url(value: Any) -> bool:
    """Returns whether a value begins like a URL, with or without its scheme."""
    return isinstance(value, str) and URL.match(value) is not None


def check_urls(records: Sequence[Mapping[str, Any]], by_field: FieldColumns, *, where: str) -> None:
    """Raises UsageError if none of the first `records` has a URL in the column of URLs.

    The message shows the first record, and the columns that would fit. Records without a value do
    not count.
    """
    columns = by_field.get("url", ())
    values = [
        record.get(column)
        for record in records
        for column in columns
        if isinstance(record.get(column), str | int | float) and str(record.get(column)).strip()
    ]
    if not values or any(is_url(value) for value in values):
        return
    advice = suggested_columns(records, caption=by_field.get("caption", ())[:1])
    raise UsageError(
        f"{where}: the url column {columns[0]!r} holds no URLs; the first record is "
        f"{shown_record(records[0])}. " + (f"Set the columns: {advice}" if advice else NAMES)
    )


NAMES = (
    "If these are names of image files, put the table into their folder as metadata.csv (or "
    ".jsonl), with a column file_name, and use the source folder"
)


def suggested_columns(records: Sequence[Mapping[str, Any]], caption: Sequence[str] = ()) -> str:
    """Returns the option that names a column of URLs and one of captions; "" if no column fits.

    The caption is in the column `caption`, unless that holds the URLs, or else in the one with the
    longest texts.
    """
    counts: dict[str, int] = {}
    lengths: dict[str, int] = {}
    for record in records:
        for name, value in record.items():
            if is_url(value):
                counts[name] = counts.get(name, 0) + 1
            elif isinstance(value, str) and re.search(r"[^\W\d]", value):
                lengths[name] = lengths.get(name, 0) + len(value)
    if not counts:
        return ""
    url = max(counts, key=lambda name: counts[name])
    others = [name for name in caption if name != url] or sorted(
        (name for name in lengths if name != url), key=lambda name: -lengths[name]
    )
    return f"--columns url={url}" + (f" caption={others[0]}" if others else "")


def shown_record(record: Any) -> str:
    """Returns a record for a message: one short line, whatever its values are."""
    if isinstance(record, Mapping):
        text = ", ".join(f"{_short(name)}: {_short(value)}" for name, value in record.items())
    else:
        text = repr(str(record)[:SHOWN])
    text = valid_unicode(text)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _short(value: Any) -> str:
    if isinstance(value, str | bytes):
        return repr(value if len(value) <= SHOWN_VALUE else value[:SHOWN_VALUE])
    if value is None or isinstance(value, bool | float):
        return repr(value)
    return type(value).__name__ if not isinstance(value, int) else str(value)[:SHOWN_VALUE]
