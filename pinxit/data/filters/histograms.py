"""Counts the figures of rows (scores, sizes, caption lengths) in histograms with fixed bins.

Every unit has its own histograms, and the report adds them up. All rows are counted, not a sample,
and no row is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pinxit.config import UsageError
from pinxit.data.filters.word_count import count_words
from pinxit.data.row import Row

BINS: dict[str, tuple[float, float, int]] = {
    "watermark": (0.0, 1.0, 50),
    "nsfw": (0.0, 1.0, 50),
    "aesthetic": (0.0, 10.0, 50),
    "clip_similarity": (0.0, 0.5, 50),
    "side": (0.0, 2048.0, 64),
    "aspect": (1.0, 5.0, 40),
    "words": (0.0, 64.0, 64),
    "characters": (0.0, 512.0, 64),
}
"""Figure to (lowest, highest, number of bins); values outside count in the first or last bin."""


def measure_row(row: Row) -> dict[str, float]:
    """Returns the figures of `BINS` that are known for a row."""
    figures: dict[str, float] = {name: row.scores[name] for name in BINS if name in row.scores}
    if row.width is not None and row.height is not None:
        short, long = sorted((row.width, row.height))
        figures |= {"side": float(short), "aspect": long / short}
    figures |= {"words": float(count_words(row.caption)), "characters": float(len(row.caption))}
    return figures


class Histogram:
    """Counts the values of one figure in bins of equal width."""

    def __init__(self, name: str) -> None:
        """Starts with no values; raises ValueError if `BINS` does not contain the figure."""
        if name not in BINS:
            raise ValueError(f"name: {name!r} is not a figure; valid: {', '.join(BINS)}")
        self.name = name
        self.counts: Int[np.ndarray, " n"] = np.zeros(BINS[name][2], np.int64)
        self.missing = 0
        """Number of rows that lack the figure."""

    @property
    def edges(self) -> Float[np.ndarray, " m"]:
        """The edges of the bins, one more than there are bins."""
        low, high, bins = BINS[self.name]
        return np.linspace(low, high, bins + 1)

    def add(self, value: float | None) -> None:
        """Counts the value of one row, or None if the row lacks it."""
        if value is None:
            self.missing += 1
            return
        low, high, bins = BINS[self.name]
        self.counts[min(max(int((value - low) / (high - low) * bins), 0), bins - 1)] += 1

    def merge(self, other: Histogram) -> None:
        """Adds the counts of a histogram of other rows."""
        if other.name != self.name:
            raise ValueError(f"a histogram of {other.name} cannot be added to one of {self.name}")
        self.counts += other.counts
        self.missing += other.missing


class Histograms:
    """Holds one `Histogram` for each figure."""

    def __init__(self) -> None:
        self.by_name = {name: Histogram(name) for name in BINS}

    def add(self, figures: Mapping[str, float]) -> None:
        """Counts one row by its figures (see `measure_row`)."""
        for name, histogram in self.by_name.items():
            histogram.add(figures.get(name))

    def merge(self, other: Histograms) -> None:
        """Adds the counts of histograms of other rows."""
        for name, histogram in self.by_name.items():
            histogram.merge(other.by_name[name])

    def merge_json(self, data: Mapping[str, Any]) -> None:
        """Adds the result of `to_json`; raises `UsageError` if its bins differ from `BINS`."""
        for name, histogram in self.by_name.items():
            stored = data.get(name)
            if stored is None:
                continue
            if len(stored["counts"]) != BINS[name][2] or list(stored["range"]) != [*BINS[name][:2]]:
                raise UsageError(f"histogram {name!r} has other bins than this version of Pinxit")
            histogram.counts += np.asarray(stored["counts"], np.int64)
            histogram.missing += int(stored["missing"])

    def to_json(self) -> dict[str, Any]:
        """Returns, for each figure, its range, its counts and the number of rows that lack it."""
        return {
            name: {
                "range": list(BINS[name][:2]),
                "counts": histogram.counts.tolist(),
                "missing": histogram.missing,
            }
            for name, histogram in self.by_name.items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Histograms:
        """Reads the result of `to_json`; raises `UsageError` if its bins differ from `BINS`."""
        histograms = cls()
        histograms.merge_json(data)
        return histograms

    @classmethod
    def total(cls, parts: Iterable[Histograms]) -> Histograms:
        """Returns the sum of the parts."""
        total = cls()
        for part in parts:
            total.merge(part)
        return total
