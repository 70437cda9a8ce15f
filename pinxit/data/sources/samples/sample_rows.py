"""Makes the row of a sample from its files: an image, a caption and the metadata of the image."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pinxit.data.row import Row
from pinxit.data.sources.columns import Columns, FieldColumns, make_row, text, unreadable
from pinxit.data.sources.file_names import printable
from pinxit.text_decoding import UnknownEncoding, decode_text

LARGEST = {"image": 2**26, "text": 2**20}
"""The largest accepted files, in bytes. A row whose image or caption is larger is large_file."""
IMAGE = "\0image"
"""The key of the image among a sample's values, which no JSON key equals."""
CAPTION = "\0caption"
"""The key of the text file's content among a sample's values."""


@dataclass(frozen=True, slots=True)
class Content:
    """A file of a sample, which is read when needed."""

    name: str
    size: int | None
    """The size in bytes; None if it is not known beforehand."""
    load: Callable[[], bytes]


class Unreadable(Exception):
    """Raised for a file whose row cannot be read, with the row's status and its detail."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def row_of_sample(
    key: str,
    columns: Columns,
    *,
    image: Content,
    caption: Content | None = None,
    json_file: Content | None = None,
    about: Mapping[str, Any] | None = None,
    label: str | None = None,
    encoding: str | None = None,
) -> Row:
    """Returns the row of an image with the text next to it and its metadata.

    The metadata are `about`, or else the content of `json_file`. The text is the caption, unless
    the user has set a caption column for the metadata. `label` is the caption of last resort.
    `encoding` is the encoding of texts that are not Unicode. A file that cannot be read gives the
    row a fault.
    """
    name = printable(image.name)
    by_hand = "caption" in columns.by_hand
    try:
        data = load_content(image, LARGEST["image"])
        words = None if caption is None or by_hand else text(_decoded(caption, encoding))
        values = dict(about or {})
        if not values and json_file is not None:
            values = _object(json_file, encoding, needed=words is None and label is None)
    except Unreadable as error:
        return unreadable(key, error.status, name=name, detail=error.detail)
    by_field: FieldColumns = columns.optional().match(list(values), where=key) if values else {}
    by_field["image"] = (IMAGE,)
    if words is not None:
        by_field["caption"] = (CAPTION,)
    row = make_row(key, {**values, IMAGE: data, CAPTION: words}, by_field)
    if label is not None and not row.caption and not by_hand:
        row = dataclasses.replace(row, caption=label)
    if row.image is None:
        return unreadable(key, "bad_record", name=name, detail="the image file is empty")
    return dataclasses.replace(row, name=name)


def load_content(content: Content, limit: int) -> bytes:
    """Returns the bytes of a file. Raises `Unreadable` if there are more than `limit`."""
    if content.size is not None and content.size > limit:
        raise _too_large(content.name, content.size, limit)
    data = content.load()
    if len(data) > limit:
        raise _too_large(content.name, len(data), limit)
    return data


def _decoded(content: Content, encoding: str | None) -> str:
    data = load_content(content, LARGEST["text"])
    try:
        return decode_text(data, fallback=encoding)
    except UnknownEncoding as error:
        raise Unreadable("bad_text", f"{printable(content.name)} is {error}") from error


def _object(content: Content, encoding: str | None, *, needed: bool) -> dict[str, Any]:
    """Returns the JSON object in a file, or an empty one if it cannot be read and is not needed."""
    try:
        value = json.loads(_decoded(content, encoding))
        if isinstance(value, dict):
            return value
        problem = "is not a JSON object"
    except (ValueError, RecursionError) as error:
        problem = f"is not valid JSON ({error})"
    except Unreadable:
        if needed:
            raise
        return {}
    if needed:
        raise Unreadable("bad_record", f"{printable(content.name)} {problem}")
    return {}


def _too_large(name: str, size: int, limit: int) -> Unreadable:
    detail = f"{printable(name)} has {size} bytes; the limit is {limit}"
    return Unreadable("large_file", detail)
