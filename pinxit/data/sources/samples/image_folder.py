"""Reads a folder of images with captions in any of the usual layouts.

- ``cat.jpg`` has its caption in ``cat.txt`` next to it, or in one of the other names that
  `sample_names` knows. ``cat.json`` next to it holds metadata, and the caption if there is no text.
- ``metadata.jsonl``, ``captions.csv`` or another of `metadata_files` names the images, in the
  folder or in folders below it (the imagefolder layout of the hub).
- If there is neither, the name of the folder that holds an image is its caption (an imagefolder of
  classes). Images at the top level then have no caption.

Every image has one row, in the order of the names, and so has every name in the metadata without an
image (missing_image). A name that points outside the folder matches no file. All other files are in
one of the lines of `FolderSource.unused`.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pinxit.config import UsageError
from pinxit.data.row import Row, Unit
from pinxit.data.sources.columns import Columns, unreadable
from pinxit.data.sources.file_names import printable
from pinxit.data.sources.files import (
    File,
    Listing,
    list_files,
    open_file,
    reading,
    without_held_out,
)
from pinxit.data.sources.samples.metadata_files import (
    METADATA,
    ImageRecord,
    is_metadata,
    read_records,
)
from pinxit.data.sources.samples.metadata_names import match_records, plain_name
from pinxit.data.sources.samples.sample_names import (
    CAPTION_SUFFIXES,
    IMAGE_SUFFIXES,
    Grouping,
    SampleName,
    describe_picture,
    group_names,
    parse_name,
)
from pinxit.data.sources.samples.sample_rows import Content, Unreadable, row_of_sample
from pinxit.data.sources.unused_lines import other_files_lines, unused_line
from pinxit.text_decoding import UnknownEncoding, decode_text

REFUSED = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.EISDIR, errno.ELOOP),
        *(errno.EIO, errno.ENXIO, errno.ESTALE),
    }
)
"""Errors of a single local file, which cost its row only. All others are the machine's."""
FORM = "a folder of images with captions (.txt beside, metadata.jsonl, or a folder for each class)"
SUFFIXES = (
    *(f".{suffix}" for suffix in sorted(IMAGE_SUFFIXES)),
    *(f".{suffix}" for suffix in CAPTION_SUFFIXES),
    ".json",
    *(name for name in METADATA if not name.endswith(".json")),
)


@dataclass(frozen=True)
class Entry:
    """One image of a folder, and the possible sources of its caption."""

    name: str
    """The path of the image relative to the folder."""
    image: File | None
    """The image file; None if the metadata names an image that does not exist."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """The metadata record of the image, empty if there is none."""
    beside: File | None = None
    """The text file next to the image."""
    json_file: File | None = None
    """The JSON file next to the image."""
    label: str | None = None
    """The name of the image's own folder, if folder names are the captions."""
    fault: str | None = None
    """The status of the row, if it is no training example whatever its files hold."""
    detail: str = ""


@dataclass(frozen=True)
class Folder:
    """The entries of a folder by name, and the lines about what is not read."""

    entries: tuple[Entry, ...]
    unused: tuple[str, ...]


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
    text_encoding: str | None = None
    """The encoding of captions that are not Unicode; none means that their rows are bad_text."""

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
        return read_folder(self.path, self.revision, self.text_encoding).entries

    def _row(self, key: str, entry: Entry) -> Row:
        name = printable(entry.name)
        if entry.image is None or entry.fault is not None:
            fault = entry.fault or "missing_image"
            return unreadable(key, fault, name=name, detail=entry.detail)
        try:
            label = _label(entry.label, self.text_encoding)
        except UnknownEncoding as error:
            return unreadable(key, "bad_text", name=name, detail=f"the folder's name is {error}")
        return row_of_sample(
            key,
            self.columns,
            image=_content(entry.image),
            caption=_content(entry.beside) if entry.beside else None,
            json_file=_content(entry.json_file) if entry.json_file else None,
            about=entry.about,
            label=label,
            encoding=self.text_encoding,
        )


def list_folder(path: str, *, revision: str | None = None) -> Listing:
    """Lists the images, captions and metadata in a folder, of the training split if it has one."""
    listing = list_files(path, suffixes=SUFFIXES, form=FORM, revision=revision)
    return without_held_out(listing, folders=True)


@functools.lru_cache(maxsize=4)
def read_folder(path: str, revision: str, encoding: str | None = None) -> Folder:
    """Returns the entries of a folder by name. Raises ValueError if its revision differs."""
    listing = list_folder(path)
    if listing.revision != revision:
        raise UsageError(
            f"{path} has changed since it was opened ({revision}, now {listing.revision}); "
            "restore the old files, or start again with a new output folder"
        )
    metadata = [file for file in listing.files if is_metadata(file.name)]
    records = [record for file in metadata for record in read_records(file, encoding=encoding)]
    files = {file.name: file for file in listing.files if not is_metadata(file.name)}
    names = {name: parsed for name in files if (parsed := parse_name(name)) is not None}
    images = [name for name, parsed in names.items() if parsed.kind == "image"]
    matches = match_records(records, images, root=_full(path))
    pairs = _Pairs()
    for group in _groups(names.values()):
        pairs.add(group, group_names(group))
    described, missing, repeated = _by_image(records, matches)
    entries = _entries(files, images, described, pairs) + missing
    unused = (
        *pairs.unused_lines(),
        *unused_line(
            [record.where for record in repeated],
            "metadata record is not used, since an earlier one names the same image",
            "metadata records are not used, since earlier ones name the same images",
        ),
        *other_files_lines([*listing.others, *(name for name in files if name not in names)]),
        *listing.unused,
    )
    return Folder(tuple(sorted(entries, key=lambda entry: entry.name)), unused)


@dataclass
class _Pairs:
    """The texts that belong to the images of a folder, by the names of the images."""

    captions: dict[str, str] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    extras: dict[str, SampleName | None] = field(default_factory=dict)
    """The pictures of the samples to which other images belong, if there are any."""
    auxiliary: set[str] = field(default_factory=set)
    """The other images that are no pictures by their name, such as masks."""
    spare: list[str] = field(default_factory=list)
    """The captions of images that have another caption."""
    orphans: list[str] = field(default_factory=list)
    """The captions that belong to no image."""
    unused_json: list[str] = field(default_factory=list)

    def add(self, names: Sequence[SampleName], grouping: Grouping) -> None:
        """Adds the samples of one group of names."""
        used = set()
        for sample in grouping.samples:
            used.add(sample.about)
            if sample.image is None:
                used.discard(sample.about)
                if sample.caption is not None:
                    self.orphans.append(names[sample.caption].path)
                continue
            image = names[sample.image].path
            if sample.caption is not None:
                self.captions[image] = names[sample.caption].path
            if sample.about is not None:
                self.about[image] = names[sample.about].path
        for at, sample in grouping.extra_images:
            image, picture = names[at], None if sample.image is None else names[sample.image]
            if (
                picture is not None and image.stem == picture.stem
            ):  # one caption for two files of a name, as for one
                for texts in (self.captions, self.about):
                    if picture.path in texts:
                        texts[image.path] = texts[picture.path]
                continue
            self.extras[image.path] = picture
            self.auxiliary |= {image.path} if image.is_auxiliary else set()
        self.spare += [names[at].path for at in grouping.extra_captions]
        self.unused_json += [
            name.path for at, name in enumerate(names) if name.kind == "about" and at not in used
        ]

    def unused_lines(self) -> tuple[str, ...]:
        """Returns the lines about the texts that are not used."""
        return (
            *unused_line(
                sorted(self.orphans),
                "caption file belongs to no image",
                "caption files belong to no image",
            ),
            *unused_line(
                sorted(self.spare),
                "caption file is not used, since its image has another one",
                "caption files are not used, since their images have others",
            ),
            *unused_line(
                sorted(self.unused_json),
                "JSON file belongs to no image",
                "JSON files belong to no image",
            ),
        )


def _groups(names: Iterable[SampleName]) -> list[list[SampleName]]:
    """Returns the names of each group in the order of the names."""
    groups: dict[tuple[str, str], list[SampleName]] = {}
    for name in names:
        groups.setdefault(name.group, []).append(name)
    return list(groups.values())


def _by_image(
    records: Sequence[ImageRecord], matches: Mapping[int, str]
) -> tuple[dict[str, ImageRecord], list[Entry], list[ImageRecord]]:
    """Returns the first record of each image, the entries of missing ones, and other records."""
    described: dict[str, ImageRecord] = {}
    missing: dict[str, Entry] = {}
    repeated = []
    for at, record in enumerate(records):
        name = matches.get(at)
        if name is None and (absent := plain_name(record)) not in missing:
            missing[absent] = Entry(
                absent, None, fault="missing_image", detail=f"{record.where} names it"
            )
        elif name is not None and name not in described:
            described[name] = record
        else:
            repeated.append(record)
    return described, list(missing.values()), repeated


def _entries(
    files: Mapping[str, File],
    images: Sequence[str],
    described: Mapping[str, ImageRecord],
    pairs: _Pairs,
) -> list[Entry]:
    """Returns the entries of all images."""
    labelled = not described and not pairs.captions
    entries = []
    for name in images:
        record = described.get(name)
        entry = Entry(
            name,
            files[name],
            record.values if record else {},
            files.get(pairs.captions.get(name, "")),
            files.get(pairs.about.get(name, "")),
            posixpath.basename(posixpath.dirname(name)) or None if labelled else None,
        )
        is_extra = name in (pairs.auxiliary if labelled else pairs.extras)
        if is_extra and record is None:
            detail = describe_picture(pairs.extras[name])
            entry = dataclasses.replace(entry, fault="extra_image", detail=detail)
        entries.append(entry)
    return entries


def _full(path: str) -> str:
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def _label(folder: str | None, encoding: str | None) -> str | None:
    """Returns the caption that a folder's name stands for. Raises `UnknownEncoding`."""
    if folder is None:
        return None
    return decode_text(os.fsencode(folder), fallback=encoding).replace("_", " ")


def _content(file: File) -> Content:
    return Content(file.name, file.size, functools.partial(_read, file.path))


def _read(path: str) -> bytes:
    """Returns the content of a file. Raises `Unreadable` for one that this machine refuses."""
    try:
        with reading(path), open_file(path) as stream:
            return stream.read()  # type: ignore[attr-defined]
    except OSError as error:
        if "://" in path or error.errno not in REFUSED:
            raise
        reason = f"{error.strerror} ({errno.errorcode[error.errno]})"
        raise Unreadable("unreadable", f"{printable(os.path.basename(path))}: {reason}") from error
