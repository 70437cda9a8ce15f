"""Files below a root, of which parts are read: the interface, and the store of a local folder.

Names are relative to the root and have slashes. Readers ask for many ranges at once, because an
object store answers each request only after tens of milliseconds.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from pinxit.data.stores.byte_ranges import Range
from pinxit.files import whole


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

    def __init__(self, root: str | Path, *, open_files: int = 512) -> None:
        """Keeps up to `open_files` files open."""
        self.folder = Path(root).expanduser()
        self._open_files = open_files
        self._open: dict[str, int] = {}

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
        """Returns the bytes of each range, in order."""
        return [os.pread(self._handle(name), stop - start, start) for name, start, stop in ranges]

    def upload(self, path: Path, name: str) -> None:
        """Copies a finished file into the folder under a name."""
        with whole(self.folder / name) as temporary:
            shutil.copyfile(path, temporary)

    def close(self) -> None:
        """Closes all files."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _handle(self, name: str) -> int:
        """Returns the descriptor of an open file, and closes the oldest one of too many."""
        if name not in self._open:
            while len(self._open) >= self._open_files:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[name] = os.open(self.folder / name, os.O_RDONLY)
        return self._open[name]


def open_store(root: str) -> ByteStore:
    """Returns the store of a folder or URL. Raises `UsageError` for a URL that cannot be one."""
    if "://" not in root or Path(root).expanduser().exists():
        return LocalStore(root)
    if root.startswith("file://"):
        return LocalStore(root.removeprefix("file://"))
    from pinxit.data.stores.remote_store import RemoteStore

    return RemoteStore(root)
