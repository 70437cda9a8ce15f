"""The figures of a preparation as plain data, for its HTML report and for the studio.

Each score has a histogram, with the limit of its filter and the number of rows on each side of the
limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pinxit.data.filters.histograms import Histogram, Histograms
from pinxit.data.filters.row_filter import FilterConfig
from pinxit.data.outcome import can_heal, is_dropped
from pinxit.data.prepared.manifest import Manifest

TITLES = {
    "watermark": "watermark (probability)",
    "nsfw": "NSFW (probability)",
    "aesthetic": "aesthetic score",
    "clip_similarity": "CLIP similarity",
    "side": "shorter side (pixels)",
    "aspect": "aspect ratio",
    "words": "words",
    "characters": "characters",
}
"""Titles of the figures whose values are counted in histograms."""
BELOW = ("watermark", "nsfw")
"""The figures that must be below their limit. An equal value is rejected."""
UP_TO = ("aspect", "characters")
"""The figures that may be at most their limit."""


@dataclass(frozen=True)
class ScoreFigures:
    """The histogram of one score, with its limit."""

    name: str
    title: str
    edges: list[float]
    """The edges of the bins, one more than there are counts."""
    counts: list[int]
    missing: int
    """The number of rows that lack the score."""
    limit: float | None
    keeps: str
    """The side of the limit that is kept: "above" or "below"."""
    passed: int
    """The number of rows on the kept side of the limit."""
    rejected: int
    """The number of rows on the other side of the limit."""
    is_exact: bool
    """Whether both numbers are exact. They are estimates if the limit lies inside a bin."""


def summary_line(
    counts: Mapping[str, int], identity: Mapping[str, Any], *, units: int, seconds: float
) -> str:
    """Describes a preparation in a few sentences: its source, its rows and its work."""
    source, total, images = identity.get("source", {}), sum(counts.values()), counts.get("ok", 0)
    text = f"Source {source.get('name')}, revision {source.get('revision')}: "
    text += f"{total:,} rows in {units:,} units, {images:,} images kept"
    if total:
        text += f" ({images / total:.1%} of the rows)"
    tried = sum(n for status, n in counts.items() if not is_dropped(status))
    if tried:
        text += f", which are {images / tried:.1%} of the {tried:,} that passed the filters"
    healable = sum(n for status, n in counts.items() if can_heal(status))
    if healable:
        text += f". {healable:,} rows failed for a reason that may be temporary (--retry_failed 1)"
    return f"{text}. {seconds:,.0f} seconds of work."


def score_figures(histograms: Histograms, filters: FilterConfig) -> list[ScoreFigures]:
    """Returns the figures of each score that rows have."""
    limits = filters.thresholds()
    known = [one for one in histograms.by_name.values() if one.counts.any()]
    return [_score(one, limits.get(one.name)) for one in known]


def _score(histogram: Histogram, limit: float | None) -> ScoreFigures:
    name, counts = histogram.name, [int(count) for count in histogram.counts]
    keeps = "below" if name in (*BELOW, *UP_TO) else "above"
    total = sum(counts)
    below, is_exact = (total, True) if limit is None else _rows_below(histogram, limit)
    if name in UP_TO:  # rows that are equal to the limit are kept, and are in the next bin
        is_exact = limit is None
    passed = below if keeps == "below" or limit is None else total - below
    return ScoreFigures(
        name=name,
        title=TITLES[name],
        edges=[round(float(edge), 6) for edge in histogram.edges],
        counts=counts,
        missing=histogram.missing,
        limit=limit,
        keeps=keeps,
        passed=passed,
        rejected=total - passed,
        is_exact=is_exact,
    )


def _rows_below(histogram: Histogram, limit: float) -> tuple[int, bool]:
    """Returns the number of rows below a limit, and whether it is exact.

    The rows of the bin in which the limit lies are divided in proportion.
    """
    edges = histogram.edges
    width = float(edges[1] - edges[0])
    place = (limit - float(edges[0])) / width
    nearest = round(place)
    if math.isclose(place, nearest, abs_tol=1e-6) and 0 <= nearest <= len(histogram.counts):
        at_end = nearest in (0, len(histogram.counts))  # values outside count in the end bins
        return int(histogram.counts[:nearest].sum()), not at_end
    number = min(max(math.floor(place), 0), len(histogram.counts) - 1)
    share = min(max(place - number, 0.0), 1.0)
    below = int(histogram.counts[:number].sum()) + round(share * int(histogram.counts[number]))
    return below, False


def size_figures(manifest: Manifest) -> dict[str, int]:
    """Returns the bytes of each folder of a finished dataset."""
    return {name: manifest.bytes(name) for name in manifest.files}


def latent_figures(manifest: Manifest) -> dict[str, Any] | None:
    """Returns the number of latents and the statistics of their channels, or None without any."""
    if manifest.latents is None:
        return None
    about = manifest.latents
    return {name: about[name] for name in ("count", "not_finite", "mean", "std")}
