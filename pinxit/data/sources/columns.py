"""Maps the columns of a file to the fields of a row, and builds rows from records.

Every dataset spells its columns differently, and types vary (a width is int32 in one file, float64
with NaN in another, text in a CSV). Names are therefore matched regardless of case, and values are
cast to the type of their field. A number that cannot be cast counts as missing. A URL or a caption
of a type that holds no text makes its row a ``bad_record``, and one in an unknown encoding a
``bad_text``. No value raises an error.

If a caption is a list of texts, one of them is taken. A hash of the row's key chooses it, so that
every run takes the same one. Empty texts and nulls do not count.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from pinxit.config import UsageError
from pinxit.data.row import SCORES, Row
from pinxit.text_decoding import UnknownEncoding, decode_text, valid_unicode

FIELDS = ("url", "caption", "image", "width", "height", "phash", *SCORES)
"""The fields that a column can be mapped to."""
NONE = ("", "none")
"""Column names which state that the source has no column for the field."""
SHOWN = 8
"""The most columns that a line about unread columns lists."""
LONGEST_NAME = 100
"""The most characters of a column's or a file's name in a message."""
MOST_SHOWN = 40
"""The most columns that an error message lists."""

FieldColumns = dict[str, tuple[str, ...]]
"""Maps each field to the file's columns that hold it, spelled as in the file."""


@dataclass(frozen=True)
class Columns:
    """The possible column names of each field, the preferred one first."""

    names: Mapping[str, tuple[str, ...]]
    """Maps each field to its possible column names."""
    required: tuple[str, ...] = ("url|image", "caption")
    """Fields that must have a column; "a|b" requires one of the two."""
    combined: frozenset[str] = field(default=frozenset({"nsfw"}))
    """Fields that use all of their columns that a file has, not only the first."""
    by_hand: frozenset[str] = frozenset()
    """Fields whose column names the user set. All of these columns must exist."""

    def override(self, columns: Mapping[str, str]) -> Columns:
        """Returns a copy in which the user's `columns` replace the names of some fields.

        A value is a name ("URL"), several ("a,b": the first one with a value counts) or "none".
        """
        unknown = [name for name in columns if name not in FIELDS]
        if unknown:
            raise UsageError("columns", unknown, problem="unknown", valid=FIELDS)
        names = dict(self.names)
        for key, value in columns.items():
            absent = value.lower() in NONE
            names[key] = () if absent else tuple(name.strip() for name in value.split(","))
        required = ("|".join(f for f in one.split("|") if names.get(f)) for one in self.required)
        combined = self.combined | {key for key in columns if len(names[key]) > 1}
        by_hand = frozenset(key for key in columns if names[key])
        return Columns(
            names, tuple(one for one in required if one), combined, by_hand | self.by_hand
        )

    def optional(self) -> Columns:
        """Returns a copy that requires no column, for records with differing keys."""
        return Columns(self.names, (), self.combined)

    def match(
        self, existing: Sequence[str], *, where: str, binary: Collection[str] | None = None
    ) -> FieldColumns:
        """Returns the columns of each field in a file whose columns are `existing`.

        Only the columns in `binary` can hold encoded images (default: all). Raises one ValueError
        that lists all missing columns. `where` names the file in the message.
        """
        by_field: FieldColumns = {}
        missing = []
        can_hold_images = [name for name in existing if binary is None or name in binary]
        for key, names in self.names.items():
            usable = can_hold_images if key == "image" else existing
            spelling = {name: _spelling(name, usable) for name in names}
            hits = tuple(dict.fromkeys(hit for hit in spelling.values() if hit is not None))
            if hits:
                by_field[key] = hits if key in self.combined else hits[:1]
            if key in self.by_hand:
                missing += [f"{key} ({name})" for name, hit in spelling.items() if hit is None]
        for one in self.required:
            if not any(f in by_field or f in self.by_hand for f in one.split("|")):
                missing.append(f"{one.replace('|', ' or ')} ({self._candidates(one)})")
        if missing:
            hint = self._image_hint(existing, can_hold_images)
            raise UsageError(
                f"{where} has no column for {'; '.join(missing)}; it has: "
                f"{_listed(existing, MOST_SHOWN) or 'none'}. {hint}"
                "Set the column names explicitly, for example --columns url=LINK phash=none"
            )
        used = {name for names in by_field.values() for name in names}
        twice = [name for name in used if list(existing).count(name) > 1]
        if twice:
            raise UsageError(
                f"{where} has several columns called {min(twice)!r}; rename all but one"
            )
        return by_field

    def _image_hint(self, existing: Sequence[str], can_hold_images: Sequence[str]) -> str:
        """Returns a hint about columns that are named like images but cannot hold any, or ""."""
        others = [name for name in existing if name not in can_hold_images]
        suspects = {_spelling(name, others) for name in self.names.get("image", ())} - {None}
        if not suspects:
            return ""
        names = ", ".join(name for name in others if name in suspects)
        return f"({names}: no encoded images; if these are URLs, set it as the url column.) "

    def _candidates(self, keys: str) -> str:
        names = [name for one in keys.split("|") for name in self.names.get(one, ())]
        return ", ".join(names) or "no known name"


def named_columns(pairs: Sequence[str]) -> dict[str, str]:
    """Parses pairs such as "caption=long_caption" into column names by field."""
    columns = {}
    for pair in pairs:
        key, equals, name = pair.partition("=")
        if not equals or not key or not name:
            valid = "field=name, such as caption=long_caption"
            raise UsageError("columns", pair, problem="not understood", valid=valid)
        columns[key] = name
    return columns


class NotText(ValueError):
    """Raised for a value that holds no text. The message is the kind of value."""


def make_row(
    key: str,
    values: Mapping[str, Any],
    by_field: FieldColumns,
    *,
    place: tuple[str, int] | None = None,
    text_encoding: str | None = None,
) -> Row:
    """Returns the row of one record, whose `values` are keyed by the file's column names.

    In a file with an image column, a row's URL is only the origin of the image, even if the image
    is missing. `place`, such as ("file.csv, record", 17), becomes the name of a row without a URL
    or with a fault. Bytes that are not UTF-8 are decoded with `text_encoding`.
    """
    has_image = "image" in by_field
    text_url, url_fault = _first_text("url", key, values, by_field, text_encoding)
    caption, caption_fault = _first_text("caption", key, values, by_field, text_encoding)
    image = _first(by_field, "image", values, image_bytes)
    fault, detail = url_fault or caption_fault or (None, "")
    if has_image and image is None and fault is None:
        fault, detail = _missing_image(values, by_field["image"])
    scores = {}
    for name in SCORES:
        numbers = [number(values.get(column)) for column in by_field.get(name, ())]
        known = [value for value in numbers if value is not None]
        if known:
            scores[name] = max(known) if name == "nsfw" else known[0]
    url = None if has_image else text_url
    is_named = place is not None and (url is None or fault is not None)
    return Row(
        key=key,
        url=url,
        caption=caption or "",
        width=_first(by_field, "width", values, whole_number),
        height=_first(by_field, "height", values, whole_number),
        phash=_first(by_field, "phash", values, hash_digits),
        scores=scores,
        image=image,
        origin=text_url if has_image else None,
        name=f"{place[0]} {place[1]}" if place is not None and is_named else None,
        fault=fault,
        detail=detail,
    )


def check_values(
    records: Sequence[Mapping[str, Any]], by_field: FieldColumns, *, where: str
) -> None:
    """Raises UsageError if the captions or URLs of the first `records` hold no text at all."""
    for name in ("url", "caption"):
        problem = ""
        for record in records:
            try:
                values = [_cell(record.get(c), "", name, None) for c in by_field.get(name, ())]
            except UnknownEncoding:
                break
            except NotText as error:
                problem = problem or str(error)
                continue
            if any(values):
                break
        else:
            if problem:
                several = ", or lists of texts" if name == "caption" else ""
                raise UsageError(
                    f"{where}: the column {by_field[name][0]!r} ({name}) holds {problem}; valid: "
                    f"text{several}. Name another column with --columns {name}=NAME"
                )


def unread_columns(file: str, existing: Sequence[str], by_field: FieldColumns) -> tuple[str, ...]:
    """Returns one line with the columns of a file that are not read, or none if all are."""
    used = {name for names in by_field.values() for name in names}
    names = [name for name in existing if name not in used and name.strip()]
    if not names:
        return ()
    count = f"{len(names)} column{'' if len(names) == 1 else 's'}"
    return (f"{count} of {one_line(file)}: {_listed(names, SHOWN)}",)


def one_line(name: str) -> str:
    """Returns a name for a message: one line of valid Unicode, shortened."""
    text_only = valid_unicode(name.replace("\0", ""))
    return " ".join(text_only.split())[:LONGEST_NAME].strip()


def unreadable(
    key: str, status: str = "bad_record", *, name: str | None = None, detail: str = ""
) -> Row:
    """Returns the row of a record that cannot be read. `status` becomes its outcome."""
    return Row(key=key, url=None, caption="", name=name, fault=status, detail=detail)


def text(value: Any) -> str | None:
    """Returns a value as valid Unicode text, stripped of surrounding white space; None if empty.

    NUL characters are removed. Half a character (a lone surrogate, as JSON may hold where a text
    was cut) becomes a question mark. Bytes must be Unicode text; other bytes count as empty.
    """
    if isinstance(value, bytes):
        try:
            value = decode_text(value)
        except UnknownEncoding:
            return None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        value = _digits(value)
    if not isinstance(value, str):
        return None
    if not value.isascii():
        value = valid_unicode(value)
    return value.replace("\0", "").strip() or None


def number(value: Any) -> float | None:
    """Returns a value as a finite number, or None if it is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        cast = float(value)
    except (ValueError, OverflowError):
        return None
    return cast if math.isfinite(cast) else None


def whole_number(value: Any) -> int | None:
    """Returns a value as a whole number of at least 1, or None (several sets use 0 for unknown)."""
    cast = number(value)
    return int(cast) if cast is not None and cast >= 1 else None


def hash_digits(value: Any) -> str | None:
    """Returns a 64-bit hash, stored as hex digits or as an integer, as 16 lower-case hex digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value % 2**64:016x}"
    digits = value.strip().lower() if isinstance(value, str) else ""
    return digits if re.fullmatch(r"[0-9a-f]{16}", digits) else None


def image_bytes(value: Any) -> bytes | None:
    """Returns the bytes of an encoded image, or None.

    A value is bytes, or the hub's {"bytes": ..., "path": ...}, whose path is ignored.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return value or None if isinstance(value, bytes) else None


def _first_text(
    name: str,
    key: str,
    values: Mapping[str, Any],
    by_field: FieldColumns,
    text_encoding: str | None,
) -> tuple[str | None, tuple[str, str] | None]:
    """Returns the URL or the caption of a record, or else the status and the detail of its fault.

    The first column with a text counts.
    """
    fault: tuple[str, str] | None = None
    for column in by_field.get(name, ()):
        try:
            value = _cell(values.get(column), key, name, text_encoding)
        except UnknownEncoding as error:
            fault = fault or ("bad_text", f"{name}: {error}")
        except NotText as error:
            fault = fault or ("bad_record", f"{name}: {error}, not text")
        else:
            if value is not None:
                return value, None
    return None, fault


def _cell(value: Any, key: str, name: str, text_encoding: str | None) -> str | None:
    """Returns the text of a URL or a caption. Of a list of captions, `key` chooses one."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        names = _listed([str(inner) for inner in value], 4)
        raise NotText(f"an object ({names})" if names else "an object")
    if isinstance(value, bytes):
        return text(decode_text(value, fallback=text_encoding))
    if not isinstance(value, list | tuple):
        return text(value)
    if name != "caption":
        raise NotText("a list")
    if any(isinstance(inner, Mapping | list | tuple) for inner in value):
        raise NotText("a list whose items are objects or lists")
    choices = [_cell(inner, key, name, text_encoding) for inner in value]
    choices = [choice for choice in choices if choice is not None]
    if not choices:
        return None
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return choices[int.from_bytes(digest, "big") % len(choices)]


def _listed(names: Sequence[str], most: int) -> str:
    """Returns the first names for a message, and how many there are besides."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(one_line, names[:most])) + more


def _digits(value: float) -> str | None:
    """Returns a number as text, or None if it is not finite or too long to be written."""
    try:
        return str(value) if math.isfinite(value) else None
    except (ValueError, OverflowError):
        return None


def _missing_image(values: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, str]:
    """Returns the status and the detail of a row whose image column holds no bytes."""
    for column in columns:
        value = values.get(column)
        path = value.get("path") if isinstance(value, Mapping) else None
        if isinstance(path, str) and path:
            return "missing_image", f"{column}: the path {path[:200]!a} and no bytes"
    return "no_image", f"{', '.join(columns)}: no bytes"


def _first(by_field: FieldColumns, key: str, values: Mapping[str, Any], cast: Any) -> Any:
    for column in by_field.get(key, ()):
        value = cast(values.get(column))
        if value is not None:
            return value
    return None


def _spelling(name: str, existing: Sequence[str]) -> str | None:
    """Returns a name as the file spells it: an exact match, else the first that differs in case."""
    if name in existing:
        return name
    return next((other for other in existing if other.lower() == name.lower()), None)
