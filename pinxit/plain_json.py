"""Converts values from any code to plain JSON values.

Metrics, results and records gather values from evaluators, extensions, feeds and watchers. Some of
them are NumPy or JAX scalars, which `json` cannot write. The functions that write JSON call
`plain_values` first, so that no caller has to.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

PLAIN = frozenset({type(None), bool, int, float, str})
"""The types of JSON's own values, of which most others consist."""


def plain_values(value: Any) -> Any:
    """Returns a value as plain JSON values, at any depth.

    Scalars and arrays of NumPy and JAX become numbers and lists, paths become text, and sets become
    sorted lists, so that the result is the same in every process. Keys become text. NaN and values
    of other types stay as they are.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): plain_values(inner) for name, inner in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain_values(inner) for inner in value)
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return _number(value.tolist())
    return value


def _number(value: Any) -> Any:
    """Returns the result of `tolist` with Python numbers: bfloat16 stays an extension type."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    return float(value) if hasattr(value, "dtype") else value
