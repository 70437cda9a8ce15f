"""Filters: which rows are worth fetching, by what the source says of them.

Each filter has one setting (None is off) and one status, and every row is counted under the first
filter that it fails, in the order of `REASONS`. The defaults are a judgement, to be measured on the
histograms: sides of at least 256, at most twice as long as high, watermark below 0.5, both NSFW
scores below 0.2, aesthetic score (LAION's second version) at least 4.75, CLIP similarity (ViT-L/14)
at least 0.22, three words, one row per perceptual hash.

Duplicates have state. Within a unit the first row that passes everything else is kept, always and
whatever else happens. Between units a `Filter` knows nothing, because units are read by many
workers in any order; who wants one row per hash in the whole set makes a list of the others first
(find_duplicates.py) and names it in `duplicates`. The price of either: when the row that was kept
turns out to have a dead link, its duplicates are gone with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from pinxit.config import UsageError, choice, positive
from pinxit.data.filters.histograms import Histograms, measure_row
from pinxit.data.row import Row, unusable
from pinxit.data.url_host import host_of

MISSING = ("keep", "drop")


@runtime_checkable
class Duplicates(Protocol):
    """The rows to drop because another one is the same: a `DuplicateList`, or `NoDuplicates`."""

    @property
    def sha256(self) -> str | None:
        """The hash of the list; None where there is no list."""
        ...

    def get(self, key: str, /) -> str | None:
        """The status that the row with this key ends with; None where it is kept."""
        ...


class NoDuplicates:
    """Stands for a list where none was made: no row is known to be a duplicate."""

    sha256: str | None = None

    def get(self, key: str, /) -> str | None:
        """None, for every row."""
        return None


@dataclass(frozen=True)
class FilterConfig:
    """Which rows are kept."""

    min_side: int | None = 256
    """Pixels of the shorter side, at least."""
    max_aspect: float | None = 2.0
    """Longer side by shorter side, at most."""
    max_watermark: float | None = 0.5
    """Probability of a watermark, below this."""
    max_nsfw: float | None = 0.2
    """Probability of being unsafe for work (the larger of several scores), below this."""
    min_aesthetic: float | None = 4.75
    """Aesthetic score, at least. COYO's is version 2 of LAION's predictor (mean 4.77); LAION's own
    sets have version 1, whose figures do not compare."""
    min_clip_similarity: float | None = 0.22
    """Cosine between caption and image, at least. COYO's is of CLIP ViT-L/14 (mean 0.25); other
    sets have ViT-B/32, whose figures are higher (COYO's mean of it is 0.29)."""
    min_words: int | None = 3
    """Words of the caption, at least."""
    max_characters: int | None = None
    """Characters of the caption, at most."""
    unique_phash: bool = True
    """One row per perceptual hash."""
    unique_url: bool = True
    """One row per URL."""
    duplicates: str | None = None
    """A list that `pinxit prepare SOURCE --find_duplicates FILE` wrote: one row per hash and URL in
    the whole set; none: in each unit of work."""
    blocked_domains: tuple[str, ...] = ()
    """Domains whose images are not wanted; "example.com" means www.example.com too."""
    missing: Literal["keep", "drop"] = "keep"
    """What becomes of a row that lacks a figure which a filter needs."""

    def __post_init__(self) -> None:
        choice("missing", self.missing, MISSING)
        for name in ("min_side", "max_aspect", "max_characters"):
            positive(name, getattr(self, name))
        positive("min_words", self.min_words, minimum=0)
        for name in ("max_watermark", "max_nsfw"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise UsageError(name, value, problem="no probability", valid="above 0, to 1")
        for domain in self.blocked_domains:
            if not domain.strip(".") or any(mark in domain for mark in "/:@ "):
                raise UsageError(
                    "blocked_domains", domain, problem="no domain", valid="such as example.com"
                )

    def thresholds(self) -> dict[str, float]:
        """Figure (of histograms.py) to the limit that is set on it, for drawing."""
        limits = {
            "side": self.min_side,
            "aspect": self.max_aspect,
            "watermark": self.max_watermark,
            "nsfw": self.max_nsfw,
            "aesthetic": self.min_aesthetic,
            "clip_similarity": self.min_clip_similarity,
            "words": self.min_words,
            "characters": self.max_characters,
        }
        return {name: float(limit) for name, limit in limits.items() if limit is not None}


REASONS = (
    "no_url",
    *("filtered_side", "filtered_aspect", "filtered_watermark", "filtered_nsfw"),
    *("filtered_aesthetic", "filtered_clip_similarity", "filtered_words", "filtered_characters"),
    *("filtered_missing", "filtered_domain", "filtered_url", "filtered_phash"),
)
"""The statuses that `Filter.check` gives, in the order of the checks."""


class Filter:
    """The filters of a config over the rows of one unit, in their order."""

    def __init__(self, config: FilterConfig, *, duplicates: Duplicates | None = None) -> None:
        """`duplicates`: keys of rows to drop with their statuses, see duplicates.py."""
        self.config = config
        self.counts: Counter[str] = Counter()
        """Rows by status: "ok" and `REASONS`."""
        self.missing: Counter[str] = Counter()
        """Rows by figure that a filter needed and they lack; all of them, dropped or kept."""
        self.histograms = Histograms()
        """The figures of all rows, before any is dropped."""
        self._thresholds = config.thresholds()
        self._duplicates: Duplicates = NoDuplicates() if duplicates is None else duplicates
        self._urls: set[str] = set()
        self._hashes: set[str] = set()
        self._blocked = frozenset(domain.strip(".").lower() for domain in config.blocked_domains)

    def check(self, row: Row) -> str | None:
        """None where the row is kept, otherwise the status that says why not."""
        figures = measure_row(row)
        self.histograms.add(figures)
        reason = self.alone(row, figures) or self._seen(row)
        self.counts[reason or "ok"] += 1
        return reason

    def alone(self, row: Row, figures: Mapping[str, float] | None = None) -> str | None:
        """As `check`, of this row alone: without duplicates, and without counting it."""
        if unusable(row) == "no_url":
            return "no_url"
        return self._figures(measure_row(row) if figures is None else figures) or self._domain(row)

    def _figures(self, figures: Mapping[str, float]) -> str | None:
        """The first figure beyond its limit; a missing one comes after all that are known."""
        lacking = []
        found = None
        for name, limit in self._thresholds.items():
            value = figures.get(name)
            if value is None:
                lacking.append(name)
            elif found is None and _beyond(name, value, limit):
                found = f"filtered_{name}"
        self.missing.update(lacking)
        return found or ("filtered_missing" if lacking and self.config.missing == "drop" else None)

    def _domain(self, row: Row) -> str | None:
        if not self._blocked:
            return None
        labels = host_of(row.url or row.origin).split(".")
        ends = {".".join(labels[start:]) for start in range(len(labels))}
        return "filtered_domain" if ends & self._blocked else None

    def _seen(self, row: Row) -> str | None:
        """Last of all: only a row that is kept makes others duplicates."""
        url = (row.url or row.origin) if self.config.unique_url else None
        phash = row.phash if self.config.unique_phash else None
        if url is not None and url in self._urls:
            return "filtered_url"
        if phash is not None and phash in self._hashes:
            return "filtered_phash"
        if (listed := self._duplicates.get(row.key)) is not None:
            return listed
        self._urls |= {url} if url is not None else set()
        self._hashes |= {phash} if phash is not None else set()
        return None


def _beyond(name: str, value: float, limit: float) -> bool:
    if name in ("watermark", "nsfw"):
        return value >= limit
    return value > limit if name in ("aspect", "characters") else value < limit
