"""Opens text files as lines of UTF-8 bytes, whatever their compression and encoding are.

A gzipped file is recognised by its content, not by its name. UTF-16 and UTF-32 files are converted
to UTF-8 while they are read. Offsets count the bytes after both steps. Seeking backwards in such a
file reads it from its beginning.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from typing import Any

from pinxit.config import UsageError
from pinxit.data.sources.damage import DamagedFile
from pinxit.data.sources.files import open_file, reading
from pinxit.data.sources.tables.kept_lines import copied_lines, keep_whole, kept_lines
from pinxit.data.sources.tables.open_tables import LastOpened
from pinxit.data.sources.tables.remote_files import ExactFile, is_remote, open_exact, version_of
from pinxit.lfs_pointer import described_pointer, is_pointer
from pinxit.text_decoding import SAMPLE, announced_encoding

GZIP = b"\x1f\x8b"
OTHERS = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip (a zipped table, or an Excel workbook)",
    b"\xd0\xcf\x11\xe0": "Excel (.xls)",
    b"PAR1": "parquet",
}
"""The first bytes of files that are not text, and the names of their formats."""
NO_TABLES = {
    b"<!doctype": "is an HTML page, not a table",
    b"<html": "is an HTML page, not a table",
}
"""The first bytes of texts that stand in the place of a file, in lower case."""
WIDE = ("utf-16", "utf-32")
"""Encodings in which a line break is more than one byte."""
CHUNK = 2**16
"""The number of bytes that are converted at a time."""
LOOK_BUFFER, UNIT_BUFFER, PASS_BUFFER = 2**17, 2**17, 2**22
"""The number of bytes of a remote file that are requested at a time: for a look at its beginning,
for a unit, and for all of it."""
MOST_NULS = 1 / 8
"""The largest share of NUL bytes in the beginning of a text whose encoding is not UTF-16."""


@contextmanager
def open_lines(path: str, *, text_encoding: str | None = None) -> Iterator[io.IOBase]:
    """Opens a text file as bytes, unpacked if it is gzipped, and in UTF-8 if it was UTF-16.

    Only plain files are meant to be read backwards. A declared `text_encoding` counts here only if
    it is UTF-16 or UTF-32. Raises `DamagedFile` for files that are empty, damaged or no text.
    """
    opening = partial(_opened, path, text_encoding=text_encoding, look=True)
    with _named_damage(path):
        lines = kept_lines(path, text_encoding, opening) if is_remote(path) else None
        with opening() if lines is None else lines as stream:
            yield stream


@contextmanager
def lines_once(path: str, *, text_encoding: str | None = None) -> Iterator[io.IOBase]:
    """Opens a text file as `open_lines` does, to be read once from its beginning.

    The lines that were read of a remote file are kept on this machine.
    """
    if not is_remote(path):
        with open_lines(path, text_encoding=text_encoding) as stream:
            yield stream
        return
    opening = partial(_opened, path, text_encoding=text_encoding, buffer=PASS_BUFFER)
    with _named_damage(path), copied_lines(path, text_encoding, opening) as stream:
        yield stream


@contextmanager
def lines_from(path: str, offset: int, *, text_encoding: str | None = None) -> Iterator[io.IOBase]:
    """Opens a text file as `open_lines` does, at an offset.

    A local file stays open afterwards, for a reader that goes on at the same offset or later. A
    remote file that can only be read from its beginning is downloaded once per machine.
    """
    opening = partial(open_lines, path, text_encoding=text_encoding)
    if is_remote(path):
        opened = _remote_lines(path, offset, text_encoding)
    else:
        opened = _LAST.taken(path, text_encoding, opening, lambda stream: stream.tell() <= offset)
    with _named_damage(path), opened as stream:
        stream.seek(offset)
        yield stream


_LAST: LastOpened[io.IOBase] = LastOpened()


@lru_cache(maxsize=4096)
def from_beginning(path: str, text_encoding: str | None) -> bool:
    """Returns whether a remote text file can only be read from its beginning."""
    with _opened(path, text_encoding=text_encoding, buffer=SAMPLE, look=True) as stream:
        return not _seeks(stream)


@contextmanager
def _remote_lines(path: str, offset: int, text_encoding: str | None) -> Iterator[io.IOBase]:
    """Opens a remote text file for a unit at an offset."""
    opening = partial(_opened, path, text_encoding=text_encoding, buffer=UNIT_BUFFER)
    lines = kept_lines(path, text_encoding, opening)
    if lines is None and offset > UNIT_BUFFER and from_beginning(path, text_encoding):
        keep_whole(path, text_encoding, partial(opening, buffer=PASS_BUFFER))
        lines = kept_lines(path, text_encoding, opening)
    with opening() if lines is None else lines as stream:
        yield stream


@contextmanager
def _opened(
    path: str, *, text_encoding: str | None, buffer: int = LOOK_BUFFER, look: bool = False
) -> Iterator[io.IOBase]:
    """Opens the file itself. A remote one is requested in pieces of `buffer` bytes, which are kept
    with `look`."""
    with _named_damage(path), ExitStack() as stack:
        stream: io.IOBase
        if is_remote(path) and (size := version_of(path).size) is not None:
            file = stack.enter_context(open_exact(path, size, look=look))
            stream = stack.enter_context(io.BufferedReader(file, buffer))
        else:
            stream = stack.enter_context(open_file(path))
        if _beginning(stream, len(GZIP)) == GZIP:
            stream = gzip.GzipFile(fileobj=stream, mode="rb")  # type: ignore[arg-type]
        sample = _beginning(stream, SAMPLE)
        _check_text(sample, path)
        encoding, mark = _wide_encoding(sample, path, text_encoding)
        if encoding is None:
            yield stream
        else:
            yield io.BufferedReader(_Converted(stream, encoding, mark))


def _seeks(stream: io.IOBase) -> bool:
    """Returns whether seeking in a remote file reads nothing before the new position."""
    return isinstance(stream, io.BufferedReader) and isinstance(stream.raw, ExactFile)


@contextmanager
def _named_damage(path: str) -> Iterator[None]:
    """Names the file in errors of reading and unpacking it."""
    with reading(path):
        try:
            yield
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DamagedFile(f"{path} is damaged: {error}") from error


class _Converted(io.RawIOBase):
    """A stream in UTF-16 or UTF-32, read as UTF-8.

    What cannot be decoded becomes bytes that are not UTF-8, so that it is found in its own record.
    """

    def __init__(self, stream: io.IOBase, encoding: str, mark: int) -> None:
        super().__init__()
        self._stream, self._encoding, self._mark = stream, encoding, mark
        self._restart()

    def _restart(self) -> None:
        self._stream.seek(self._mark)
        self._decoder = codecs.getincrementaldecoder(self._encoding)(errors=LONE)
        self._ready, self._position, self._ended = b"", 0, False

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True, although seeking reads all bytes before the position."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer with the next bytes, and returns their number."""
        while not self._ready and not self._ended:
            data = self._stream.read(CHUNK)  # type: ignore[attr-defined]
            self._ended = not data
            text = self._decoder.decode(data, final=self._ended)
            self._ready = text.encode("utf-8", "surrogatepass")
        part, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def tell(self) -> int:
        """Returns the number of UTF-8 bytes before the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a number of UTF-8 bytes after the beginning, or after the position."""
        if whence not in (io.SEEK_SET, io.SEEK_CUR):
            raise io.UnsupportedOperation("the length of converted text is not known")
        target = offset + (self._position if whence == io.SEEK_CUR else 0)
        if target < self._position:
            self._restart()
        while self._position < target and self.read(min(CHUNK, target - self._position)):
            pass
        return self._position


def _lone_surrogate(error: UnicodeError) -> tuple[str, int]:
    """Replaces undecodable bytes by a character that has no UTF-8 form."""
    assert isinstance(error, UnicodeDecodeError)
    return "\udfff", error.end


LONE = "pinxit.lone_surrogate"
codecs.register_error(LONE, _lone_surrogate)


def _beginning(stream: io.IOBase, size: int) -> bytes:
    data = stream.read(size)  # type: ignore[attr-defined]
    stream.seek(0)
    return data


def _check_text(sample: bytes, path: str) -> None:
    if not sample:
        raise DamagedFile(f"{path} is empty (no bytes)")
    for magic, form in OTHERS.items():
        if sample.startswith(magic) and not sample.isascii():
            raise DamagedFile(f"{path} is not text but {form}; unpack or export it as text first")
    if is_pointer(sample):
        raise DamagedFile(described_pointer(path, len(sample)))
    for beginning, problem in NO_TABLES.items():
        if sample.lstrip().lower().startswith(beginning):
            raise DamagedFile(f"{path} {problem}")


def _wide_encoding(sample: bytes, path: str, declared: str | None) -> tuple[str | None, int]:
    """Returns the encoding of a file in UTF-16 or UTF-32, or None, and the length of its mark."""
    encoding, mark = announced_encoding(sample[: len(sample) // 2 * 2])
    if encoding is not None:
        return (encoding, mark) if encoding.startswith(WIDE) else (None, 0)
    if sample.count(0) <= MOST_NULS * len(sample):
        return None, 0
    if declared is not None and declared.startswith(WIDE):
        return declared, 0
    raise UsageError(
        f"{path} has many NUL bytes and no byte order mark; it is probably UTF-16: set "
        "--text_encoding utf-16-le (or utf-16-be), or save it as UTF-8"
    )
