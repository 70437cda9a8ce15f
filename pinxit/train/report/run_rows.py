"""Rows of metrics as curves for a page: flat, finite, and thinned without losing their extremes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_POINTS = 2_000
"""Number of points of a curve, above which it is thinned."""
NOT_CURVES = ("step", "images", "warnings")
"""Entries of a row that are its position, or no number."""


@dataclass
class RowPlaces:
    """Finds the position of each row of a run: step, training time and images.

    Training time adds up the measured seconds per step, so that it has no pauses and no jumps where
    the run was resumed.
    """

    batch_size: int
    newest: dict[str, Any] | None = None
    """The newest row: step, seconds, images, and `values` by name."""
    warnings: list[dict[str, Any]] = field(default_factory=list)
    """The findings that the rows contain."""
    _pace: float = 0.0

    def placed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the next row of metrics.jsonl with its position, as `newest`."""
        before = self.newest or {"step": 0, "seconds": 0.0}
        values = flat(row)
        if (pace := values.get("seconds_per_step")) is not None:
            self._pace = pace
        seconds = before["seconds"] + self._pace * max(0, row["step"] - before["step"])
        images = row.get("images")
        if not isinstance(images, int):
            images = row["step"] * self.batch_size
        findings = [one for one in row.get("warnings") or () if isinstance(one, Mapping)]
        self.warnings += map(dict, findings)
        self.newest = {
            "step": row["step"],
            "seconds": round(seconds, 3),
            "images": images,
            "values": values,
            **({"warnings": findings} if findings else {}),
        }
        return self.newest


@dataclass
class RunRows(RowPlaces):
    """Holds all rows of a run in order, with the position of each."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """The rows: step, seconds, images, and `values` by name."""

    def add(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Adds rows of metrics.jsonl, and returns them in their new form."""
        added = [self.placed(row) for row in rows]
        self.rows += added
        return added

    @property
    def steps_by_name(self) -> dict[str, int]:
        """The number of different steps of each value, by name in the order of the first row."""
        steps: dict[str, set[int]] = {}
        for row in self.rows:
            for name in row["values"]:
                steps.setdefault(name, set()).add(row["step"])
        return {name: len(known) for name, known in steps.items()}

    def curves(
        self, *, start: int = 0, end: int | None = None, most: int = MOST_POINTS
    ) -> dict[str, Any]:
        """Returns the curves between two steps: `axis` has the positions of the rows in use, and
        `curves` the values by name, with the numbers `at` of their positions."""
        last = math.inf if end is None else end
        rows = [row for row in self.rows if start <= row["step"] <= last]
        indices_of: dict[str, list[int]] = {}
        for name in dict.fromkeys(name for row in rows for name in row["values"]):
            present = [i for i, row in enumerate(rows) if name in row["values"]]
            indices_of[name] = thinned(present, [rows[i]["values"][name] for i in present], most)
        used = sorted({i for indices in indices_of.values() for i in indices})
        number = {i: n for n, i in enumerate(used)}
        axis = {key: [rows[i][key] for i in used] for key in ("step", "seconds", "images")}
        curves = {
            name: {
                "at": [number[i] for i in indices],
                "values": [rows[i]["values"][name] for i in indices],
            }
            for name, indices in indices_of.items()
        }
        return {"axis": axis, "curves": curves, "thinned": len(used) < len(rows)}

    def profiles(self, name: str = "loss_by_t", most: int = 5) -> list[dict[str, Any]]:
        """Returns a list of values over t for a few rows from the first to the newest."""
        first = f"{name}/0"
        rows = [row for row in self.rows if first in row["values"]]
        count = min(most, len(rows))
        chosen = [rows[i * (len(rows) - 1) // max(1, count - 1)] for i in range(count)]
        return [
            {"step": row["step"], "values": profile}
            for row in chosen
            if (profile := listed(row["values"], name))
        ]

    def latest(self, name: str) -> float | None:
        """Returns the newest value of a name, if there is one."""
        values = (row["values"].get(name) for row in reversed(self.rows))
        return next((value for value in values if value is not None), None)

    def measured(self) -> tuple[dict[str, float], int | None]:
        """Returns the newest values of the evaluators by name, and the step of the newest one."""
        newest: dict[str, float] = {}
        step = None
        for row in self.rows:
            if values := of_evaluators(row["values"]):
                newest |= values
                step = row["step"]
        return newest, step


def of_evaluators(values: Mapping[str, float | None]) -> dict[str, float]:
    """Returns the values of evaluators in a flat row: those with a group and no number."""
    return {
        name: value
        for name, value in values.items()
        if "/" in name and not name.rpartition("/")[2].isdigit() and value is not None
    }


def listed(values: Mapping[str, Any], name: str) -> list[float | None]:
    """Returns the entries ``name/0``, ``name/1`` … of a flat row as a list."""
    entries: list[float | None] = []
    while (key := f"{name}/{len(entries)}") in values:
        entries.append(values[key])
    return entries


def flat(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Returns the numbers of a row by name: ``name/0``, ``name/1`` … for a list. A value that is
    not finite is None."""
    values: dict[str, float | None] = {}
    for name, value in row.items():
        if name in NOT_CURVES:
            continue
        if isinstance(value, Sequence) and not isinstance(value, str):
            values |= {f"{name}/{i}": finite(entry) for i, entry in enumerate(value)}
        elif value is None or isinstance(value, int | float):
            values[name] = finite(value)
    return values


def finite(value: Any) -> float | None:
    """Returns a finite number unchanged, and None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 1e300 else None


def thinned(
    indices: Sequence[int], values: Sequence[float | None], most: int = MOST_POINTS
) -> list[int]:
    """Returns at most `most` of the indices: the first and the last one, and of each stretch
    between them those of the smallest and the largest value."""
    count = len(indices)
    if count <= most:
        return list(indices)
    pieces = max(1, (most - 2) // 2)
    chosen = {0, count - 1}
    for piece in range(pieces):
        stretch = range(piece * count // pieces, (piece + 1) * count // pieces)
        known = [(value, i) for i in stretch if (value := values[i]) is not None]
        if known:
            chosen |= {min(known)[1], max(known)[1]}
        elif len(stretch):
            chosen.add(stretch[0])
    return [indices[i] for i in sorted(chosen)]
