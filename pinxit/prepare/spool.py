"""Stores byte strings on disk by name, so that they can be read back in another order.

Images arrive in the order of the web's replies, but a shard holds them in the order of its rows.
They wait in an unnamed temporary file, so that a killed process leaves nothing behind.
"""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

from pinxit.files import FULL, disk_full


class Spool:
    """A mapping from names to bytes in an unnamed temporary file, and a context manager.

    `folder` determines the file system on which the bytes are stored.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `__exit__`
        self._spans: dict[str, tuple[int, int]] = {}
        self._end = 0

    def __contains__(self, name: str) -> bool:
        return name in self._spans

    def __len__(self) -> int:
        return len(self._spans)

    def __setitem__(self, name: str, data: bytes) -> None:
        """Stores the bytes of a name. Raises `files.DiskFull` if there is no room."""
        try:
            self._file.seek(self._end)
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            if error.errno in FULL:
                raise disk_full(self.folder / "a temporary file", error) from error
            raise
        self._spans[name] = self._end, len(data)
        self._end += len(data)

    def __getitem__(self, name: str) -> bytes:
        start, length = self._spans[name]
        self._file.seek(start)
        data = self._file.read(length)
        if len(data) != length:
            raise OSError(errno.EIO, "a temporary file was truncated", str(self.folder))
        return data

    def __delitem__(self, name: str) -> None:
        """Forgets the bytes of a name."""
        del self._spans[name]

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
