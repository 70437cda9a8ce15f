"""Remembers for all processes of a machine which pauses hosts asked for.

The table is a file of fixed size. A host's name decides in which bucket of a few records its pause
is. A bucket that is full gives up the record that ends first. Records are read and written without
a lock: a checksum tells a record that was being written, and a pause that is lost this way is asked
for again. Without a file, the table is in the memory of this process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

RECORD = struct.Struct("<QdII")
"""A hash of the host, the end of the pause, the code with which it was asked for, and a checksum of
the three."""
RECORDS = 8
"""Number of records in a bucket."""
BUCKETS = 1024
LONGEST = 86_400.0
"""Longest pause, in seconds, that other processes are told. One that asked for more is asked again
after a day."""


class SharedPauses:
    """The pauses that hosts asked for, by a name of the caller's choice."""

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        """Uses a file in a folder that exists, or memory if `path` is None or cannot be opened. The
        clock must be the same in all processes."""
        self._path, self._clock = path, clock
        self._memory = bytearray(BUCKETS * RECORDS * RECORD.size)
        self._descriptor: int | None = None
        self._lock = threading.Lock()

    def ask(self, name: str, code: int, seconds: float) -> None:
        """Records that a host asked for a pause of `seconds` with a status code."""
        key, place = _key(name)
        now = self._clock()
        until = now + min(seconds, LONGEST)
        with self._lock:
            records = list(self._bucket(place))
            same = [i for i, (known, _, _) in enumerate(records) if known == key]
            if same and now < records[same[0]][1] <= now + LONGEST:
                until = max(until, records[same[0]][1])
            ends = [end if end <= now + LONGEST else 0.0 for _, end, _ in records]
            number = same[0] if same else min(range(RECORDS), key=ends.__getitem__)
            self._write(place + number * RECORD.size, _packed(key, until, code))

    def left(self, name: str) -> tuple[float, int] | None:
        """Returns the seconds that are left of a host's pause, and the status code with which it
        was asked for, or None if there is no pause."""
        key, place = _key(name)
        now = self._clock()
        for known, until, code in self._bucket(place):
            if known == key and now < until <= now + LONGEST:
                return until - now, code
        return None

    def drop(self, name: str) -> None:
        """Ends a host's pause."""
        key, place = _key(name)
        with self._lock:
            for number, (known, _, _) in enumerate(self._bucket(place)):
                if known == key:
                    self._write(place + number * RECORD.size, _packed(0, 0.0, 0))

    def now(self) -> float:
        """Returns the time of the clock, in seconds."""
        return self._clock()

    def close(self) -> None:
        """Closes the file, which is opened again when it is needed."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _bucket(self, place: int) -> Iterator[tuple[int, float, int]]:
        """Yields hash, end and code of each record of a bucket; zeros for one that is damaged."""
        size = RECORDS * RECORD.size
        descriptor = self._file()
        data = bytes(self._memory[place : place + size])
        if descriptor is not None:
            with contextlib.suppress(OSError):
                data = os.pread(descriptor, size, place).ljust(size, b"\0")
        for key, until, code, checksum in RECORD.iter_unpack(data):
            if checksum == _checksum(key, until, code):
                yield key, until, code
            else:
                yield 0, 0.0, 0

    def _write(self, place: int, record: bytes) -> None:
        descriptor = self._file()
        if descriptor is None:
            self._memory[place : place + RECORD.size] = record
            return
        with contextlib.suppress(OSError):  # a full disk: the others do not hear of the pause
            os.pwrite(descriptor, record, place)

    def _file(self) -> int | None:
        if self._descriptor is None and self._path is not None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            try:
                self._descriptor = os.open(self._path, flags, 0o600)
            except OSError:
                self._path = None
        return self._descriptor


def _key(name: str) -> tuple[int, int]:
    """Returns the hash of a name, and the place of its bucket in the table."""
    digest = hashlib.blake2b(name.lower().encode(errors="replace"), digest_size=8).digest()
    key = int.from_bytes(digest, "big")
    return key, key % BUCKETS * RECORDS * RECORD.size


def _packed(key: int, until: float, code: int) -> bytes:
    return RECORD.pack(key, until, code, _checksum(key, until, code))


def _checksum(key: int, until: float, code: int) -> int:
    """Returns a checksum that is not 0 for a record of zeros, which no one has written."""
    return zlib.crc32(struct.pack("<QdI", key, until, code)) or 1
