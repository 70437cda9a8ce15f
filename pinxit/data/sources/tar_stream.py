"""Reading a tar archive as one stream, without trusting it.

Archives come from strangers. No member is written anywhere, links, devices and sparse members are
refused, and names that climb (``..``) or begin at the root are skipped.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

from pinxit.config import UsageError

BLOCK = 512
CHUNK = 2**20
LARGEST_HEADER = 2**16
"""The most bytes of a header that holds a long name."""
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
BODILESS = (
    *(tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE),
    *(tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE),
)


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
            raise UsageError(f"{path} is damaged: {error}") from error
        if head.type == tarfile.GNUTYPE_SPARSE or "GNU.sparse.major" in override:
            raise UsageError(f"{path} has a sparse member ({head.name!r}): refused")
        size = 0 if head.type in BODILESS else _size(override.get("size"), head.size, path)
        body = Body(stream, size, path)
        padding = -size % BLOCK
        if head.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
            if size > LARGEST_HEADER:
                raise UsageError(f"{path} has a header of {size} bytes: refused")
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
            raise UsageError(f"{path} is damaged: it ends before its end mark")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _size(stated: str | None, head: int, path: str) -> int:
    """The bytes of a member: a PAX header's figure, else its own header's."""
    size = int(stated) if stated is not None and stated.isdecimal() else head
    if size < 0:
        raise UsageError(f"{path} is damaged: a member of {size} bytes")
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
