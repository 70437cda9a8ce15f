"""Keeps the lines of remote text tables on this machine, so that they are downloaded once.

Listing the units of a table reads it from its beginning. Meanwhile its lines are written to the
machine's cache, unpacked and in UTF-8, and the workers read them there. If only the first units are
listed, that is the beginning of the table, which is read from the network where it ends.

A table that another machine has listed is downloaded when it is first read, if it can only be read
from its beginning. Other tables are read by ranges then.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from pinxit.config import UsageError
from pinxit.data.sources.tables.machine_cache import (
    STALE_SECONDS,
    CacheFault,
    Draft,
    MachineCache,
    entry_name,
    machine_cache,
    say_fault,
)
from pinxit.data.sources.tables.remote_files import version_of

BUFFER = 2**18
"""The number of kept bytes that are read at a time."""
COPIED = 2**20
"""The number of bytes that are copied at a time."""
WHOLE, BEGINNING = b"1", b"0"
"""The last byte of an entry: whether its lines are the whole table or only its beginning."""

Opening = Callable[[], AbstractContextManager[io.IOBase]]
"""Opens the lines of a remote table at its beginning."""


class KeptLines(io.RawIOBase):
    """The kept lines of a table. Where they end, reading goes on in the remote table."""

    def __init__(self, content: memoryview, rest: Opening | None) -> None:
        """Sets the kept lines. `rest` opens the table if they are only its beginning."""
        super().__init__()
        self._content, self._rest = content, rest
        self._stack = contextlib.ExitStack()
        self._stream: Any = None
        self._at = 0

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a number of bytes after the beginning, or after the position."""
        if whence not in (io.SEEK_SET, io.SEEK_CUR):
            raise io.UnsupportedOperation("the length of the table is not known")
        self._at = max(0, offset + (self._at if whence == io.SEEK_CUR else 0))
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer with the next bytes, and returns their number."""
        if self._at < len(self._content):
            data = self._content[self._at : self._at + len(buffer)]
        elif self._rest is None:
            return 0
        else:
            if self._stream is None:
                self._stream = self._stack.enter_context(self._rest())
            if self._stream.tell() != self._at:
                self._stream.seek(self._at)
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Closes the connection."""
        self._stack.close()
        super().close()


def kept_lines(path: str, encoding: str | None, opening: Opening) -> io.IOBase | None:
    """Returns the lines of a remote table that this machine keeps, or None if there are none."""
    cache = machine_cache()
    if cache is None:
        return None
    content, is_whole = _found(cache, path, encoding)
    if content is None:
        return None
    return io.BufferedReader(KeptLines(content, None if is_whole else opening), BUFFER)


@contextlib.contextmanager
def copied_lines(path: str, encoding: str | None, opening: Opening) -> Iterator[io.IOBase]:
    """Opens the lines of a remote table to be read once from its beginning, and keeps those that
    were read. Other processes that need them wait meanwhile."""
    cache = machine_cache()
    if cache is None:
        with opening() as stream:
            yield stream
        return
    with cache.locked(_name(path, encoding)), contextlib.ExitStack() as stack:
        content, is_whole = _found(cache, path, encoding)
        known = None if content is None else KeptLines(content, None if is_whole else opening)
        lines: Any = stack.enter_context(opening() if known is None else known)
        if is_whole or not _may_keep(cache, path, encoding):
            yield lines if content is None else io.BufferedReader(lines, BUFFER)
            return
        with _Copied(lines, cache, _name(path, encoding)) as copied:
            try:
                yield io.BufferedReader(copied, COPIED)
            except (GeneratorExit, UsageError):  # enough was read, or the rest is damaged
                if content is None or copied.length > len(content):
                    copied.keep(BEGINNING)
                raise
            copied.keep(WHOLE if copied.ended else BEGINNING)
            if copied.fault is not None:
                _give_up(cache, path, encoding)


def keep_whole(path: str, encoding: str | None, opening: Opening) -> None:
    """Downloads the lines of a remote table, unless this machine keeps them already.

    A damaged table is kept up to the damage.
    """
    with contextlib.suppress(UsageError), copied_lines(path, encoding, opening) as stream:
        copied = stream.raw if isinstance(stream, io.BufferedReader) else None
        while isinstance(copied, _Copied) and copied.fault is None and stream.read(COPIED):
            pass


class _Copied(io.RawIOBase):
    """A stream whose bytes are written to a draft while they are read."""

    def __init__(self, stream: Any, cache: MachineCache, name: str) -> None:
        super().__init__()
        self._stream, self._cache = stream, cache
        self._stack = contextlib.ExitStack()
        self._draft: Draft | None = None
        self.fault: CacheFault | None = None
        """The reason why the draft is not complete, if any."""
        self.length = 0
        """The number of bytes read."""
        self.ended = False
        """Whether the end of the stream was reached."""
        with self._noted():
            self._draft = self._stack.enter_context(Draft(cache, name))

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True, although only the bytes from the position on can be reached."""
        return True

    def tell(self) -> int:
        """Returns the position in bytes."""
        return self.length

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Reads the bytes before a position, which must not be before the current one."""
        target = offset + (self.length if whence == io.SEEK_CUR else 0)
        if whence == io.SEEK_END or target < self.length:
            raise io.UnsupportedOperation("the lines are read once, from the beginning")
        while self.length < target and self.read(min(BUFFER, target - self.length)):
            pass
        return self.length

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer with the next bytes, and returns their number."""
        data = self._stream.read(len(buffer))
        if data and self._draft is not None and self.fault is None:
            with self._noted():
                self._draft.write(data)
        buffer[: len(data)] = data
        self.length += len(data)
        self.ended = not data
        return len(data)

    def keep(self, kind: bytes) -> None:
        """Makes the bytes that were read an entry, if they could all be written."""
        if self._draft is not None and self.fault is None:
            with self._noted():
                self._draft.write(kind)
                self._draft.commit()

    def close(self) -> None:
        """Discards the draft unless it was kept. The stream stays open."""
        self._stack.close()
        super().close()

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except CacheFault as fault:
            self.fault = fault
            say_fault(self._cache.folder, str(fault))


def _found(cache: MachineCache, path: str, encoding: str | None) -> tuple[memoryview | None, bool]:
    """Returns the kept lines of a table, and whether they are the whole table."""
    content = cache.open(_name(path, encoding), max_age=version_of(path).max_age)
    if not content:
        return None, False
    return content[:-1], content[-1:] == WHOLE


def _may_keep(cache: MachineCache, path: str, encoding: str | None) -> bool:
    """Returns whether a table may fit the cache, and no process has found lately that it does
    not."""
    size = version_of(path).size
    if size is not None and size > cache.most_bytes():
        return False
    return cache.open(_name(path, encoding, "too large"), max_age=STALE_SECONDS) is None


def _give_up(cache: MachineCache, path: str, encoding: str | None) -> None:
    """Notes for all processes that a table cannot be kept."""
    with contextlib.suppress(CacheFault), Draft(cache, _name(path, encoding, "too large")) as draft:
        draft.write(b"-")
        draft.commit()


def _name(path: str, encoding: str | None, kind: str = "lines") -> str:
    return entry_name(kind, path, version_of(path), encoding)
