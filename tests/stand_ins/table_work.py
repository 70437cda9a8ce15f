"""Reads units of a table in workers, which import it by name."""

from __future__ import annotations

from typing import Any


class ReadUnit:
    """Returns the captions of a unit."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __call__(self, unit: Any) -> list[str]:
        return [row.caption for row in self.source.read(unit)]
