"""Checks the types of the columns that a parquet table is read from, before any row is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pinxit.config import UsageError
from pinxit.data.sources.columns import FieldColumns

if TYPE_CHECKING:
    from pyarrow import DataType, Schema

TEXTS = ("url", "caption")
"""The fields whose columns must hold text; all others hold numbers, hashes or images."""


def usable_columns(by_field: FieldColumns, schema: Schema, *, where: str) -> FieldColumns:
    """Returns the columns by field, without those of numbers that hold dates or nested values.

    Raises UsageError if a column of URLs or captions holds no text.
    """
    usable = {}
    for field, columns in by_field.items():
        for column in columns:
            kind = schema.field(column).type
            if field in TEXTS and not _holds_text(kind, several=field == "caption"):
                several = ", or lists of text" if field == "caption" else ""
                raise UsageError(
                    f"{where}: the column {column!r} ({field}) has the type "
                    f"{' '.join(str(kind).split())[:120]}; valid: text{several}. Name another "
                    f"column with --columns {field}=NAME"
                )
        plain_columns = [c for c in columns if field == "image" or _is_plain(schema.field(c).type)]
        usable[field] = columns if field in TEXTS else tuple(plain_columns)
    return {field: columns for field, columns in usable.items() if columns}


def holds_bytes(kind: DataType) -> bool:
    """Returns whether values of this type hold images: bytes, or the hub's structs with bytes."""
    from pyarrow import types

    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_binary(kind.field(index).type)
    return _is_binary(kind)


def _is_binary(kind: DataType) -> bool:
    from pyarrow import types

    return (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def _is_text(kind: DataType) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _stored(kind: DataType) -> DataType:
    """Returns the type of the values of a dictionary or an extension type."""
    import pyarrow
    from pyarrow import types

    if isinstance(kind, pyarrow.BaseExtensionType):
        return _stored(kind.storage_type)
    return _stored(kind.value_type) if types.is_dictionary(kind) else kind


def _is_plain(kind: DataType) -> bool:
    """Returns whether values of this type are texts, numbers, truth values or null."""
    from pyarrow import types

    kind = _stored(kind)
    return (
        _is_text(kind)
        or _is_binary(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
    )


def _holds_text(kind: DataType, *, several: bool) -> bool:
    """Returns whether values of this type are texts or numbers, or with `several` lists of them."""
    from pyarrow import types

    kind = _stored(kind)
    is_list = (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )
    if is_list:
        return several and _holds_text(kind.value_type, several=False)
    return _is_plain(kind) and not (types.is_decimal(kind) or types.is_boolean(kind))
