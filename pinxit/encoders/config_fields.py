"""Reads the fields of an encoder's config.json: each of the right type and in the right range.

A wrong field is one line when the encoder is loaded, before any weights are read: the file, the
field, its value and what it must be. Otherwise it would surface as an exception deep in a network,
or as latents of the wrong scale.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pinxit.config import SENTENCE, UsageError, hints, misfit, typed


def known_fields(cls: type, value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of the dataclass `cls` that a config.json sets, in their types.

    Absent and null fields are left out, and so are those that the class does not have. Raises
    `UsageError` for a value of another type.
    """
    kinds = hints(cls)
    fields = {name: value[name] for name in kinds if value.get(name) is not None}
    for name, entry in fields.items():
        if expected := misfit(kinds[name], entry):
            raise UsageError(f"{name} is {entry!r}; it must be {expected}")
        if expected := _misfit_inside(kinds[name], entry):
            raise UsageError(f"{name} is {entry!r}; each entry must be {expected}")
    return typed(cls, fields)


def _misfit_inside(hint: Any, value: Any) -> str:
    """Returns the kind that an entry of a list must have, if one has another kind, else ""."""
    if typing.get_origin(hint) is not tuple:
        return ""
    kind = typing.get_args(hint)[0]
    wrong = (misfit(kind, item) or _misfit_inside(kind, item) for item in value)
    return next(filter(None, wrong), "")


def finite_positive(name: str, value: float) -> None:
    """Raises `UsageError` unless a number of a config is finite and more than 0."""
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{name} is {value}; it must be more than 0, and finite")


def object_in(value: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Returns a nested object of a config.json, or None if it is absent or null."""
    part = value.get(name)
    if part is not None and not isinstance(part, Mapping):
        raise UsageError(f"{name} is {part!r}; it must be an object")
    return part


@contextmanager
def naming(directory: str | Path, *, subfolder: str = "") -> Iterator[None]:
    """Puts the path of the directory's config.json in front of a `UsageError` raised inside.

    Errors about a setting of the user, such as max_tokens, are raised as they are.
    """
    try:
        yield
    except UsageError as error:
        if error.value is not SENTENCE:
            raise
        path = Path(directory) / subfolder / "config.json"
        raise UsageError(f"{path}: {error}") from error
