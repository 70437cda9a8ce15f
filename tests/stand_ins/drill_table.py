"""The table of drills: what was broken, how often, how often the run survived, and the evidence.

Each drill appends a row to the file that the variable PINXIT_DRILL_TABLE names, as a line of JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "PINXIT_DRILL_TABLE"
"""The environment variable with the path of the table."""


@dataclass(frozen=True)
class DrillRow:
    """The result of one drill."""

    drill: str
    """Name of the drill, such as "signals"."""
    fault: str
    """What was made to happen."""
    times: int
    """How often it was made to happen."""
    survived: int
    """How often the run ended as it should."""
    evidence: str
    """What was compared or measured, with its figures."""


def record(drill: str, fault: str, times: int, survived: int, evidence: str) -> None:
    """Appends a row to the table, if there is one."""
    if path := os.environ.get(VARIABLE):
        row = asdict(DrillRow(drill, fault, times, survived, evidence))
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def rows_of(path: Path) -> list[DrillRow]:
    """Returns the table's rows. Of several rows of one drill and fault, the last one counts."""
    rows: dict[tuple[str, str], DrillRow] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        row = DrillRow(**json.loads(line))
        rows[row.drill, row.fault] = row
    return [rows[key] for key in sorted(rows)]


def as_markdown(rows: Iterable[DrillRow]) -> str:
    """Returns the rows as a Markdown table."""
    lines = ["| drill | fault | times | survived | evidence |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.drill} | {row.fault} | {row.times} | {row.survived} | {row.evidence} |"
        for row in rows
    ]
    return "\n".join(lines)
