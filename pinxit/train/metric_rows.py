"""Rows of metrics as JSON lines: which are valid, and how to read those."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pinxit.files import whole


def wrong_row(row: Any) -> str:
    """Returns why a value of JSON is not a row of metrics ("has no step"), or "" if it is one."""
    if not isinstance(row, dict):
        return f"is {json.dumps(row)[:40]}, not a row"
    if "step" not in row:
        return "has no step"
    step = row["step"]
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        return f"has the step {json.dumps(step)[:40]}, not a whole number"
    loss = row.get("loss")
    if loss is not None and (not isinstance(loss, int | float) or isinstance(loss, bool)):
        return f"has the loss {json.dumps(loss)[:40]}, not a number"
    return ""


def row_in(line: str) -> dict[str, Any] | None:
    """Returns the row in a line, or None if the line is damaged or has no row."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return None if wrong_row(row) else row


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads the valid rows of a metrics file. Skips lines that are damaged, or incomplete because a
    process was killed."""
    rows: list[dict[str, Any]] = []
    if not path.is_file():
        return rows
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if (row := row_in(line)) is not None:
            rows.append(row)
    return rows


def rows_until(
    path: Path, step: int, unwritten: Iterable[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Returns the rows up to `step`, and those of a checkpoint that were `unwritten` then, unless
    they are there."""
    rows = [row for row in read_rows(path) if row["step"] <= step]
    known = set(map(json.dumps, rows))
    return rows + [dict(row) for row in unwritten if json.dumps(row) not in known]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a metrics file with these rows atomically."""
    with whole(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
