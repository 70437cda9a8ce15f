"""Reads single pictures from the shards of a prepared dataset, with bounded memory.

Few shards are open at a time, and small copies of the pictures seen last are kept. Shards may come
from a stranger: only bytes that are a JPEG are passed on.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pinxit.data.prepared.shards import DamagedShard, ShardInfo, ShardReader, unpack

OPEN = 4
"""The number of shards that are open at a time."""
SIDE = 256
"""The longer side of a small copy, in pixels, which is twice the size at which it is shown."""
CACHED = 32 * 2**20
"""The memory for small copies, in bytes."""
MOST_PIXELS = 2**26
"""Pictures with more pixels are not decoded."""
JPEG = b"\xff\xd8\xff"
"""The first bytes of every JPEG."""
Record = tuple[bytes, dict[str, Any]]
"""The JPEG of a record, and its metadata."""


class ShardPictures:
    """Reads records by file and number. It may be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[Path, int, int], ShardReader] = OrderedDict()
        self._small: OrderedDict[tuple[Path, str, int], bytes] = OrderedDict()
        self._small_bytes = 0

    def read(self, path: Path, numbers: Sequence[int], info: ShardInfo | None) -> list[Record]:
        """Returns the records with these numbers.

        Raises `DamagedShard` if the file is not the one in `info` or a record is damaged.
        """
        with self._lock:
            reader = self._reader(path, info)
            if numbers and not 0 <= min(numbers) <= max(numbers) < len(reader):
                raise DamagedShard(f"{path.name} has only {len(reader)} records")
            return [parse_record(record, path) for record in reader.read(numbers)]

    def count(self, path: Path) -> int:
        """Returns the number of records in a file."""
        with self._lock:
            return len(self._reader(path, None))

    def small(self, path: Path, number: int, info: ShardInfo | None) -> bytes:
        """Returns a small copy of a picture as a JPEG."""
        key = (path, info.sha256 if info else str(path.stat().st_mtime_ns), number)
        with self._lock:
            if key in self._small:
                self._small.move_to_end(key)
                return self._small[key]
        jpeg = small_copy(self.read(path, [number], info)[0][0], path)
        with self._lock:
            if key not in self._small:
                self._small[key] = jpeg
                self._small_bytes += len(jpeg)
            while self._small_bytes > CACHED:
                self._small_bytes -= len(self._small.popitem(last=False)[1])
        return jpeg

    def close(self) -> None:
        """Closes all files."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()

    def _reader(self, path: Path, info: ShardInfo | None) -> ShardReader:
        """Returns an open reader of the file as it is on the disk now."""
        try:
            state = path.stat()
        except OSError as error:
            raise DamagedShard(f"{path.name} is missing") from error
        if info is not None and state.st_size != info.bytes:
            raise DamagedShard(f"{path.name} has {state.st_size} bytes instead of {info.bytes}")
        key = (path, state.st_size, state.st_mtime_ns)
        if key not in self._open:
            while len(self._open) >= OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[key] = ShardReader(path)
        self._open.move_to_end(key)
        return self._open[key]


def parse_record(record: bytes, path: Path) -> Record:
    """Returns the JPEG and the metadata of a record. Raises `DamagedShard` if it is malformed."""
    arrays, meta = unpack(record)
    jpeg = arrays.get("jpeg")
    if jpeg is None or not isinstance(meta, dict):
        raise DamagedShard(f"{path.name} has a record without a picture")
    return jpeg.tobytes(), meta


def checked_jpeg(data: bytes, path: Path) -> bytes:
    """Returns the data if they begin as a JPEG does. Raises `DamagedShard` otherwise."""
    if not data.startswith(JPEG):
        raise DamagedShard(f"{path.name} has a record that is not a JPEG")
    return data


def small_copy(data: bytes, path: Path) -> bytes:
    """Returns a picture reduced to `SIDE`. Raises `DamagedShard` if it cannot be decoded."""
    checked_jpeg(data, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise DamagedShard(f"{path.name} has a picture of too many pixels")
                picture.draft("RGB", (SIDE, SIDE))
                small = picture.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DamagedShard(f"{path.name} has a picture that cannot be decoded") from error
    small.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
