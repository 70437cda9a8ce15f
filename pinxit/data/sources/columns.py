"""Which column means what, and a row from their values.

Every release spells its columns differently, and types wander (a width is int32 here, float64 with
NaN there, text in a CSV). Names are therefore matched without regard to case, and values are cast
by what they mean: a value that cannot be cast counts as absent, never as an error.
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
"""What a column can mean."""
NONE = ("", "none")
"""As the name of a column: the source has none of this meaning."""

Found = dict[str, tuple[str, ...]]
"""Meaning to the columns that bear it, as a file spells them."""


@dataclass(frozen=True)
class Columns:
    """Names by meaning, the preferred one first."""

    names: Mapping[str, tuple[str, ...]]
    required: tuple[str, ...] = ("url|image", "caption")
    """Meanings that must be there; "a|b" asks for one of the two."""
    combined: frozenset[str] = field(default=frozenset({"nsfw"}))
    """Meanings that take every column of theirs, not the first that is there alone."""
    by_hand: frozenset[str] = frozenset()
    """Meanings whose names were given by hand: every one of those must be there."""

    def override(self, columns: Mapping[str, str]) -> Columns:
        """With some meanings named by hand: "URL", "a,b" (the first that has a value), "none"."""
        unknown = [meaning for meaning in columns if meaning not in FIELDS]
        if unknown:
            raise UsageError(f"columns: {unknown} are unknown; valid: {', '.join(FIELDS)}")
        names = dict(self.names)
        for meaning, given in columns.items():
            absent = given.lower() in NONE
            names[meaning] = () if absent else tuple(name.strip() for name in given.split(","))
        left = ("|".join(m for m in one.split("|") if names.get(m)) for one in self.required)
        combined = self.combined | {meaning for meaning in columns if len(names[meaning]) > 1}
        by_hand = frozenset(meaning for meaning in columns if names[meaning])
        return Columns(names, tuple(one for one in left if one), combined, by_hand | self.by_hand)

    def optional(self) -> Columns:
        """The same names, of which none must be there: for records that differ in their keys."""
        return Columns(self.names, (), self.combined)

    def match(
        self, existing: Sequence[str], *, where: str, binary: Collection[str] | None = None
    ) -> Found:
        """The columns of a file that has `existing`; ValueError for all that lack, at once.

        `binary`: those that can hold encoded images (default: all); no other is taken for one.
        """
        found: Found = {}
        lacking = []
        bearing = [name for name in existing if binary is None or name in binary]
        for meaning, names in self.names.items():
            usable = bearing if meaning == "image" else existing
            spelt = {name: _spelling(name, usable) for name in names}
            hits = tuple(dict.fromkeys(hit for hit in spelt.values() if hit is not None))
            if hits:
                found[meaning] = hits if meaning in self.combined else hits[:1]
            if meaning in self.by_hand:
                lacking += [f"{meaning} ({name})" for name, hit in spelt.items() if hit is None]
        for one in self.required:
            if not any(m in found or m in self.by_hand for m in one.split("|")):
                lacking.append(f"{one.replace('|', ' or ')} ({self._candidates(one)})")
        if lacking:
            raise UsageError(
                f"{where} has no column for {'; '.join(lacking)}; it has: "
                f"{', '.join(existing) or 'none'}. {self._textual(existing, bearing)}"
                "What means what can be said by hand, as in "
                "columns={'url': 'LINK', 'phash': 'none'}"
            )
        return found

    def _textual(self, existing: Sequence[str], bearing: Sequence[str]) -> str:
        """A sentence on the columns that are called like images and can hold none."""
        rest = [name for name in existing if name not in bearing]
        called = {_spelling(name, rest) for name in self.names.get("image", ())} - {None}
        if not called:
            return ""
        names = ", ".join(name for name in rest if name in called)
        return f"({names}: no encoded images; if it is their URLs, say so.) "

    def _candidates(self, meanings: str) -> str:
        names = [name for one in meanings.split("|") for name in self.names.get(one, ())]
        return ", ".join(names) or "no known name"


def named_columns(pairs: Sequence[str]) -> dict[str, str]:
    """ "caption=long_caption" and the like, by meaning."""
    columns = {}
    for pair in pairs:
        meaning, equals, name = pair.partition("=")
        if not equals or not meaning or not name:
            valid = "meaning=name, such as caption=long_caption"
            raise UsageError("columns", pair, problem="not understood", valid=valid)
        columns[meaning] = name
    return columns


def make_row(key: str, values: Mapping[str, Any], found: Found) -> Row:
    """The row of one record: `values` by column, as the file spells them.

    Where there is a column of images, a row's URL is only its origin, even if its image is absent.
    """
    image = _first(found, "image", values, image_bytes)
    url = _first(found, "url", values, text)
    scores = {}
    for name in SCORES:
        given = [number(values.get(column)) for column in found.get(name, ())]
        known = [value for value in given if value is not None]
        if known:
            scores[name] = max(known) if name == "nsfw" else known[0]
    return Row(
        key=key,
        url=None if "image" in found else url,
        caption=_first(found, "caption", values, text) or "",
        width=_first(found, "width", values, whole_number),
        height=_first(found, "height", values, whole_number),
        phash=_first(found, "phash", values, hash_digits),
        scores=scores,
        image=image,
        origin=url if "image" in found else None,
    )


def unreadable(key: str) -> Row:
    """The row of a record that cannot be read: neither URL nor image, so it ends in no_url."""
    return Row(key=key, url=None, caption="")


def text(value: Any) -> str | None:
    """Text without white space around, always valid Unicode; None where there is none."""
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
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        cast = float(value)
    except (ValueError, OverflowError):
        return None
    return cast if math.isfinite(cast) else None


def whole_number(value: Any) -> int | None:
    """A whole number of at least 1; None for anything else (0 means unknown in several sets)."""
    cast = number(value)
    return int(cast) if cast is not None and cast >= 1 else None


def hash_digits(value: Any) -> str | None:
    """A 64-bit hash as 16 lower-case hex digits, from such digits or from an integer."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value % 2**64:016x}"
    digits = (text(value) or "").lower()
    return digits if re.fullmatch(r"[0-9a-f]{16}", digits) else None


def image_bytes(value: Any) -> bytes | None:
    """An encoded image: bytes, or the hub's {"bytes": ..., "path": ...}, whose path is ignored."""
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return value or None if isinstance(value, bytes) else None


def _first(found: Found, meaning: str, values: Mapping[str, Any], cast: Any) -> Any:
    for column in found.get(meaning, ()):
        value = cast(values.get(column))
        if value is not None:
            return value
    return None


def _spelling(name: str, existing: Sequence[str]) -> str | None:
    """How a file spells a name: exactly so, else the first that differs by case alone."""
    if name in existing:
        return name
    return next((have for have in existing if have.lower() == name.lower()), None)
