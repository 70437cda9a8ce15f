"""Reads WebDataset tars, in the form that img2dataset writes: an image and its texts share a name.

``000000017.jpg``, ``000000017.txt`` and ``000000017.json`` form one sample; `sample_names` decides.
The caption comes from the text file, or else from the JSON. Archives come from the web, so that
only `tar_stream` reads them: no command is run (``pipe:``), nothing is unpickled (tensors and
pickles are skipped unread), and no member larger than a limit is held in memory.

The samples are the first rows of an archive, in its order. An image without a text, a text without
an image and a member that is too large have their rows among them. The rows after them stand for
all other images and captions: masks, second captions, links. Each has a status and a name.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

from pinxit.config import UsageError
from pinxit.data.row import Row, Unit
from pinxit.data.sources.columns import Columns, unreadable
from pinxit.data.sources.file_names import printable
from pinxit.data.sources.files import File, open_file, reading
from pinxit.data.sources.samples.sample_rows import Content, row_of_sample
from pinxit.data.sources.samples.tar_samples import (
    Extra,
    Part,
    TarSample,
    read_plan,
    streamed_samples,
)


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
    text_encoding: str | None = None
    """The encoding of captions that are not Unicode; none means that their rows are bad_text."""

    def units(self, *, limit: int | None = None) -> list[Unit]:
        """Returns one unit per tar. Its number of samples is only known after reading it."""
        files = self.files[:limit]
        return [Unit(f"{index:05d}-000", file.path) for index, file in enumerate(files)]

    def read(self, unit: Unit) -> Iterator[Row]:
        """Yields the rows of a tar in order. Raises ValueError if the archive is damaged."""
        for number, item in enumerate(_rows(unit.path)):
            key = f"{unit.id}/{number:08d}"
            if isinstance(item, TarSample):
                yield self._row(key, item)
            else:
                name = printable(item.path)
                yield unreadable(key, item.status, name=name, detail=item.detail)

    def count(self, unit: Unit) -> int:
        """Counts the rows of a tar, and reads only the headers where the file allows seeking."""
        with reading(unit.path), open_file(unit.path) as stream:
            return read_plan(stream, unit.path).rows

    def _row(self, key: str, sample: TarSample) -> Row:
        if sample.image is None:
            name = printable(sample.parts[0].name.path)
            return unreadable(key, "no_image", name=name, detail="no image has this name")
        return row_of_sample(
            key,
            self.columns,
            image=_content(sample.image),
            caption=_content(sample.caption) if sample.caption else None,
            json_file=_content(sample.about) if sample.about else None,
            encoding=self.text_encoding,
        )


def _rows(path: str) -> Iterator[TarSample | Extra]:
    """Yields the samples of an archive with their content, and then its other members."""
    extras: list[Extra] = []
    with reading(path), open_file(path, stream=True) as stream:
        streamed = yield from streamed_samples(stream, path, extras)
    if streamed is not None:
        with reading(path), _open_seekable(path) as stream:
            plan = read_plan(stream, path)
            for sample in plan.samples[streamed:]:
                yield sample.read(stream, path)
        extras = plan.extras
    yield from extras


def _content(part: Part) -> Content:
    return Content(part.name.path, part.size, lambda: part.data or b"")


def _open_seekable(path: str) -> io.IOBase:
    stream = open_file(path)
    if not stream.seekable():
        stream.close()
        raise UsageError(
            f"{path} cannot be read as a stream, since the members of a sample do not follow one "
            "another; download it first"
        )
    return stream
