"""Reads WebDataset tars, in the form that img2dataset writes: an image and its texts share a name.

``000000017.jpg``, ``000000017.txt`` and ``000000017.json`` form one sample. The caption comes from
the text file, or else from the JSON. Archives come from the web, so that only `tar_stream` reads
them: no command is run (``pipe:``), nothing is unpickled (tensors and pickles are skipped unread),
and no member larger than a limit is held in memory.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pinxit.data.row import Row, Unit
from pinxit.data.sources.columns import Columns, FieldColumns, make_row, text, unreadable
from pinxit.data.sources.files import File, open_file, reading
from pinxit.data.sources.tar_stream import members

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"})
TEXTS = frozenset({"txt", "caption", "json"})
LARGEST = {"image": 2**26, "text": 2**20}
"""The largest accepted members, in bytes. A larger image makes its sample unreadable; a larger text
is ignored."""
IMAGE = "\0image"
"""The key of the image among a sample's values, which no JSON key equals."""
CAPTION = "\0caption"
"""The key of the text file's content among a sample's values."""


@dataclass(frozen=True)
class ArchiveSource:
    """A source that reads the samples of tar files. Each tar is one unit."""

    name: str
    revision: str | None
    files: tuple[File, ...]
    columns: Columns
    has_images: bool = True
    unit_rows: None = None
    unused: tuple[str, ...] = ()

    def units(self, *, limit: int | None = None) -> list[Unit]:
        """Returns one unit per tar. Its number of samples is only known after reading it."""
        files = self.files[:limit]
        return [Unit(f"{index:05d}-000", file.path) for index, file in enumerate(files)]

    def read(self, unit: Unit) -> Iterator[Row]:
        """Yields the samples of a tar in order. Raises ValueError if the archive is damaged."""
        with reading(unit.path), open_file(unit.path, stream=True) as stream:
            for number, sample in enumerate(tar_samples(stream, unit.path)):
                yield self._row(f"{unit.id}/{number:08d}", sample)

    def count(self, unit: Unit) -> int:
        """Counts the samples of a tar, and reads only the headers where the file allows seeking."""
        with reading(unit.path), open_file(unit.path) as stream:
            return sum(1 for _ in tar_samples(stream, unit.path, bodies=False))

    def _row(self, key: str, sample: TarSample) -> Row:
        if sample.image is None:
            return unreadable(key)
        return row_of_files(
            key, self.columns, about=sample.about, image=sample.image, caption=sample.caption
        )


def row_of_files(
    key: str, columns: Columns, *, image: bytes, caption: str | None, about: Mapping[str, Any]
) -> Row:
    """Returns the row of an image file, the text next to it and its metadata `about`.

    The text is the caption, unless the user has set a caption column for the metadata.
    """
    by_field: FieldColumns = columns.optional().match(list(about), where=key)
    by_field["image"] = (IMAGE,)
    if caption is not None and "caption" not in columns.by_hand:
        by_field["caption"] = (CAPTION,)
    return make_row(key, {**about, IMAGE: image, CAPTION: caption}, by_field)


@dataclass
class TarSample:
    """The members of an archive that share one name."""

    name: str
    """The common part of the members' names, up to the first dot."""
    image: bytes | None = None
    """The encoded image."""
    caption: str | None = None
    """The content of the text file."""
    about: dict[str, Any] = field(default_factory=dict)
    """The content of the JSON file."""
    plain: set[str] = field(default_factory=set)
    """The fields set by a member without a second dot: "1.jpg" wins over "1.mask.jpg"."""

    def take(self, suffix: str, data: bytes) -> None:
        """Adds a member by its `suffix`, all after the first dot. The first of each kind counts."""
        last = suffix.rpartition(".")[2]
        kind = "image" if last in IMAGES else "about" if last == "json" else "caption"
        is_plain = last == suffix
        if getattr(self, kind) and (kind in self.plain or not is_plain):
            return
        value = data if kind == "image" else json_object(data) if kind == "about" else text(data)
        setattr(self, kind, value)
        self.plain |= {kind} if is_plain else set()


def tar_samples(stream: io.IOBase, path: str, *, bodies: bool = True) -> Iterator[TarSample]:
    """Yields the samples of a tar: runs of members whose names agree up to the first dot.

    Without `bodies`, only the names are read. Members that are not an image, text or JSON file are
    ignored.
    """
    sample: TarSample | None = None
    for name, size, body in members(stream, path, seek=not bodies):
        folder, _, base = name.rpartition("/")
        stem, _, suffix = base.partition(".")
        suffix = suffix.lower()
        last = suffix.rpartition(".")[2]
        if not stem or last not in IMAGES | TEXTS:
            continue
        whole = f"{folder}/{stem}"
        if sample is None or sample.name != whole:
            if sample is not None:
                yield sample
            sample = TarSample(whole)
        if bodies and size <= LARGEST["image" if last in IMAGES else "text"]:
            sample.take(suffix, body.read(size))
    if sample is not None:
        yield sample


def json_object(data: bytes) -> dict[str, Any]:
    """Returns the JSON object in `data`, or an empty one if there is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
