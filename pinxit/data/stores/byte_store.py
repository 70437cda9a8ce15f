"""Files below a root, of which parts are read: the interface, and the store of a local folder.

Names are relative to the root and have slashes. Readers ask for many ranges at once, because an
object store answers each request only after tens of milliseconds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from pinxit.data.stores.byte_ranges import Range
from pinxit.files import whole
from pinxit.open_files import limit_now


@runtime_checkable
class ByteStore(Protocol):
    """Files below a root. Several threads may use it at once."""

    @property
    def root(self) -> str:
        """The path or URL of the root."""
        ...

    def exists(self, name: str) -> bool:
        """Returns whether there is a file of this name."""
        ...

    def size(self, name: str) -> int:
        """Returns the size of a file in bytes. Raises FileNotFoundError if there is none."""
        ...

    def read(self, name: str) -> bytes:
        """Returns a whole file. Raises FileNotFoundError if there is none, else OSError."""
        ...

    def ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Returns the bytes of each range, in order, read in parallel if that is faster.

        A file that ends before a range gives fewer bytes. Raises FileNotFoundError, else OSError.
        """
        ...

    def upload(self, path: Path, name: str) -> None:
        """Stores a finished local file under a name, whole or not at all."""
        ...

    def close(self) -> None:
        """Closes files and connections."""
        ...


class LocalStore:
    """A `ByteStore` of a folder on this machine, or one that is mounted."""

    def __init__(self, root: str | Path, *, open_files: int | None = None) -> None:
        """Keeps up to `open_files` files open; None means half of the limit of this process. Files
        that are being read at the moment stay open beyond that number."""
        self.folder = Path(root).expanduser()
        self._open_files = (limit_now() or 512) // 2 if open_files is None else open_files
        self._open: OrderedDict[str, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def root(self) -> str:
        """The path of the folder."""
        return str(self.folder)

    def exists(self, name: str) -> bool:
        """Returns whether there is a file of this name."""
        return (self.folder / name).is_file()

    def size(self, name: str) -> int:
        """Returns the size of a file in bytes."""
        return (self.folder / name).stat().st_size

    def read(self, name: str) -> bytes:
        """Returns a whole file."""
        return (self.folder / name).read_bytes()

    def ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Returns the bytes of each range, in order.

        The system learns all ranges before the first one is read, so that the disk fetches those
        that are not in memory at the same time.
        """
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context(self._using(name)) for name, _, _ in ranges}
            if len(ranges) > 1 and hasattr(os, "posix_fadvise"):
                for name, start, stop in ranges:
                    _announce(files[name], start, stop - start)
            return [_read(files[name], start, stop) for name, start, stop in ranges]

    def upload(self, path: Path, name: str) -> None:
        """Copies a finished file into the folder under a name."""
        with whole(self.folder / name) as temporary:
            shutil.copyfile(path, temporary)

    def close(self) -> None:
        """Closes all files. One that another thread is reading is closed when that has ended."""
        self._close_idle(0)

    @contextlib.contextmanager
    def _using(self, name: str) -> Iterator[_OpenFile]:
        """Yields an open file, which is not closed meanwhile."""
        file = self._borrowed(name)
        try:
            yield file
        finally:
            with self._lock:
                file.users -= 1
                is_last = file.is_dropped and not file.users
            if is_last:
                os.close(file.descriptor)

    def _borrowed(self, name: str) -> _OpenFile:
        """Returns an open file with one more user. Other threads can open files meanwhile."""
        with self._lock:
            if (file := self._open.get(name)) is not None:
                file.users += 1
                self._open.move_to_end(name)
                return file
        try:
            descriptor = os.open(self.folder / name, os.O_RDONLY)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._close_idle(0)
            descriptor = os.open(self.folder / name, os.O_RDONLY)
        with self._lock:
            file = self._open.get(name)
            surplus = descriptor if file is not None else None  # another thread was faster
            if file is None:
                file = self._open[name] = _OpenFile(str(self.folder / name), descriptor)
            file.users += 1
        if surplus is not None:
            os.close(surplus)
        self._close_idle(self._open_files)
        return file

    def _close_idle(self, most: int) -> None:
        """Keeps the `most` files that were used last, and drops the others."""
        idle = []
        with self._lock:
            while len(self._open) > most:
                file = self._open.popitem(last=False)[1]
                file.is_dropped = True
                if not file.users:
                    idle.append(file.descriptor)
        for descriptor in idle:
            os.close(descriptor)


@dataclass(eq=False)
class _OpenFile:
    """An open file, and how many threads are reading it."""

    path: str
    descriptor: int
    users: int = 0
    is_dropped: bool = False
    """Whether the last user closes it."""


def _announce(file: _OpenFile, start: int, length: int) -> None:
    """Tells the system that a part of a file is needed soon."""
    with contextlib.suppress(OSError):  # some file systems do not take the hint
        os.posix_fadvise(file.descriptor, start, length, os.POSIX_FADV_WILLNEED)


def _read(file: _OpenFile, start: int, stop: int) -> bytes:
    """Returns a range, which is shorter if the file ends before."""
    pieces = []
    while start < stop:
        try:
            piece = os.pread(file.descriptor, stop - start, start)
        except OSError as error:
            raise OSError(error.errno, error.strerror, file.path) from error
        if not piece:
            break
        pieces.append(piece)
        start += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def open_store(root: str) -> ByteStore:
    """Returns the store of a folder or URL. Raises `UsageError` for a URL that cannot be one."""
    if "://" not in root or Path(root).expanduser().exists():
        return LocalStore(root)
    if root.startswith("file://"):
        return LocalStore(root.removeprefix("file://"))
    from pinxit.data.stores.remote_store import RemoteStore

    return RemoteStore(root)
