"""Adds up the commit records of the first stage: rows by status, scores, examples and images.

The records of a large dataset take much more memory than these sums, so they are read one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pinxit.data.filters.histograms import Histograms
from pinxit.prepare.ledger import UnitRecord


@dataclass
class ImageTotals:
    """The sums over units. They do not depend on the order in which the units are added."""

    units: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    """Number of rows by status."""
    histograms: Histograms = field(default_factory=Histograms)
    shards: dict[str, str] = field(default_factory=dict)
    """The name of the shard of each unit that has images."""
    enlarged: int = 0
    """Number of kept images that were enlarged."""
    _enlarged: tuple[str, str] | None = None
    _examples: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, record: UnitRecord) -> None:
        """Adds a unit."""
        self.units += 1
        self.seconds += record.seconds
        self.counts.update(record.counts)
        if (stored := record.measured.get("histograms")) is not None:
            self.histograms.merge_json(stored)
        if (shard := record.files.get("images")) is not None:
            self.shards[record.unit] = shard.name
        enlarged = record.measured.get("enlarged", {})
        if rows := enlarged.get("rows", 0):
            self.enlarged += rows
            example = (record.unit, enlarged["example"])
            self._enlarged = min(self._enlarged or example, example)
        for status, name in record.measured.get("examples", {}).items():
            example = (record.unit, name)
            self._examples[status] = min(self._examples.get(status, example), example)

    @property
    def enlarged_example(self) -> str:
        """The name of the first image that was enlarged."""
        return self._enlarged[1] if self._enlarged else ""

    @property
    def examples(self) -> dict[str, str]:
        """The name of the first row of each status. Units of older versions have none."""
        return {status: name for status, (_, name) in self._examples.items()}


def image_totals(records: Iterable[UnitRecord]) -> ImageTotals:
    """Returns the sums over these records."""
    totals = ImageTotals()
    for record in records:
        totals.add(record)
    return totals
