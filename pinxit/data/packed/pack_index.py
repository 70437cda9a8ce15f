"""The index of a pack: where each record lies, and its checksum.

A pack is a file of records that lie one after another, with nothing between them. Its index is a
second file, of 8 bytes for each record and little-endian::

    8 bytes               MAGIC
    8 bytes               the number of records
    32 bytes              the SHA-256 of the pack
    (records + 1) x 4     the offset of each record, and the size of the pack
    records x 4           the CRC-32 of each record

Record ``i`` is the bytes from ``offsets[i]`` to ``offsets[i + 1]``. A pack has less than 4 GiB.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt32

MAGIC = b"PXPACK1\n"
LARGEST = 2**32 - 1
"""The most bytes that a pack may have."""
PACK = ".pack"
"""The suffix of a pack."""
INDEX = ".index"
"""The suffix of the index of a pack."""
_HEADER = struct.Struct("<8sQ32s")
_NUMBERS = np.dtype("<u4")


class DamagedPack(ValueError):
    """Raised when a pack or its index cannot be used. The message is the reason."""


@dataclass(frozen=True, eq=False)
class PackIndex:
    """The places and checksums of the records of a pack."""

    sha256: str
    """The SHA-256 of the pack, in hex digits."""
    offsets: UInt32[np.ndarray, " m"]
    """The first byte of each record, and the size of the pack: one more than there are records."""
    checksums: UInt32[np.ndarray, " n"]
    """The CRC-32 of each record."""

    def __len__(self) -> int:
        return len(self.checksums)

    @property
    def size(self) -> int:
        """The size of the pack in bytes."""
        return int(self.offsets[-1])

    def place(self, record: int) -> tuple[int, int]:
        """Returns the first byte of a record, and the byte after its last."""
        return int(self.offsets[record]), int(self.offsets[record + 1])

    def fits(self, record: int, content: bytes) -> bool:
        """Returns whether these bytes are those of a record."""
        start, stop = self.place(record)
        return len(content) == stop - start and zlib.crc32(content) == int(self.checksums[record])

    def to_bytes(self) -> bytes:
        """Returns the content of the index's file."""
        header = _HEADER.pack(MAGIC, len(self), bytes.fromhex(self.sha256))
        numbers = (self.offsets.astype(_NUMBERS), self.checksums.astype(_NUMBERS))
        return b"".join([header, *(array.tobytes() for array in numbers)])

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> PackIndex:
        """Reads the content of an index's file. Raises `DamagedPack` if it is malformed."""
        if len(content) < _HEADER.size or not content.startswith(MAGIC):
            raise DamagedPack(f"{name} is not the index of a pack")
        _, count, digest = _HEADER.unpack_from(content)
        if len(content) != _HEADER.size + 4 * (2 * count + 1):
            raise DamagedPack(f"{name} has {len(content)} bytes, which do not fit {count} records")
        numbers = np.frombuffer(content, _NUMBERS, offset=_HEADER.size)
        offsets, checksums = numbers[: count + 1], numbers[count + 1 :]
        if offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
            raise DamagedPack(f"{name} has offsets that do not ascend from 0")
        return cls(digest.hex(), offsets, checksums)


def index_name(pack: str) -> str:
    """Returns the name of the index of a pack."""
    return pack.removesuffix(PACK) + INDEX
