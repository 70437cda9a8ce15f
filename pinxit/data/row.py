"""The records of the data path: a row before anything is spent on it, its unit and its source.

A `Source` is a list of units of work, each a run of rows: the unit is what a worker takes, what is
done again after a crash, and what a row's key begins with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from pinxit.config import plain

SCORES = ("watermark", "nsfw", "aesthetic", "clip_similarity")
"""The scores a row may bear, by name: watermark and nsfw are probabilities in [0, 1] (nsfw: the
larger where a source has several), aesthetic is the LAION predictor's figure, about 1 to 10 (its
versions 1 and 2 are not comparable), clip_similarity a cosine."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, before anything is spent on it."""

    key: str
    """Unique in the source and stable from run to run: "<unit id>/<row number, 8 digits>"."""
    url: str | None
    """Where the image is; None where the source bears it."""
    caption: str
    width: int | None = None
    """In pixels, as the source states it: not to be trusted."""
    height: int | None = None
    phash: str | None = None
    """64-bit perceptual hash of the image, 16 lower-case hex digits."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Any of `SCORES`."""
    image: bytes | None = None
    """The encoded image, where the source bears it."""
    origin: str | None = None
    """Where an image that the source bears came from: for filters and reports, never fetched."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A run of rows of one source: what one worker takes, and what a crash costs at most."""

    id: str
    """Unique in the source, stable from run to run, and safe as a file name: "00012-003"."""
    path: str
    """The file or folder that holds the rows, as the source opens it."""
    part: int = 0
    """Which part of it: a run of row groups or of lines; 0 where the unit is the whole file."""
    rows: int | None = None
    """How many, where that is known before reading."""
    offset: int = 0
    """Where the part begins, in bytes (sources of lines only)."""


@runtime_checkable
class Source(Protocol):
    """Rows by units. Small, and the same after pickling: workers get a copy."""

    @property
    def name(self) -> str:
        """The source's name in `SOURCES`."""
        ...

    @property
    def revision(self) -> str | None:
        """What is read, exactly: a commit of the hub, or a fingerprint of the files."""
        ...

    @property
    def bears_images(self) -> bool:
        """Whether the rows bear encoded images; then none has a URL to fetch."""
        ...

    @property
    def unit_rows(self) -> int | None:
        """How many rows a unit has at most; None where every file is one unit."""
        ...

    @property
    def columns(self) -> Any:
        """The columns that the rows are made from, as a dataclass; None where there are none."""
        ...

    def units(self, *, limit: int | None = None) -> list[Unit]:
        """Every unit, in an order that never changes; only the first `limit`, where given."""
        ...

    def read(self, unit: Unit) -> Iterator[Row]:
        """The rows of a unit, every one of them, always in the same order."""
        ...

    def count(self, unit: Unit) -> int:
        """How many rows a unit has, found out at the least cost. ValueError if it is damaged."""
        ...


def source_identity(source: Source) -> dict[str, Any]:
    """Returns the settings of a source that decide its rows and their keys, as plain JSON."""
    identity = {"name": source.name, "revision": source.revision}
    ways = {"unit_rows": source.unit_rows, "columns": source.columns}
    return identity | {name: plain(value) for name, value in ways.items() if value is not None}


def unusable(row: Row) -> str | None:
    """Returns the status of a row that cannot become a training example, whatever the filters are:
    "no_url" or "no_caption". Returns None for all others."""
    if row.url is None and row.image is None:
        return "no_url"
    return None if row.caption.strip() else "no_caption"
