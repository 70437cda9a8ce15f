"""Shards: many records in one file, read at random, and verified by checksum before use.

A record is one sample in the safetensors format: named arrays, and a JSON text under the one
metadata key ``json``. It says its own shapes and types, and equal content gives equal bytes. A
shard is an ArrayRecord file of such records, one record a chunk, uncompressed (latents and JPEG
images do not compress), so that any record costs one read.

ArrayRecord notices a flipped bit, but opens a missing or truncated file as an empty one. Therefore
nothing reads a shard before its size and SHA-256 are what `write_shard` said they were.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from pinxit.config import UsageError
from pinxit.files import disk_full, whole

SUFFIX = ".array_record"
OPTIONS = "group_size:1,uncompressed"
DTYPES: dict[str, np.dtype] = {
    "U8": np.dtype(np.uint8),
    "U16": np.dtype(np.uint16),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
}
"""The types a record may hold, by their safetensors names."""
FULL_WORDS = ("No space left on device", "File too large", "Disk quota exceeded")
"""How the writer, which loses the error's number, says that the disk is full."""


class DamagedShard(UsageError):
    """Why a shard cannot be used."""


@dataclass(frozen=True)
class ShardInfo:
    """What a shard's file must be."""

    name: str
    """File name, without folder."""
    count: int
    """Records."""
    bytes: int
    sha256: str


# --- records ----------------------------------------------------------------------------------


def pack(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> bytes:
    """One record: arrays of the `DTYPES`, and anything that JSON can say."""
    from safetensors.numpy import save

    for name, array in arrays.items():
        if array.dtype not in DTYPES.values():
            valid = ", ".join(str(dtype) for dtype in DTYPES.values())
            raise ValueError(f"arrays: {name} is {array.dtype}; valid: {valid}")
    text = json.dumps(meta, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    whole_arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(whole_arrays, metadata={"json": text})


def unpack(record: bytes | mmap.mmap) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays (views into the record, read-only) and the metadata; `DamagedShard` if malformed.

    A record's arrays keep the shapes and types they were packed with.
    """
    try:
        start = 8 + int.from_bytes(record[:8], "little")
        header = json.loads(record[8:start])
        meta = json.loads(header.pop("__metadata__")["json"])
        return {name: _array(record, start, entry) for name, entry in header.items()}, meta
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedShard(f"a record cannot be read: {error!r}") from error


def _array(record: bytes | mmap.mmap, start: int, entry: Mapping[str, Any]) -> np.ndarray:
    """One array of a record whose data begin at `start`."""
    dtype = DTYPES[entry["dtype"]]
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    count = int(np.prod(shape, dtype=np.int64))
    if begin < 0 or min(shape, default=0) < 0 or end - begin != dtype.itemsize * count:
        raise ValueError(f"shape {shape} does not fit its {end - begin} bytes")
    return np.frombuffer(record, dtype, count=count, offset=start + begin).reshape(shape)


def shape_name(shape: Sequence[int]) -> str:
    """ "32x32x4" of (32, 32, 4)."""
    return "x".join(str(side) for side in shape)


def parse_shape(name: str) -> tuple[int, ...]:
    """(32, 32, 4) of "32x32x4"."""
    return tuple(int(side) for side in name.split("x"))


# --- shards -----------------------------------------------------------------------------------


def write_shard(path: Path, records: Iterable[bytes]) -> ShardInfo:
    """Writes the records in their order, whole or not at all, and says what the file must be.

    Equal records give equal bytes. Raises `files.DiskFull` where there is no room.
    """
    with whole(path) as temporary:
        count = _write(path, temporary, records)
        with ShardReader(temporary) as reader:
            if len(reader) != count:
                raise OSError(errno.EIO, f"{count} records written, {len(reader)} found", str(path))
        return describe(temporary, name=path.name, count=count)


def describe(path: Path, *, name: str, count: int) -> ShardInfo:
    """What a file is, as found on the disk, under the `name` it is going to have."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ShardInfo(name=name, count=count, bytes=path.stat().st_size, sha256=digest)


def _write(path: Path, temporary: Path, records: Iterable[bytes]) -> int:
    """Writes the records to `temporary`; returns their number. `path` is for the message."""
    from array_record.python.array_record_module import ArrayRecordWriter

    count = 0
    with _writing(path):
        writer = ArrayRecordWriter(str(temporary), OPTIONS)
    try:
        for record in records:
            with _writing(path):
                writer.write(record)
            count += 1
    finally:
        with _writing(path):
            writer.close()
    return count


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns the writer's errors into `OSError`. It buffers, so that most come from closing."""
    try:
        yield
    except RuntimeError as error:
        if any(words in str(error) for words in FULL_WORDS):
            raise disk_full(path, str(error).partition(";")[0]) from error
        raise OSError(errno.EIO, str(error), str(path)) from error


def verify_shard(path: Path, info: ShardInfo) -> None:
    """Raises `DamagedShard` unless the file is there and is exactly what `info` says."""
    try:
        size = path.stat().st_size
        if size != info.bytes:
            raise DamagedShard(f"{path.name} has {size} bytes instead of {info.bytes}")
        found = describe(path, name=info.name, count=info.count)
    except FileNotFoundError as error:
        raise DamagedShard(f"{path.name} is missing") from error
    if found.sha256 != info.sha256:
        raise DamagedShard(f"{path.name} is damaged (its SHA-256 differs)")


def aside(path: Path) -> Path:
    """Where a damaged file goes."""
    return path.with_name(f"{path.name}.corrupt")


def set_aside(path: Path) -> str:
    """Renames a damaged file to ``<name>.corrupt``; what was done, in words."""
    try:
        os.replace(path, aside(path))
        return "set aside"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"left in place ({error.strerror})"


class ShardReader:
    """Records of one shard by number. `DamagedShard` when it, or one of its records, is damaged."""

    def __init__(self, path: Path) -> None:
        from array_record.python.array_record_module import ArrayRecordReader

        self.path = path
        if not path.is_file():
            raise DamagedShard(f"{path.name} is missing")
        with _reading(self.path):
            self._reader = ArrayRecordReader(str(path), "readahead_buffer_size:0")
            if not self._reader.ok():
                raise DamagedShard(f"{path.name} is no ArrayRecord file, or is truncated")
            self._count = self._reader.num_records()

    def __len__(self) -> int:
        return self._count

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """The records with these numbers."""
        with _reading(self.path):
            return self._reader.read([int(row) for row in rows])

    def __iter__(self) -> Iterator[bytes]:
        """All records in order, 64 at a time in memory."""
        for start in range(0, self._count, 64):
            yield from self.read(range(start, min(start + 64, self._count)))

    def close(self) -> None:
        """Frees the file."""
        with _reading(self.path):
            self._reader.close()

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns the reader's errors into `DamagedShard`."""
    try:
        yield
    except (RuntimeError, IndexError) as error:
        raise DamagedShard(f"{path.name}: {error}") from error
