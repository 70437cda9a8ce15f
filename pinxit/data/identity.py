"""What decides the content of what is made from a source, as plain JSON: equal or not the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pinxit.data.row import Source


def plain(value: Any) -> Any:
    """A setting as JSON has it, the same in every process (sets have no order of their own)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain(inner) for inner in value)
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def source_identity(source: Source) -> dict[str, Any]:
    """Name and revision, and what decides the rows' keys."""
    identity = {"name": source.name, "revision": source.revision}
    for name in ("unit_rows", "columns"):
        if hasattr(source, name):
            identity |= {name: plain(getattr(source, name))}
    return identity


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Each setting that is not the same: "filters.min_side (was 256, is 512)"."""
    before, after = _flat(old), _flat(new)
    return [
        f"{name} (was {before.get(name)!r}, is {after.get(name)!r})"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name to value, for nested mappings."""
    if not isinstance(value, Mapping):
        return {prefix.rstrip("."): value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flat(inner, f"{prefix}{name}.")
    return flat
