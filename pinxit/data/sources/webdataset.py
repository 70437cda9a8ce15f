"""WebDataset tars: an image and its texts under one name, as img2dataset writes them.

``000000017.jpg``, ``000000017.txt`` and ``000000017.json`` are one sample; the caption is the text
file's, else the JSON's. Archives come from strangers, so they are read by `tar_stream` alone: no
command is run (``pipe:``), nothing is unpickled (tensors and pickles are skipped unread), and no
member larger than a limit is held in memory.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pinxit.data.row import Row, Unit
from pinxit.data.sources.columns import Columns, Found, make_row, text, unreadable
from pinxit.data.sources.files import File, open_file, reading
from pinxit.data.sources.tar_stream import members

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"})
TEXTS = frozenset({"txt", "caption", "json"})
LARGEST = {"image": 2**26, "text": 2**20}
"""Bytes of one member. A larger image leaves its sample unreadable; a larger text is left out."""
IMAGE = "\0image"
"""The image among a sample's values; no JSON of a sample can be mistaken for it."""
CAPTION = "\0caption"
"""The text file's content among a sample's values."""


@dataclass(frozen=True)
class ArchiveSource:
    """Samples of tar files; every tar is a unit."""

    name: str
    revision: str | None
    files: tuple[File, ...]
    columns: Columns
    bears_images: bool = True
    unit_rows: None = None

    def units(self, *, limit: int | None = None) -> list[Unit]:
        """One unit per tar; how many samples it has shows when it is read."""
        files = self.files[:limit]
        return [Unit(f"{index:05d}-000", file.path) for index, file in enumerate(files)]

    def read(self, unit: Unit) -> Iterator[Row]:
        """The samples of a tar in its order. ValueError where the archive is damaged."""
        with reading(unit.path), open_file(unit.path, stream=True) as stream:
            for number, sample in enumerate(tar_samples(stream, unit.path)):
                yield self._row(f"{unit.id}/{number:08d}", sample)

    def count(self, unit: Unit) -> int:
        """The samples of a tar, by its headers alone where what is between can be passed over."""
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
    """The row of an image file, the text beside it, and what is said `about` it.

    The text is the caption, unless `columns` names by hand where in `about` the caption is.
    """
    found: Found = columns.optional().match(list(about), where=key)
    found["image"] = (IMAGE,)
    if caption is not None and "caption" not in columns.by_hand:
        found["caption"] = (CAPTION,)
    return make_row(key, {**about, IMAGE: image, CAPTION: caption}, found)


@dataclass
class TarSample:
    """What an archive holds under one name."""

    name: str
    image: bytes | None = None
    caption: str | None = None
    about: dict[str, Any] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)
    """What came from a member without a second dot: "1.jpg" is more the image than "1.mask.jpg"."""

    def take(self, suffix: str, data: bytes) -> None:
        """Adds a member by all that follows its name's first dot; the first of a kind counts."""
        last = suffix.rpartition(".")[2]
        kind = "image" if last in IMAGES else "about" if last == "json" else "caption"
        is_plain = last == suffix
        if getattr(self, kind) and (kind in self.plain or not is_plain):
            return
        value = data if kind == "image" else json_object(data) if kind == "about" else text(data)
        setattr(self, kind, value)
        self.plain |= {kind} if is_plain else set()


def tar_samples(stream: io.IOBase, path: str, *, bodies: bool = True) -> Iterator[TarSample]:
    """The samples of a tar: members that follow one another and share a name up to its dot; their
    names alone without `bodies`.

    Names that hold no image, text or JSON at all are no samples.
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
    """The JSON object in `data`; an empty one where there is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
