"""Keeps parts of remote tables on this machine's disk, so that all its processes share a download.

The first process that needs an entry makes it while it holds a lock on the entry's name. The others
wait, and then map the file, so that its pages are in memory once. Every entry ends with its length
and a checksum: a file that is cut off or damaged is removed and made again. The entries that were
used least recently are removed above a limit, but never one that a process has mapped.

A cache that cannot be written is no reason to fail: `CacheFault` tells the caller to do without it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import mmap
import os
import shutil
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pinxit.files import last_write, sweep, unfinished, whole
from pinxit.user_cache import user_cache

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

VARIABLE = "PINXIT_TABLES"
"""The environment variable with the path of the folder; if it is empty, nothing is kept."""
GIGABYTES = 20.0
"""Largest size of the folder, in GB. It is less on a small disk (`SHARE`)."""
SHARE = 1 / 4
"""Largest share of the disk that the folder may take, of what it takes now and what is free."""
PATIENCE = 600.0
"""The longest time in seconds that a process waits for another one that makes an entry."""
STALE_SECONDS = 3600.0
"""Seconds without a write after which an unfinished entry counts as left by a killed process."""
LOOK_EVERY = 2**26
"""The number of bytes that are written between two looks at the free space of the disk."""

SEAL = struct.Struct("<QI4s")
"""The end of every entry: the length of its content, a CRC-32 of it, and `MAGIC`."""
MAGIC = b"pxt1"
ENTRY, LOCK = ".entry", ".lock"


class CacheFault(Exception):
    """Raised if an entry cannot be written: the disk is full, the folder is read-only, and so on.

    It is no OSError, so that it is never taken for an error of the network.
    """


class MachineCache:
    """A folder of entries that the processes of this machine share."""

    def __init__(self, folder: Path, *, gigabytes: float = GIGABYTES) -> None:
        """Creates the folder, for this user alone. Raises OSError if it cannot be written to, or if
        its disk has no locks."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if fcntl is None or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, "it cannot be written to", str(folder))
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
        finally:
            os.close(handle)
        self.folder = folder
        self.gigabytes = gigabytes

    def path(self, name: str) -> Path:
        """Returns the path of an entry."""
        return self.folder / f"{name}{ENTRY}"

    def open(self, name: str, *, max_age: float | None = None) -> memoryview | None:
        """Maps the content of an entry, or returns None if there is no valid one.

        While any part of the content is in use, no process removes the entry. An entry that was
        made more than `max_age` seconds ago is not valid.
        """
        path = self.path(name)
        try:
            with path.open("rb") as file:
                _lock(file.fileno(), shared=True)
                status = os.fstat(file.fileno())
                if not status.st_nlink:  # it was removed before it was locked
                    return None
                content = _content(file)
        except (OSError, ValueError):
            return None
        old = max_age is not None and time.time() - status.st_mtime > max_age
        if content is None or old:
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(path, (time.time(), status.st_mtime))
        return content

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Keeps other processes and threads from making the entry of this name.

        After `PATIENCE` seconds, and where the disk has no locks, the block runs without a lock:
        then several processes may make the entry, which is only a waste.
        """
        path, handle = self.folder / f"{name}{LOCK}", None
        with contextlib.suppress(OSError):
            handle = _acquired(path, time.monotonic() + PATIENCE)
        try:
            yield
        finally:
            if handle is not None:
                path.unlink(missing_ok=True)
                os.close(handle)

    def most_bytes(self) -> float:
        """Returns the largest size of the folder in bytes."""
        total = sum(entry.st_size for entry in self._entries().values())
        return min(self.gigabytes * 1e9, SHARE * (total + shutil.disk_usage(self.folder).free))

    def make_room(self, size: int) -> None:
        """Removes the entries used least recently until `size` more bytes fit.

        Raises CacheFault if they cannot fit, because the limit is too small or entries are in use.
        """
        with self.locked("room"):
            entries = self._entries()
            total, most = sum(entry.st_size for entry in entries.values()), self.most_bytes()
            if size <= most:
                for path in sorted(entries, key=lambda path: entries[path].st_atime):
                    if total + size <= most:
                        break
                    if _removed(path):
                        total -= entries[path].st_size
            if total + size > most:
                raise CacheFault(
                    f"{size / 1e9:.2f} GB more do not fit: at most {most / 1e9:.2f} GB are kept, "
                    f"and {total / 1e9:.2f} GB of them are in use"
                )

    def _entries(self) -> dict[Path, os.stat_result]:
        """Returns the entries, after removing what killed processes left behind."""
        sweep(self.folder, lambda name: time.time() - last_write(self.folder, name) > STALE_SECONDS)
        entries: dict[Path, os.stat_result] = {}
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.suffix == ENTRY and not unfinished(path.name):
                    entries[path] = path.stat()
                elif path.suffix == LOCK and time.time() - path.stat().st_mtime > STALE_SECONDS:
                    _removed(path)
        return entries


class Draft:
    """A new entry while it is written. It appears under its name with `commit`.

    Nothing but CacheFault is raised for faults of the disk.
    """

    def __init__(self, cache: MachineCache, name: str) -> None:
        self._cache = cache
        self._stack = contextlib.ExitStack()
        self._crc, self._seen = 0, 0
        self.length = 0
        """The number of bytes written."""
        self.closed = False
        """Whether the draft was committed or discarded; pyarrow asks for it."""
        with _as_fault(cache.folder):
            temporary = self._stack.enter_context(whole(cache.path(name)))
            self._file: BinaryIO = self._stack.enter_context(temporary.open("wb"))

    def write(self, data: Any) -> int:
        """Writes the next bytes of the content."""
        view = memoryview(data).cast("B")
        if self.length >= self._seen:
            self._look()
        with _as_fault(self._cache.folder):
            self._file.write(view)
        self._crc = zlib.crc32(view, self._crc)
        self.length += len(view)
        return len(view)

    def flush(self) -> None:
        """Does nothing: `commit` writes everything."""

    def commit(self) -> None:
        """Makes room in the folder, and gives the entry its name."""
        self._cache.make_room(self.length + SEAL.size)
        with _as_fault(self._cache.folder):
            self._file.write(SEAL.pack(self.length, self._crc, MAGIC))
            self._stack.close()
        self.closed = True

    def __enter__(self) -> Draft:
        """Returns this draft."""
        return self

    def __exit__(self, *_: object) -> None:
        """Discards the draft unless it was committed."""
        if not self.closed:
            self.closed = True
            discarded = CacheFault("discarded")
            with contextlib.suppress(CacheFault, OSError):
                self._stack.__exit__(CacheFault, discarded, None)

    def _look(self) -> None:
        """Raises CacheFault if the entry has become too large for the disk or the limit."""
        with _as_fault(self._cache.folder):
            free = shutil.disk_usage(self._cache.folder).free
        self._seen = self.length + LOOK_EVERY
        if self.length > self._cache.gigabytes * 1e9 or self._seen > SHARE * free:
            raise CacheFault(f"an entry is too large ({free / 1e9:.2f} GB are free)")


def machine_cache() -> MachineCache | None:
    """Returns the cache of this machine, or None if there is none; a fault is said once."""
    named = os.environ.get(VARIABLE)
    if named == "":
        return None
    return _cache_in(Path(named).expanduser() if named else user_cache("tables"))


@functools.cache
def _cache_in(folder: Path) -> MachineCache | None:
    try:
        return MachineCache(folder)
    except OSError as error:
        say_fault(folder, error.strerror or str(error))
        os.environ[VARIABLE] = ""  # the processes that this one starts need not say it again
        return None


@functools.cache
def _faults_of(folder: Path) -> list[str]:
    """Returns the faults of a folder that this process has said."""
    return []


def say_fault(folder: Path, reason: str) -> None:
    """Says on stderr that a folder cannot keep parts of remote tables: once in a process."""
    faults = _faults_of(folder)
    faults.append(reason)
    if len(faults) == 1:
        print(
            f"pinxit: warning: {folder} cannot keep parts of remote tables ({reason}); each "
            f"process downloads them for itself. {VARIABLE}=FOLDER names another folder",
            file=sys.stderr,
            flush=True,
        )


def entry_name(*parts: Any) -> str:
    """Returns the name of an entry: a hash of everything that determines its content."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:40]


@contextlib.contextmanager
def _as_fault(folder: Path) -> Iterator[None]:
    """Converts errors of the disk to CacheFault."""
    try:
        yield
    except OSError as error:
        raise CacheFault(f"{folder}: {error.strerror or error}") from error


def _content(file: BinaryIO) -> memoryview | None:
    """Maps the content of an entry. Returns None if it is not whole."""
    view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    length, crc, magic = SEAL.unpack(view[-SEAL.size :]) if len(view) >= SEAL.size else (0, 0, b"")
    content = view[: len(view) - SEAL.size]
    if magic != MAGIC or length != len(content) or zlib.crc32(content) != crc:
        return None
    return content


def _acquired(path: Path, until: float) -> int | None:
    """Returns an open lock file that this call has locked, or None after the time `until`.

    The file is removed when it is released, so it may be another one than the path has now.
    """
    pause = 0.01
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if _lock(handle):
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(handle), os.stat(path)):
                        held, handle = handle, -1
                        return held
            elif time.monotonic() > until:
                return None
            else:
                time.sleep(pause)
                pause = min(2 * pause, 0.25)
        finally:
            if handle >= 0:
                os.close(handle)


def _lock(handle: int, *, shared: bool = False) -> bool:
    """Locks an open file, and returns whether it could. Raises OSError without such locks."""
    assert fcntl is not None, "there is no cache without locks"
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        if shared:  # it is being removed
            raise
        return False
    return True


def _removed(path: Path) -> bool:
    """Removes a file, and returns whether it could: not while a process holds it."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDWR)
        try:
            if _lock(handle):
                path.unlink()
                return True
        finally:
            os.close(handle)
    return False
