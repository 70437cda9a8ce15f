"""Follows a run's metrics.jsonl while the run writes it, goes back, or is resumed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinxit.train.metric_rows import row_in

REMEMBERED = 128
"""Number of bytes before the reader's place that must still be the same."""
LONGEST_LINE = 4_000_000
"""Number of bytes after which a line without an end is skipped."""


@dataclass
class MetricsTail:
    """Reads the lines that were added to a file since the last call.

    A resumed run replaces the file by another one, which may be shorter. The reader notices a new
    file, a shorter one, and one whose text before its place has changed, and begins again.
    """

    path: Path
    _file: tuple[int, int] | None = None
    _offset: int = 0
    _before: bytes = b""
    _skipping: bool = False

    def read(self) -> tuple[bool, list[dict[str, Any]]]:
        """Returns whether the file was begun again, so that earlier rows no longer count, and its
        new valid rows. A line without an end is read once it has one."""
        try:
            handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            again = self._file is not None
            self._forget(None)
            return again, []
        try:
            return self._read(handle)
        finally:
            os.close(handle)

    def _forget(self, file: tuple[int, int] | None) -> None:
        self._file, self._offset, self._before, self._skipping = file, 0, b"", False

    def _read(self, handle: int) -> tuple[bool, list[dict[str, Any]]]:
        status = os.fstat(handle)
        file = (status.st_dev, status.st_ino)
        same = file == self._file and status.st_size >= self._offset and self._unchanged(handle)
        again = not same and self._file is not None
        if not same:
            self._forget(file)
        text = _bytes(handle, self._offset, status.st_size - self._offset)
        end = text.rfind(b"\n") + 1
        if not end and len(text) > LONGEST_LINE:
            end, self._skipping = len(text), True
        lines = text[:end].split(b"\n")[:-1] if text[:end].endswith(b"\n") else []
        if self._skipping and lines:
            lines, self._skipping = lines[1:], False
        self._offset += end
        self._before = (self._before + text[:end])[-REMEMBERED:]
        rows = (row_in(line.decode("utf-8", "replace")) for line in lines)
        return again, [row for row in rows if row is not None]

    def _unchanged(self, handle: int) -> bool:
        """Returns whether the text before the reader's place is still there."""
        start = self._offset - len(self._before)
        return _bytes(handle, start, len(self._before)) == self._before


def _bytes(handle: int, start: int, count: int) -> bytes:
    """Returns bytes of an open file."""
    parts = []
    while count > 0 and (part := os.pread(handle, min(count, 1 << 24), start)):
        parts.append(part)
        start += len(part)
        count -= len(part)
    return b"".join(parts)
