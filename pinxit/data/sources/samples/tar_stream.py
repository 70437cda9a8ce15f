"""Reads a tar archive as one stream, without trusting it.

Archives come from the web. No member is written to disk and sparse members are refused. The content
of links, devices and members with absolute names or ``..`` in their names is never used.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from pinxit.config import UsageError

BLOCK = 512
CHUNK = 2**20
LARGEST_HEADER = 2**16
"""The largest accepted header of a long name, in bytes."""
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
HEADERS = (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK, b"V", b"D", b"M", tarfile.SOLARIS_XHDTYPE)
"""Members that say something about others or about the archive."""
BODILESS = (
    *(tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE),
    *(tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE),
)


class Body:
    """The content of one member. It must be read before the iteration moves to the next member."""

    def __init__(self, stream: io.IOBase, size: int, path: str) -> None:
        self._stream, self.left, self._path = stream, size, path

    def read(self, size: int) -> bytes:
        """Returns the next `size` bytes of the member, or all remaining ones if there are fewer."""
        count = min(size, self.left)
        self.left -= count
        return read_exactly(self._stream, count, self._path)

    def skip(self, *, seek: bool = False) -> None:
        """Skips the rest of the member. If a `seek` passes the file's end, the next read fails."""
        if seek and self.left > BLOCK:
            self._stream.seek(self.left, io.SEEK_CUR)
            self.left = 0
        while self.left:
            self.read(CHUNK)


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive, other than a folder."""

    name: str
    size: int
    """The size in bytes."""
    offset: int
    """The position of its content in the archive, in bytes."""
    body: Body
    problem: str = ""
    """The reason why its content is not used, such as "a link"; otherwise empty."""


def members(stream: io.IOBase, path: str, *, seek: bool = False) -> Iterator[Member]:
    """Yields each member that is not a folder, in one pass over a stream that is at its beginning.

    With `seek`, the rest of a body is skipped without reading it. Raises ValueError for a damaged
    or truncated archive and for a sparse member.
    """
    override: dict[str, str] = {}
    position = 0
    while True:
        block = read_exactly(stream, BLOCK, path)
        position += BLOCK
        if not any(block):  # the end-of-archive marker
            return
        try:
            head = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise UsageError(f"{path} is damaged: {error}") from error
        if head.type == tarfile.GNUTYPE_SPARSE or "GNU.sparse.major" in override:
            raise UsageError(f"{path} is refused: it has a sparse member ({head.name!r})")
        size = 0 if head.type in BODILESS else _size(override.get("size"), head.size, path)
        body = Body(stream, size, path)
        padding = -size % BLOCK
        if head.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
            if size > LARGEST_HEADER:
                raise UsageError(f"{path} is refused: it has a header of {size} bytes")
            data = body.read(size)
            long = head.type == tarfile.GNUTYPE_LONGNAME
            override |= {"path": _decode(data.split(b"\0")[0])} if long else _pax(data)
        else:
            name = override.get("path", head.name)
            override = {}
            if head.type != tarfile.DIRTYPE and head.type not in HEADERS:
                yield Member(name, size, position, body, _problem(head.type, name))
        body.skip(seek=seek)
        read_exactly(stream, padding, path)
        position += size + padding


def _problem(kind: bytes, name: str) -> str:
    """Returns the reason why the content of a member is not used, or an empty string."""
    if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        return "a link in the archive"
    if kind not in REGULAR:
        return "not a regular file in the archive"
    return "" if is_safe(name) else "its name leads out of the archive"


def is_safe(name: str) -> bool:
    """Returns whether a member would stay inside the folder that an archive is unpacked to."""
    parts = name.replace("\\", "/").split("/")
    return bool(name) and parts[0] != "" and ".." not in parts and ":" not in parts[0]


def read_exactly(stream: io.IOBase, size: int, path: str) -> bytes:
    """Returns exactly `size` bytes. Raises ValueError if the archive ends earlier."""
    parts = []
    remaining = size
    while remaining:
        part = stream.read(remaining)  # type: ignore[attr-defined]
        if not part:
            raise UsageError(f"{path} is damaged: it ends before its end-of-archive marker")
        parts.append(part)
        remaining -= len(part)
    return b"".join(parts)


def _size(stated: str | None, head: int, path: str) -> int:
    """Returns the size of a member in bytes, from its PAX header or else from its own header."""
    size = int(stated) if stated is not None and stated.isdecimal() else head
    if size < 0:
        raise UsageError(f"{path} is damaged: a member states a size of {size} bytes")
    return size


def _pax(data: bytes) -> dict[str, str]:
    """Parses the records ``<length> <keyword>=<value>`` of a PAX header."""
    pax = {}
    while data:
        digits, space, _ = data.partition(b" ")
        if not space or not digits.isdigit() or not 0 < int(digits) <= len(data):
            break
        keyword, _, value = data[len(digits) + 1 : int(digits) - 1].partition(b"=")
        pax[_decode(keyword)] = _decode(value)
        data = data[int(digits) :]
    return pax


def _decode(data: bytes) -> str:
    return data.decode("utf-8", errors="surrogateescape")
