"""Writes and reads shards: files of many records with random access and a checksum.

A record is one sample in the safetensors format: named arrays, and a JSON text under the only
metadata key, ``json``. It contains its own shapes and types, and equal content gives equal bytes. A
shard is an ArrayRecord file of such records. Each record is an uncompressed chunk of its own
(latents and JPEG images do not compress), so that reading a record takes one read.

ArrayRecord detects a flipped bit, but opens a missing or truncated file as an empty one. A shard is
therefore only read after its size matches the value that `write_shard` returned. `verify_shard`
compares its SHA-256, too; `unit_readers` says when.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from pinxit.config import UsageError
from pinxit.data.prepared.read_errors import errno_in
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
"""The array types that a record may hold, by their safetensors names."""
PIECE = 2**20
"""The number of bytes that are hashed at a time."""
FULL_WORDS = ("No space left on device", "File too large", "Disk quota exceeded")
"""Messages of the writer for a full disk. It does not report the error number."""


class DamagedShard(UsageError):
    """Raised when a shard cannot be used. The message is the reason."""


@dataclass(frozen=True)
class ShardInfo:
    """The expected properties of a shard's file."""

    name: str
    """The file name without its folder."""
    count: int
    """The number of records."""
    bytes: int
    """The size of the file."""
    sha256: str
    """The SHA-256 of the file, in hex digits."""


# --- records ----------------------------------------------------------------------------------


def pack(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> bytes:
    """Returns the bytes of one record: arrays of any of the `DTYPES`, and JSON metadata."""
    from safetensors.numpy import save

    for name, array in arrays.items():
        if array.dtype not in DTYPES.values():
            valid = ", ".join(str(dtype) for dtype in DTYPES.values())
            raise ValueError(f"arrays: {name} is {array.dtype}; valid: {valid}")
    text = json.dumps(meta, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    whole_arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(whole_arrays, metadata={"json": text})


def unpack(record: bytes | mmap.mmap) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the arrays (read-only views into the record) and the metadata of a record.

    The arrays have the shapes and types with which they were packed. Raises `DamagedShard` if the
    record is malformed.
    """
    try:
        start = 8 + int.from_bytes(record[:8], "little")
        header = json.loads(str(record[8:start], "utf-8"))
        meta = json.loads(header.pop("__metadata__")["json"])
        return {name: _array(record, start, entry) for name, entry in header.items()}, meta
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedShard(f"a record cannot be read: {error!r}") from error


def _array(record: bytes | mmap.mmap, start: int, entry: Mapping[str, Any]) -> np.ndarray:
    """Returns one array of a record whose data begin at `start`."""
    dtype = DTYPES[entry["dtype"]]
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    count = math.prod(shape)
    if begin < 0 or min(shape, default=0) < 0 or end - begin != dtype.itemsize * count:
        raise ValueError(f"shape {shape} does not fit its {end - begin} bytes")
    return np.frombuffer(record, dtype, count=count, offset=start + begin).reshape(shape)


def shape_name(shape: Sequence[int]) -> str:
    """Returns the name of a shape: "32x32x4" for (32, 32, 4)."""
    return "x".join(str(side) for side in shape)


def parse_shape(name: str) -> tuple[int, ...]:
    """Parses the name of a shape: "32x32x4" gives (32, 32, 4)."""
    return tuple(int(side) for side in name.split("x"))


# --- shards -----------------------------------------------------------------------------------


def write_shard(path: Path, records: Iterable[bytes]) -> ShardInfo:
    """Writes the records in order, atomically, and returns the properties of the file.

    Equal records give equal bytes. Raises `files.DiskFull` if the disk is full.
    """
    with whole(path) as temporary:
        count = _write(path, temporary, records)
        with ShardReader(temporary) as reader:
            if len(reader) != count:
                raise OSError(errno.EIO, f"{count} records written, {len(reader)} found", str(path))
        return describe(temporary, name=path.name, count=count)


def describe(path: Path, *, name: str, count: int) -> ShardInfo:
    """Returns the properties of the file at `path`, under the `name` that it will get."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ShardInfo(name=name, count=count, bytes=path.stat().st_size, sha256=digest)


def _write(path: Path, temporary: Path, records: Iterable[bytes]) -> int:
    """Writes the records to `temporary` and returns their number. Errors name `path`."""
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
    """Converts the writer's errors to OSError. Most occur on closing, because it buffers."""
    try:
        yield
    except RuntimeError as error:
        if any(words in str(error) for words in FULL_WORDS):
            raise disk_full(path, str(error).partition(";")[0]) from error
        raise OSError(errno.EIO, str(error), str(path)) from error


def check_file_size(path: Path, info: ShardInfo) -> None:
    """Raises `DamagedShard` unless the file exists and has the right size."""
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise DamagedShard(f"{path.name} is missing") from error
    if size != info.bytes:
        raise DamagedShard(f"{path.name} has {size} bytes instead of {info.bytes}")


def verify_shard(
    path: Path, info: ShardInfo, *, between: Callable[[int], None] = lambda count: None
) -> None:
    """Raises `DamagedShard` unless the file exists and matches `info`.

    `between` is called with the number of bytes after each piece that was read.
    """
    check_file_size(path, info)
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(PIECE):
                digest.update(piece)
                between(len(piece))
    except FileNotFoundError as error:
        raise DamagedShard(f"{path.name} is missing") from error
    if digest.hexdigest() != info.sha256:
        raise DamagedShard(f"{path.name} is damaged (its SHA-256 differs)")


def quarantine_path(path: Path) -> Path:
    """Returns the path that `quarantine` moves a damaged file to."""
    return path.with_name(f"{path.name}.corrupt")


def quarantine(path: Path) -> str:
    """Renames a damaged file to ``<name>.corrupt`` and returns what was done, in words."""
    try:
        os.replace(path, quarantine_path(path))
        return "quarantined"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"left in place ({error.strerror})"


class ShardReader:
    """Reads records of one shard by number.

    A file that cannot be understood raises `DamagedShard`, an error of this machine an OSError.
    """

    def __init__(self, path: Path) -> None:
        from array_record.python.array_record_module import ArrayRecordReader

        self.path = path
        if not path.is_file():
            raise DamagedShard(f"{path.name} is missing")
        with _reading(self.path):
            self._reader = ArrayRecordReader(str(path), "readahead_buffer_size:0")
            if not self._reader.ok():
                with contextlib.suppress(DamagedShard), _reading(self.path):
                    self._reader.read([0])  # names an error of this machine
                raise DamagedShard(f"{path.name} is truncated or not an ArrayRecord file")
            self._count = self._reader.num_records()

    def __len__(self) -> int:
        return self._count

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """Returns the records with these numbers."""
        with _reading(self.path):
            records = self._reader.read([int(row) for row in rows])
        if len(records) != len(rows) or not all(records):  # the file was cut while it was open
            raise DamagedShard(f"{self.path.name} is truncated")
        return records

    def __iter__(self) -> Iterator[bytes]:
        """Yields all records in order, and holds 64 at a time in memory."""
        for start in range(0, self._count, 64):
            yield from self.read(range(start, min(start + 64, self._count)))

    def close(self) -> None:
        """Closes the file."""
        with _reading(self.path):
            self._reader.close()

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Converts the reader's errors to `DamagedShard`, or OSError if their text names one."""
    try:
        yield
    except (RuntimeError, IndexError) as error:
        if code := errno_in(str(error)):
            raise OSError(code, os.strerror(code), str(path)) from error
        raise DamagedShard(f"{path.name}: {error}") from error
