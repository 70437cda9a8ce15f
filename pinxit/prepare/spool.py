"""Byte strings set aside on the disk, by name, until they are wanted in another order.

Images are fetched in whatever order the web answers, and a shard holds them in the order of its
rows. What waits lies in a file that has no name, so that a killed process leaves nothing of it.
"""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

from pinxit.files import FULL, disk_full


class Spool:
    """A context manager; `folder` is where there is room."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `__exit__`
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __setitem__(self, name: str, data: bytes) -> None:
        """Sets the bytes of a name; `files.DiskFull` where there is no room."""
        try:
            self._file.seek(self._end)
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            if error.errno in FULL:
                raise disk_full(self.folder / "a temporary file", error) from error
            raise
        self._places[name] = self._end, len(data)
        self._end += len(data)

    def __getitem__(self, name: str) -> bytes:
        start, length = self._places[name]
        self._file.seek(start)
        data = self._file.read(length)
        if len(data) != length:
            raise OSError(errno.EIO, "a temporary file lost its end", str(self.folder))
        return data

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
