"""Filters rows by the metadata of their source, before anything is fetched.

Each filter has one setting (None turns it off) and one status. A row counts under the first filter
that it fails, in the order of `REASONS`. The defaults for tables of the web are a judgement; check
them against the histograms: sides of at least the size that images are scaled to, an aspect ratio
of at most 2, watermark below 0.5, both NSFW scores below 0.2, aesthetic score (version 2 of LAION's
predictor) at least 4.75, CLIP similarity (ViT-L/14) at least 0.22, three words, one row per
perceptual hash and URL. They are off where the images are one's own
(`pinxit.data.filters.resolve`).

Filtering duplicates needs state. Within a unit, the first row that passes all other filters is
kept. A `Filter` does not see other units, because many workers read units in any order. To keep
one row per hash in the whole dataset, first make a list of the duplicates
(`pinxit.prepare.find_duplicates`) and name it in `FilterConfig.duplicates`. Both ways have a cost:
if the link of the kept row turns out to be dead, its duplicates are lost with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from pinxit.config import UsageError, choice, positive
from pinxit.data.filters.histograms import Histograms, measure_row
from pinxit.data.html_ampersands import without_entities
from pinxit.data.images.image_config import AUTO
from pinxit.data.row import Row, unusable
from pinxit.data.url_host import host_of

MISSING = ("keep", "drop")
"""Values of `FilterConfig.missing`."""
WEB_LIMITS: dict[str, float] = {
    "min_side": 256,
    "max_aspect": 2.0,
    "max_watermark": 0.5,
    "max_nsfw": 0.2,
    "min_aesthetic": 4.75,
    "min_clip_similarity": 0.22,
    "min_words": 3,
}
"""The settings whose default depends on the source, and their values for tables of the web.
"min_side" is the one for images of 256 pixels."""


@runtime_checkable
class Duplicates(Protocol):
    """Tells which rows are duplicates of other rows: a `DuplicateList` or `NoDuplicates`."""

    @property
    def sha256(self) -> str | None:
        """The hash of the list, or None if there is no list."""
        ...

    def get(self, key: str, /) -> str | None:
        """Returns the status of the row with this key if it is a duplicate, otherwise None."""
        ...


class NoDuplicates:
    """Replaces the list if there is none: no row counts as a duplicate."""

    sha256: str | None = None

    def get(self, key: str, /) -> str | None:
        """Returns None for every row."""
        return None


@dataclass(frozen=True)
class FilterConfig:
    """Settings for which rows are kept."""

    min_side: int | Literal["auto"] | None = "auto"
    """Smallest shorter side, in pixels, as stated and of the image itself. auto means the side that
    images are scaled to (of buckets the smallest), for tables of the web."""
    max_aspect: float | Literal["auto"] | None = "auto"
    """Largest ratio of the longer side to the shorter side, as stated and of the image itself. auto
    means 2 for tables of the web."""
    max_watermark: float | Literal["auto"] | None = "auto"
    """Probability of a watermark must be below this. auto means 0.5 for tables of the web."""
    max_nsfw: float | Literal["auto"] | None = "auto"
    """Probability of being unsafe for work (the largest of several scores) must be below this. auto
    means 0.2 for tables of the web."""
    min_aesthetic: float | Literal["auto"] | None = "auto"
    """Smallest aesthetic score. auto means 4.75 for tables of the web. COYO's is version 2 of
    LAION's predictor (mean 4.77); LAION's own datasets have version 1, whose values are not
    comparable."""
    min_clip_similarity: float | Literal["auto"] | None = "auto"
    """Smallest cosine between caption and image. auto means 0.22 for tables of the web. COYO's is
    from CLIP ViT-L/14 (mean 0.25); other datasets use ViT-B/32, whose values are higher (its mean
    on COYO is 0.29)."""
    min_words: int | Literal["auto"] | None = "auto"
    """Smallest number of words in the caption. auto means 3 for tables of the web."""
    max_characters: int | None = None
    """Largest number of characters in the caption."""
    unique_phash: bool = True
    """Keep only the first row of each perceptual hash."""
    unique_url: bool = True
    """Keep only the first row of each URL."""
    duplicates: str | None = None
    """A list that `pinxit prepare SOURCE --find_duplicates FILE` wrote, to keep one row per hash
    and URL in the whole dataset; none keeps one in each unit of work."""
    blocked_domains: tuple[str, ...] = ()
    """Domains whose images are dropped; "example.com" includes www.example.com."""
    missing: Literal["keep", "drop"] = "keep"
    """Whether to keep or drop a row that lacks a figure that a filter needs."""

    def __post_init__(self) -> None:
        choice("missing", self.missing, MISSING)
        for name in WEB_LIMITS:
            value = getattr(self, name)
            if isinstance(value, str) and value != AUTO:
                raise UsageError(name, value, problem="not a number", valid="a number, none, auto")
        explicit = {name: x for name in WEB_LIMITS if (x := getattr(self, name)) != AUTO}
        for name in ("min_side", "max_aspect"):
            positive(name, explicit.get(name))
        positive("max_characters", self.max_characters)
        positive("min_words", explicit.get("min_words"), minimum=0)
        for name in ("max_watermark", "max_nsfw"):
            value = explicit.get(name)
            if value is not None and not 0 < value <= 1:
                raise UsageError(name, value, problem="not a probability", valid="above 0, to 1")
        for domain in self.blocked_domains:
            if not domain.strip(".") or any(mark in domain for mark in "/:@ "):
                raise UsageError(
                    "blocked_domains", domain, problem="not a domain", valid="such as example.com"
                )

    def thresholds(self) -> dict[str, float]:
        """Returns the limit that is set on each figure (see `histograms`). auto means the limit for
        tables of the web and images of 256 pixels."""
        web = {name: getattr(self, name) for name in WEB_LIMITS}
        web = {name: WEB_LIMITS[name] if value == AUTO else value for name, value in web.items()}
        limits = {name.partition("_")[2]: value for name, value in web.items()}
        limits["characters"] = self.max_characters
        return {name: float(limit) for name, limit in limits.items() if limit is not None}


REASONS = (
    "no_url",
    *("filtered_side", "filtered_aspect", "filtered_watermark", "filtered_nsfw"),
    *("filtered_aesthetic", "filtered_clip_similarity", "filtered_words", "filtered_characters"),
    *("filtered_missing", "filtered_domain", "filtered_url", "filtered_phash"),
)
"""Statuses that `Filter.check` returns, in the order of the checks."""


class Filter:
    """Applies the filters of a config to the rows of one unit, in the order of the rows."""

    def __init__(self, config: FilterConfig, *, duplicates: Duplicates | None = None) -> None:
        """Starts a unit; `duplicates` tells which of its rows repeat rows of other units."""
        self.config = config
        self.counts: Counter[str] = Counter()
        """Number of rows by status: "ok" or one of `REASONS`."""
        self.missing: Counter[str] = Counter()
        """Number of rows, kept or dropped, that lack a figure that a filter needs, by figure."""
        self.histograms = Histograms()
        """Histograms of all rows, before any is dropped."""
        self._thresholds = config.thresholds()
        self._duplicates: Duplicates = NoDuplicates() if duplicates is None else duplicates
        self._urls: set[str] = set()
        self._hashes: set[str] = set()
        self._blocked = frozenset(domain.strip(".").lower() for domain in config.blocked_domains)

    def check(self, row: Row) -> str | None:
        """Returns None if the row is kept, otherwise the status that says why it is dropped."""
        figures = measure_row(row)
        self.histograms.add(figures)
        reason = self.alone(row, figures) or self._repeated(row)
        self.counts[reason or "ok"] += 1
        return reason

    def alone(self, row: Row, figures: Mapping[str, float] | None = None) -> str | None:
        """Checks this row like `check`, but ignores duplicates and does not count the row."""
        if (status := unusable(row)) not in (None, "no_caption"):
            return status
        return self._figures(measure_row(row) if figures is None else figures) or self._domain(row)

    def may_be_shown(self, row: Row) -> bool:
        """Returns whether the image of a row may be fetched and shown although the row is dropped:
        it is not known to be unsafe, and its domain is not blocked."""
        limit, score = self._thresholds.get("nsfw"), row.scores.get("nsfw")
        is_unsafe = limit is not None and score is not None and _beyond("nsfw", score, limit)
        return not is_unsafe and not self.is_blocked(row)

    def is_blocked(self, row: Row) -> bool:
        """Returns whether the domain of a row is blocked."""
        return self._domain(row) is not None

    def _figures(self, figures: Mapping[str, float]) -> str | None:
        """Returns the status of the first figure beyond its limit; missing figures come last."""
        missing = []
        reason = None
        for name, limit in self._thresholds.items():
            value = figures.get(name)
            if value is None:
                missing.append(name)
            elif reason is None and _beyond(name, value, limit):
                reason = f"filtered_{name}"
        self.missing.update(missing)
        return reason or ("filtered_missing" if missing and self.config.missing == "drop" else None)

    def _domain(self, row: Row) -> str | None:
        """Returns "filtered_domain" if the row's domain, or one above it, is blocked."""
        if not self._blocked:
            return None
        labels = host_of(row.url or row.origin).split(".")
        domains = {".".join(labels[start:]) for start in range(len(labels))}
        return "filtered_domain" if domains & self._blocked else None

    def _repeated(self, row: Row) -> str | None:
        """Returns the status of a duplicate, or None for the first row of its URL and hash.

        Must be the last check, since only a row that is kept makes later rows duplicates.
        """
        url = without_entities(row.url or row.origin or "") if self.config.unique_url else ""
        phash = row.phash if self.config.unique_phash else None
        if url in self._urls:
            return "filtered_url"
        if phash is not None and phash in self._hashes:
            return "filtered_phash"
        if (listed := self._duplicates.get(row.key)) is not None:
            return listed
        self._urls |= {url} if url else set()
        self._hashes |= {phash} if phash is not None else set()
        return None


def _beyond(name: str, value: float, limit: float) -> bool:
    """Returns whether a value violates the limit of its figure."""
    if name in ("watermark", "nsfw"):
        return value >= limit
    return value > limit if name in ("aspect", "characters") else value < limit
