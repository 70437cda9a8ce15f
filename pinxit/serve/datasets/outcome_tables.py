"""Reads the outcomes of a unit's rows for the studio: one row by its key, or those that match.

A file is read piece by piece, so that memory does not grow with the size of a unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinxit.data.prepared.shards import DamagedShard, ShardInfo
from pinxit.data.row import SCORES

COLUMNS = ("key", "name", "url", "status", "detail")
PIECE = 4_096
"""The number of rows that are in memory at a time."""
LONGEST = 2_000
"""The longest text of a row that is passed on, in characters."""


@dataclass(frozen=True)
class RowFilter:
    """Conditions that a row must meet."""

    outcome: str = ""
    """A status, "rejected" for all but ok, or empty for any."""
    text: str = ""
    """A text that the key, the name, the URL or the detail contains, in any case."""

    def accepts_status(self, status: str) -> bool:
        """Returns whether rows of this status may match."""
        if self.outcome == "rejected":
            return status != "ok"
        return not self.outcome or status == self.outcome

    def accepts(self, row: dict[str, Any]) -> bool:
        """Returns whether a row matches."""
        if not self.accepts_status(row["status"]):
            return False
        text = self.text.casefold()
        return not text or any(text in (row[name] or "").casefold() for name in COLUMNS)


def outcome_rows(path: Path, info: ShardInfo, *, start: int = 0) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of a unit in pieces, from the row number `start` on.

    Raises `DamagedShard` if the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_size(path, info)
    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in (*COLUMNS, *SCORES) if name in file.schema_arrow.names]
            first = 0
            for number in range(file.num_row_groups):
                count = file.metadata.row_group(number).num_rows
                if first + count > start:
                    for batch in file.iter_batches(PIECE, row_groups=[number], columns=names):
                        if first + len(batch) > start:
                            yield batch.slice(max(0, start - first)).to_pylist()
                        first += len(batch)
                else:
                    first += count
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DamagedShard(f"{path.name} cannot be read: {' '.join(str(error).split())}") from error


def find_row(path: Path, info: ShardInfo, key: str) -> dict[str, Any] | None:
    """Returns the row with this key, or None.

    A key ends with the number of its row, where the row is looked for first.
    """
    digits = key.rpartition("/")[2]
    start = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 8 else 0
    for begin in (start, 0) if start else (0,):
        for piece in outcome_rows(path, info, start=begin):
            for row in piece:
                if row["key"] == key:
                    return plain_row(row)
            if begin:
                break
    return None


def plain_row(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row as it is shown: with texts of a bounded length, and its scores together."""
    shown = {name: _cut(row.get(name)) for name in COLUMNS}
    scores = {name: row[name] for name in SCORES if row.get(name) is not None}
    return {**shown, "scores": {name: round(value, 4) for name, value in scores.items()}}


def _cut(text: str | None) -> str | None:
    """Returns a text without its end if it is too long."""
    return text if text is None or len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _check_size(path: Path, info: ShardInfo) -> None:
    """Raises `DamagedShard` unless the file has its size."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DamagedShard(f"{path.name} is missing") from error
    if size != info.bytes:
        raise DamagedShard(f"{path.name} has {size} bytes instead of {info.bytes}")
