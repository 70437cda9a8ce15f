"""Maps the columns of a file to the fields of a row, and builds rows from records.

Every dataset spells its columns differently, and types vary (a width is int32 in one file, float64
with NaN in another, text in a CSV). Names are therefore matched regardless of case, and values are
cast to the type of their field. A value that cannot be cast counts as missing, never as an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pinxit.config import UsageError
from pinxit.data.row import SCORES, Row

FIELDS = ("url", "caption", "image", "width", "height", "phash", *SCORES)
"""The fields that a column can be mapped to."""
NONE = ("", "none")
"""Column names which state that the source has no column for the field."""

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
            raise UsageError(
                f"{where} has no column for {'; '.join(missing)}; it has: "
                f"{', '.join(existing) or 'none'}. {self._image_hint(existing, can_hold_images)}"
                "Set the column names explicitly, for example "
                "columns={'url': 'LINK', 'phash': 'none'}"
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


def make_row(key: str, values: Mapping[str, Any], by_field: FieldColumns) -> Row:
    """Returns the row of one record, whose `values` are keyed by the file's column names.

    In a file with an image column, a row's URL is only the origin of the image, even if the image
    is missing.
    """
    image = _first(by_field, "image", values, image_bytes)
    url = _first(by_field, "url", values, text)
    scores = {}
    for name in SCORES:
        numbers = [number(values.get(column)) for column in by_field.get(name, ())]
        known = [value for value in numbers if value is not None]
        if known:
            scores[name] = max(known) if name == "nsfw" else known[0]
    return Row(
        key=key,
        url=None if "image" in by_field else url,
        caption=_first(by_field, "caption", values, text) or "",
        width=_first(by_field, "width", values, whole_number),
        height=_first(by_field, "height", values, whole_number),
        phash=_first(by_field, "phash", values, hash_digits),
        scores=scores,
        image=image,
        origin=url if "image" in by_field else None,
    )


def unreadable(
    key: str, status: str = "bad_record", *, name: str | None = None, detail: str = ""
) -> Row:
    """Returns the row of a record that cannot be read. `status` becomes its outcome."""
    return Row(key=key, url=None, caption="", name=name, fault=status, detail=detail)


def text(value: Any) -> str | None:
    """Returns a value as valid Unicode text, stripped of surrounding white space; None if empty."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        value = str(value)
    if not isinstance(value, str):
        return None
    if not value.isascii():
        value = value.encode("utf-8", errors="replace").decode("utf-8")  # lone surrogates
    return value.strip() or None


def number(value: Any) -> float | None:
    """Returns a value as a finite number, or None if it is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
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
    digits = (text(value) or "").lower()
    return digits if re.fullmatch(r"[0-9a-f]{16}", digits) else None


def image_bytes(value: Any) -> bytes | None:
    """Returns the bytes of an encoded image, or None.

    A value is bytes, or the hub's {"bytes": ..., "path": ...}, whose path is ignored.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return value or None if isinstance(value, bytes) else None


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
