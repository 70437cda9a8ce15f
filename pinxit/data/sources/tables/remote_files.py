"""Opens remote files so that only the needed bytes are requested, and knows their versions.

A version is the size of a file and the mark by which its server tells one content from another.
A process asks for it once. A path on the hub names a commit, so that its content never changes.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
from dataclasses import dataclass
from typing import Any

from pinxit.data.sources.files import open_file, remote_info

MARKS = (
    *("LastModified", "last_modified", "Last-Modified", "mtime", "updated"),
    *("ETag", "etag", "generation", "md5Hash", "content_md5", "Content-MD5", "blob_id", "created"),
)
"""Names of the facts that change with the content, those that all servers of a site agree on
first."""
COMMIT = re.compile(r"hf://(?:datasets/)?[^@/]+/[^@/]+@[0-9a-f]{40}/")
UNMARKED_AGE = 24 * 3600.0
"""How long a part of a file without a mark is valid, in seconds."""


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
    info: dict[str, Any] = remote_info(path)
    if COMMIT.match(path):
        return RemoteVersion(info.get("size"), "commit")
    for name in MARKS:
        if info.get(name):
            return RemoteVersion(info.get("size"), f"{name} {info[name]}")
    return RemoteVersion(info.get("size"), None)


class ExactFile(io.RawIOBase):
    """A remote file that is opened when it is first read, and read without reading ahead."""

    def __init__(self, path: str, size: int) -> None:
        """Sets the path and the size in bytes that the file must have."""
        super().__init__()
        self._path, self._size = path, size
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
        """Moves to a position, without a request."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Reads up to `size` bytes, or all that follow, in one request."""
        rest = max(0, self._size - self._at)
        size = rest if size is None or size < 0 else min(size, rest)
        if not size:
            return b""
        if self._stream is None:
            self._stream = self._opened()
        self._stream.seek(self._at)
        data = self._stream.read(size)
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer with the next bytes, and returns their number."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Closes the connection."""
        self._stack.close()
        super().close()

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
