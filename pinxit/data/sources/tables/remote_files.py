"""Opens remote files so that only the needed bytes are requested, and knows their versions.

A version is the size of a file and the mark by which its server tells one content from another.
A process asks for it once. A path on the hub names a commit, so that its content never changes.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pinxit.data.sources.files import open_file, reading, remote_info
from pinxit.data.sources.tables.machine_cache import (
    CacheFault,
    Draft,
    entry_name,
    machine_cache,
    say_fault,
)

MARKS = (
    *("LastModified", "last_modified", "Last-Modified", "mtime", "updated"),
    *("ETag", "etag", "generation", "md5Hash", "content_md5", "Content-MD5", "blob_id", "created"),
)
"""Names of the facts that change with the content, those that all servers of a site agree on
first."""
COMMIT = re.compile(r"hf://(?:datasets/)?[^@/]+/[^@/]+@[0-9a-f]{40}/")
PART = struct.Struct("<QQ")
"""The head of each kept part of a file: its offset and its length."""
UNMARKED_AGE = 24 * 3600.0
"""The time in seconds for which a part of a file without a mark is valid."""


@dataclass(frozen=True)
class RemoteVersion:
    """The version of a remote file."""

    size: int | None
    """The size in bytes; None if the server does not state it."""
    mark: str | None
    """The mark of the content; None if the server states none."""

    @property
    def max_age(self) -> float | None:
        """The time in seconds for which a kept part of the file is valid; None is for ever."""
        return UNMARKED_AGE if self.mark is None else None


def is_remote(path: str) -> bool:
    """Returns whether a path leads to another machine."""
    return "://" in path


@functools.lru_cache(maxsize=4096)
def version_of(path: str) -> RemoteVersion:
    """Returns the version that a remote file has when this process first asks."""
    with reading(path):
        info: dict[str, Any] = remote_info(path)
    if COMMIT.match(path):
        return RemoteVersion(info.get("size"), "commit")
    for name in MARKS:
        if info.get(name):
            return RemoteVersion(info.get("size"), f"{name} {info[name]}")
    return RemoteVersion(info.get("size"), None)


Ranges = list[tuple[int, bytes | memoryview]]
"""Parts of a file: the offset and the bytes of each, in the order of their offsets."""


class ExactFile(io.RawIOBase):
    """A remote file that is opened when it is first read, and read without reading ahead."""

    def __init__(self, path: str, size: int, known: Callable[[], Ranges] = list) -> None:
        """Sets the path and the size in bytes that the file must have. `known` returns the parts
        that need not be requested; it is called when the file is first read."""
        super().__init__()
        self._path, self._size = path, size
        self._stack = contextlib.ExitStack()
        self._known = functools.cache(known)
        self._stream: Any = None
        self._at = 0
        self.requested: Ranges | None = None
        """The parts that were requested, if this is a list."""

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
        """Moves to a position, without a request."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Reads `size` bytes, or fewer at the end of the file, or all that follow."""
        rest = max(0, self._size - self._at)
        stop = self._at + (rest if size is None or size < 0 else min(size, rest))
        pieces: list[bytes | memoryview] = []
        if self._at < stop:
            for offset, data in self._known():
                low, high = max(self._at, offset), min(stop, offset + len(data))
                if low < high:
                    pieces += [self._request(low), data[low - offset : high - offset]]
                    self._at = high
            pieces.append(self._request(stop))
        return b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer with the next bytes, and returns their number."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Closes the connection."""
        self._stack.close()
        super().close()

    def _request(self, stop: int) -> bytes:
        """Requests the bytes from the position to before `stop`, and moves there."""
        if self._at >= stop:
            return b""
        if self._stream is None:
            self._stream = self._opened()
        self._stream.seek(self._at)
        data = self._stream.read(stop - self._at)
        if len(data) != stop - self._at:
            raise ConnectionError(f"{len(data):,} of {stop - self._at:,} bytes were received")
        if self.requested is not None:
            self.requested.append((self._at, data))
        self._at = stop
        return data

    def _opened(self) -> Any:
        stream: Any = self._stack.enter_context(open_file(self._path, exact=True))
        size = getattr(stream, "size", None)
        if isinstance(size, int) and size != self._size:
            version_of.cache_clear()
            raise OSError(
                f"{self._path} has changed while it was read: it had {self._size:,} bytes, and has "
                f"{size:,} now"
            )
        return stream


@contextlib.contextmanager
def open_exact(path: str, size: int, *, look: bool = False) -> Iterator[ExactFile]:
    """Opens a remote file of `size` bytes by exact ranges.

    With `look`, the parts that are requested are kept, so that this machine need not request them
    again.
    """
    with ExactFile(path, size, functools.partial(kept_parts, path)) as stream:
        if look:
            stream.requested = []
        yield stream
        if stream.requested:
            keep_parts(path, stream.requested)


def kept_parts(path: str) -> Ranges:
    """Returns the parts of a remote file that were looked at, and are kept on this machine."""
    cache, version = machine_cache(), version_of(path)
    content = None
    if cache is not None:
        content = cache.open(entry_name("parts", path, version), max_age=version.max_age)
    parts: Ranges = []
    at = 0
    while content is not None and at < len(content):
        offset, length = PART.unpack(content[at : at + PART.size])
        at += PART.size
        parts.append((offset, content[at : at + length]))
        at += length
    return parts


def keep_parts(path: str, parts: Ranges) -> None:
    """Keeps parts of a remote file on this machine, if it can, besides those that are kept."""
    cache, version = machine_cache(), version_of(path)
    if cache is None:
        return
    name = entry_name("parts", path, version)
    with cache.locked(name):
        parts = sorted([*kept_parts(path), *parts], key=lambda part: part[0])
        try:
            with Draft(cache, name) as draft:
                for offset, data in parts:
                    draft.write(PART.pack(offset, len(data)))
                    draft.write(data)
                draft.commit()
        except CacheFault as fault:
            say_fault(cache.folder, str(fault))
