"""The metrics of the steps since the last row, which stay on the device until a row is due.

A step's metrics are small arrays whose values the host does not need immediately. Fetching them in
every step would make the device wait. The window is part of the checkpoint, so that a resumed run
writes the same rows as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

LAST = ("skipped", "consecutive", "loss_scale")
"""Names of counters. A row contains their last value, not a mean."""


class Window:
    """The metrics of the steps since the last row."""

    def __init__(self, steps: Sequence[Mapping[str, Any]] = ()) -> None:
        self._steps: list[Mapping[str, Any]] = list(steps)

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Adds one step's metrics, which stay on the device."""
        self._steps.append(metrics)

    def fetch(self) -> list[dict[str, Any]]:
        """Returns the steps' metrics as plain numbers and lists. Waits for the device."""
        self._steps = [
            {name: np.asarray(value).tolist() for name, value in step.items()}
            for step in jax.device_get(self._steps)
        ]
        return [dict(step) for step in self._steps]

    def row(self) -> dict[str, Any]:
        """Returns means over the finite steps and last values of counters, and empties the
        window."""
        steps = self.fetch()
        self._steps = []
        row: dict[str, Any] = {}
        for name in steps[0] if steps else ():
            if name in LAST:
                row[name] = steps[-1][name]
                continue
            values = [step[name] for step in steps if step["consecutive"] == 0]
            row[name] = _combine(values)
        row["worst_streak"] = max((step["consecutive"] for step in steps), default=0)
        return _by_time(row)


def _combine(values: list[Any]) -> Any:
    """Returns the mean of scalars or the sum of histograms, or None if there are no values."""
    if not values:
        return None
    if isinstance(values[0], list):
        return np.sum(np.asarray(values, np.float64), 0).tolist()
    return math.fsum(values) / len(values)


def _by_time(row: dict[str, Any]) -> dict[str, Any]:
    """Replaces each pair ``x_sum``, ``x_count`` by the quotient ``x``, which is None in empty
    bins."""
    names = [key.removesuffix("_sum") for key in row if key.endswith("_sum")]
    for name in [name for name in names if f"{name}_count" in row]:
        sums, counts = row.pop(f"{name}_sum"), row.pop(f"{name}_count")
        if sums is not None:
            pairs = zip(sums, counts, strict=True)
            row[name] = [total / count if count else None for total, count in pairs]
    return row
