"""Defines rows, units and sources: the records that preparing and streaming work on.

A `Source` is a list of units, and a unit is a run of rows. Workers take one unit at a time, a crash
repeats at most the current unit, and the key of every row begins with the id of its unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, runtime_checkable

from pinxit.config import plain

SCORES = ("watermark", "nsfw", "aesthetic", "clip_similarity")
"""The names of the scores that a row may have.

``watermark`` and ``nsfw`` are probabilities in [0, 1]; if a source has several NSFW scores, the
largest counts. ``aesthetic`` is the output of the LAION predictor, about 1 to 10 (its versions 1
and 2 are not comparable). ``clip_similarity`` is a cosine.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, before its image is fetched or decoded."""

    key: str
    """Unique in the source and the same in every run: "<unit id>/<row number, 8 digits>"."""
    url: str | None
    """The URL of the image; None if the source holds the image itself."""
    caption: str
    width: int | None = None
    """Width in pixels, as stated by the source. The image may differ."""
    height: int | None = None
    """Height in pixels, as stated by the source. The image may differ."""
    phash: str | None = None
    """The 64-bit perceptual hash of the image, as 16 lower-case hex digits."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Values of any of the `SCORES`, by name."""
    image: bytes | None = None
    """The encoded image, if the source holds it."""
    origin: str | None = None
    """The URL that an image held by the source came from. Filters and reports use it; it is never
    fetched."""
    name: str | None = None
    """The path of the image inside the folder or the archive, or a file and a record number. None
    if the URL says enough. Messages show it."""
    fault: str | None = None
    """The status of a row that the source cannot read, such as "bad_record"; otherwise None."""
    detail: str = ""
    """One line of explanation for the fault."""

    @property
    def shown_name(self) -> str:
        """The name by which messages show the row, or its URL, or else its key."""
        return self.name or self.url or self.origin or self.key


@dataclass(frozen=True, slots=True)
class Unit:
    """A run of rows of one source. Workers take whole units; a crash repeats at most one each."""

    id: str
    """Unique in the source, the same in every run, and safe as a file name: "00012-003"."""
    path: str
    """The file or folder that holds the rows, in the form in which the source opens it."""
    part: int = 0
    """The index of the part (a run of row groups or lines); 0 if the unit is the whole file."""
    rows: int | None = None
    """The number of rows; None if it is not known before reading."""
    offset: int = 0
    """The byte offset at which the part begins (text files only)."""
    group: str = field(default="", compare=False)
    """The name of the part of a remote file that one download serves, such as a row group of a
    table. Units with the same name lie beside each other and should be read on one machine; "" is
    no such part. It determines only where a unit is read, not what is in it."""

    def __setstate__(self, state: list[Any]) -> None:
        """Sets the fields of a pickled unit, which may come from a version with fewer fields."""
        defaults = [one.default for one in fields(self)[len(state) :]]
        for one, value in zip(fields(self), [*state, *defaults], strict=True):
            object.__setattr__(self, one.name, value)


@runtime_checkable
class Source(Protocol):
    """A list of units and a way to read their rows.

    Workers get a pickled copy, so that a source must be small and work the same after pickling.
    """

    @property
    def name(self) -> str:
        """The source's name in `SOURCES`."""
        ...

    @property
    def revision(self) -> str | None:
        """The exact version of the data: a commit of the hub, or a fingerprint of the files."""
        ...

    @property
    def has_images(self) -> bool:
        """Whether the rows hold encoded images. If so, no row has a URL to fetch."""
        ...

    @property
    def unit_rows(self) -> int | None:
        """The most rows that a unit may have; None if every file is one unit."""
        ...

    @property
    def columns(self) -> Any:
        """The columns that the rows are made from, as a dataclass; None if there are none."""
        ...

    @property
    def unused(self) -> tuple[str, ...]:
        """Returns one line for each kind of file or column that is not read, with an example.

        Pictures and captions that are found only while units are read are rows with a fault.
        """
        ...

    def units(self, *, limit: int | None = None) -> list[Unit]:
        """Returns all units, or only the first `limit`, always in the same order."""
        ...

    def read(self, unit: Unit) -> Iterator[Row]:
        """Yields all rows of a unit, always in the same order."""
        ...

    def count(self, unit: Unit) -> int:
        """Returns the number of rows of a unit, as cheaply as possible.

        Raises ValueError if the unit is damaged.
        """
        ...


def source_identity(source: Source) -> dict[str, Any]:
    """Returns the settings that determine a source's rows and their keys, as plain JSON."""
    identity = {"name": source.name, "revision": source.revision}
    optional = {
        "unit_rows": source.unit_rows,
        "columns": source.columns,
        "text_encoding": getattr(source, "text_encoding", None),
    }
    return identity | {name: plain(value) for name, value in optional.items() if value is not None}


def unusable(row: Row) -> str | None:
    """Returns the status of a row that can never become a training example, such as "no_caption".

    Returns None for all other rows, which the filters may still drop.
    """
    if row.fault is not None:
        return row.fault
    if row.url is None and row.image is None:
        return "no_url"
    return None if row.caption.strip() else "no_caption"
