"""WebDataset tars: an image and its texts under one name, as img2dataset writes them.

``000000017.jpg``, ``000000017.txt`` and ``000000017.json`` are one sample; the caption is the text
file's, else the JSON's. Archives come from strangers, so they are read by this module alone, as one
stream: no member is written anywhere, no command is run (``pipe:``), nothing is unpickled (tensors
and pickles are skipped unread), links, devices and sparse members are refused, names that climb
(``..``) or begin at the root are skipped, and no member larger than a limit is held in memory.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pinxit.data.row import Row, Unit
from pinxit.data.sources.columns import Columns, Found, make_row, text, unreadable
from pinxit.data.sources.files import File, open_file, reading

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"})
TEXTS = frozenset({"txt", "caption", "json"})
LARGEST = {"image": 2**26, "text": 2**20, "name": 2**16}
"""Bytes of one member. A larger image leaves its sample unreadable; a larger text is left out."""
BLOCK = 512
CHUNK = 2**20
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
BODILESS = (
    *(tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE),
    *(tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE),
)
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

    def units(self, *, limit: int | None = None) -> list[Unit]:
        """One unit per tar; how many samples it has shows when it is read."""
        files = self.files[:limit]
        return [Unit(f"{index:05d}-000", file.path) for index, file in enumerate(files)]

    def read(self, unit: Unit) -> Iterator[Row]:
        """The samples of a tar in its order. ValueError where the archive is damaged."""
        with reading(unit.path), open_file(unit.path, stream=True) as stream:
            for number, sample in enumerate(samples(stream, unit.path)):
                yield self._row(f"{unit.id}/{number:08d}", sample)

    def count(self, unit: Unit) -> int:
        """The samples of a tar, by its headers alone where what is between can be passed over."""
        with reading(unit.path), open_file(unit.path) as stream:
            return sum(1 for _ in samples(stream, unit.path, bodies=False))

    def _row(self, key: str, sample: Sample) -> Row:
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
class Sample:
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


def samples(stream: io.IOBase, path: str, *, bodies: bool = True) -> Iterator[Sample]:
    """The samples of a tar: members that follow one another and share a name up to its dot; their
    names alone without `bodies`.

    Names that hold no image, text or JSON at all are no samples.
    """
    sample: Sample | None = None
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
            sample = Sample(whole)
        if bodies and size <= LARGEST["image" if last in IMAGES else "text"]:
            sample.take(suffix, body.read(size))
    if sample is not None:
        yield sample


class Body:
    """The bytes of one member, to be read before the next member is asked for."""

    def __init__(self, stream: io.IOBase, size: int, path: str) -> None:
        self._stream, self.left, self._path = stream, size, path

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes of what is left, or all of that."""
        wanted = min(size, self.left)
        self.left -= wanted
        return read_exactly(self._stream, wanted, self._path)

    def skip(self, *, seek: bool = False) -> None:
        """Passes over what is left. The read after a `seek` notices the end of the file."""
        if seek and self.left > BLOCK:
            self._stream.seek(self.left, io.SEEK_CUR)
            self.left = 0
        while self.left:
            self.read(CHUNK)


def members(stream: io.IOBase, path: str, *, seek: bool = False) -> Iterator[tuple[str, int, Body]]:
    """(name, bytes, body) of each regular member with an honest name, in one pass. With `seek`,
    what is left of a body is passed over unread.

    Raises ValueError for a damaged or truncated archive and for a sparse member.
    """
    override: dict[str, str] = {}
    while True:
        block = read_exactly(stream, BLOCK, path)
        if not any(block):  # the end mark
            return
        try:
            head = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if head.type == tarfile.GNUTYPE_SPARSE or "GNU.sparse.major" in override:
            raise ValueError(f"{path} has a sparse member ({head.name!r}): refused")
        size = 0 if head.type in BODILESS else _size(override.get("size"), head.size, path)
        body = Body(stream, size, path)
        padding = -size % BLOCK
        if head.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
            if size > LARGEST["name"]:
                raise ValueError(f"{path} has a header of {size} bytes: refused")
            data = body.read(size)
            long = head.type == tarfile.GNUTYPE_LONGNAME
            override |= {"path": _decode(data.split(b"\0")[0])} if long else _pax(data)
        else:
            name = override.get("path", head.name)
            override = {}
            if head.type in REGULAR and is_honest(name):
                yield name, size, body
        body.skip(seek=seek)
        read_exactly(stream, padding, path)


def is_honest(name: str) -> bool:
    """Whether a member's name stays below the folder an archive would be unpacked to."""
    parts = name.replace("\\", "/").split("/")
    return bool(name) and parts[0] != "" and ".." not in parts and ":" not in parts[0]


def read_exactly(stream: io.IOBase, size: int, path: str) -> bytes:
    """`size` bytes; ValueError where the archive ends before."""
    parts = []
    left = size
    while left:
        part = stream.read(left)  # type: ignore[attr-defined]
        if not part:
            raise ValueError(f"{path} is damaged: it ends before its end mark")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _size(stated: str | None, head: int, path: str) -> int:
    """The bytes of a member: a PAX header's figure, else its own header's."""
    size = int(stated) if stated is not None and stated.isdecimal() else head
    if size < 0:
        raise ValueError(f"{path} is damaged: a member of {size} bytes")
    return size


def _pax(data: bytes) -> dict[str, str]:
    """The records ``<length> <keyword>=<value>`` of a PAX header."""
    found = {}
    while data:
        digits, space, _ = data.partition(b" ")
        if not space or not digits.isdigit() or not 0 < int(digits) <= len(data):
            break
        keyword, _, value = data[len(digits) + 1 : int(digits) - 1].partition(b"=")
        found[_decode(keyword)] = _decode(value)
        data = data[int(digits) :]
    return found


def _decode(data: bytes) -> str:
    return data.decode("utf-8", errors="surrogateescape")


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`; an empty one where there is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
