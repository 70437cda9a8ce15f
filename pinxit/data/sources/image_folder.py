"""Reads a folder of images with captions in any of the usual layouts.

- ``cat.jpg`` has its caption in ``cat.txt`` (or ``cat.caption``) next to it.
- ``metadata.jsonl`` or ``metadata.csv`` has a column ``file_name``, in the folder or in folders
  below it (the imagefolder layout of the hub).
- If there is neither, the name of the folder that holds an image is its caption (an imagefolder of
  classes). Images at the top level then have no caption.

If the metadata names an image that does not exist, its row has no image; no row is lost. A name
that points outside the folder matches no file.
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pinxit.config import UsageError
from pinxit.data.row import Row, Unit
from pinxit.data.sources.columns import Columns, text, unreadable
from pinxit.data.sources.files import (
    File,
    Listing,
    list_files,
    open_file,
    reading,
    without_held_out,
)
from pinxit.data.sources.text_lines import open_lines, records
from pinxit.data.sources.webdataset import IMAGES, LARGEST, row_of_files

METADATA = ("metadata.jsonl", "metadata.csv")
NAMED = ("file_name", "filename", "file", "image")
"""The columns in which a metadata record may name its image."""
BESIDE = (".txt", ".caption")
FORM = "a folder of images with captions (.txt beside, metadata.jsonl, or a folder for each class)"
SUFFIXES = (*(f".{suffix}" for suffix in sorted(IMAGES)), *BESIDE, *METADATA)


@dataclass(frozen=True)
class Entry:
    """One image of a folder, and the possible sources of its caption."""

    name: str
    """The path of the image relative to the folder."""
    image: File | None
    """The image file; None if the metadata names an image that does not exist."""
    about: Mapping[str, Any]
    """The metadata record of the image, empty if there is none."""
    beside: File | None = None
    """The text file next to the image."""
    label: str | None = None
    """The name of the image's own folder, if folder names are the captions."""


@dataclass(frozen=True)
class FolderSource:
    """A source that reads a folder of images, in units of `unit_rows` rows."""

    name: str
    path: str
    revision: str
    columns: Columns
    unit_rows: int = 10_000
    has_images: bool = True
    unused: tuple[str, ...] = ()

    def units(self, *, limit: int | None = None) -> list[Unit]:
        """Returns all units. The folder is listed once."""
        total = len(self._entries())
        starts = range(0, total, self.unit_rows)[:limit]
        return [
            Unit(f"00000-{part:03d}", self.path, part, min(self.unit_rows, total - start))
            for part, start in enumerate(starts)
        ]

    def read(self, unit: Unit) -> Iterator[Row]:
        """Yields the rows of a unit. Raises ValueError if the folder has changed since opening."""
        start = unit.part * self.unit_rows
        entries = self._entries()[start : start + self.unit_rows]
        for number, entry in enumerate(entries, start=start):
            yield self._row(f"{unit.id}/{number:08d}", entry)

    def count(self, unit: Unit) -> int:
        """Returns the number of rows of a unit, and reads it only if the unit does not state it."""
        return sum(1 for _ in self.read(unit)) if unit.rows is None else unit.rows

    def _entries(self) -> tuple[Entry, ...]:
        return read_folder(self.path, self.revision)

    def _row(self, key: str, entry: Entry) -> Row:
        image = _bytes(entry.image, limit=LARGEST["image"])
        if image is None:
            return unreadable(key)
        beside = _bytes(entry.beside, limit=LARGEST["text"])
        caption = text(beside) if beside is not None else entry.label
        return row_of_files(
            key, self.columns, image=image, caption=caption, about=dict(entry.about)
        )


def list_folder(path: str, *, revision: str | None = None) -> Listing:
    """Lists the images, captions and metadata in a folder, of the training split if it has one."""
    listing = list_files(path, suffixes=SUFFIXES, form=FORM, revision=revision)
    return Listing(without_held_out(listing.files, folders=True), listing.revision)


@functools.lru_cache(maxsize=4)
def read_folder(path: str, revision: str) -> tuple[Entry, ...]:
    """Returns the entries of a folder by name. Raises ValueError if its revision differs."""
    listing = list_folder(path)
    if listing.revision != revision:
        raise UsageError(
            f"{path} has changed since it was opened ({revision}, now {listing.revision}); "
            "restore the old files, or start again with a new output folder"
        )
    files = {file.name: file for file in listing.files}
    about = _metadata(files)
    beside = {name: file for name, file in files.items() if name.lower().endswith(BESIDE)}
    images = {name for name in files if posixpath.splitext(name)[1][1:].lower() in IMAGES}
    labelled = not about and not beside
    entries = []
    for name in sorted(images | about.keys()):
        stem = posixpath.splitext(name)[0]
        folder = posixpath.basename(posixpath.dirname(name))
        entries.append(
            Entry(
                name,
                files[name] if name in images else None,
                about.get(name, {}),
                next((beside[stem + end] for end in BESIDE if stem + end in beside), None),
                folder.replace("_", " ") or None if labelled else None,
            )
        )
    return tuple(entries)


def _metadata(files: Mapping[str, File]) -> dict[str, dict[str, Any]]:
    """Returns the records of the metadata files, by the name of the image."""
    about: dict[str, dict[str, Any]] = {}
    for name, file in files.items():
        folder, base = posixpath.split(name)
        if base.lower() not in METADATA:
            continue
        for values in _records(file.path):
            named = next((text(values[key]) for key in NAMED if values.get(key)), None)
            if named is None:
                raise UsageError(
                    f"{file.path} has a record without {' or '.join(NAMED)}; it has: "
                    f"{', '.join(values)}"
                )
            about.setdefault(posixpath.normpath(posixpath.join(folder, named)), values)
    return about


def _records(path: str) -> Iterator[dict[str, Any]]:
    with open_lines(path) as stream:
        names: list[str] | None = None
        for _, fields in records(stream, "csv" if path.lower().endswith("csv") else "jsonl"):
            if isinstance(fields, dict):
                yield fields
            elif names is None and fields is not None:
                names = fields
            elif names is not None and fields is not None:
                yield dict(zip(names, fields, strict=False))
            else:
                raise UsageError(
                    f"{path} has an unreadable record; valid: JSON objects (.jsonl) or CSV (.csv)"
                )


def _bytes(file: File | None, *, limit: int) -> bytes | None:
    if file is None or (file.size or 0) > limit:
        return None
    with reading(file.path), open_file(file.path) as stream:
        return stream.read()  # type: ignore[attr-defined]
