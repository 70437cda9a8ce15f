"""Keeps the last local tables of a process open between units, at the rows that were read last.

Units of one file are mostly read in order. A reader that began again for each of them would read
the footer of a parquet file, or unpack a gzipped one from its beginning, once for each unit: a file
of twice the size would take four times as long.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Generic, TypeVar

T = TypeVar("T")
Stamp = tuple[str, int, int, int]


class LastOpened(Generic[T]):
    """Open tables that are not in use, which the next units of the same files take over.

    There is one for each thread that reads at the same time: a process with one reader keeps one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[tuple[Stamp, object, T, ExitStack]] = []
        self._in_use = 0

    @contextlib.contextmanager
    def taken(
        self,
        path: str,
        key: object,
        opening: Callable[[], AbstractContextManager[T]],
        fits: Callable[[T], bool] = lambda table: True,
    ) -> Iterator[T]:
        """Yields an open table: a kept one if it is of this file and `key` and `fits`, else a new
        one. Keeps it afterwards, unless an error was raised or the file is remote.

        A file that has changed is opened again. While a table is in use, no other thread gets it.
        """
        stamp = stamp_of(path)
        table, stack = self._take(stamp, key, fits)
        try:
            if table is None:
                table = stack.enter_context(opening())
            yield table
        except GeneratorExit:  # the reader of the rows has enough of them
            self._keep(stamp, key, table, stack)
            raise
        except BaseException:
            self._keep(None, key, table, stack)
            raise
        self._keep(stamp, key, table, stack)

    def close(self) -> None:
        """Closes the tables that are kept."""
        self._shrink(0)

    def _take(
        self, stamp: Stamp | None, key: object, fits: Callable[[T], bool]
    ) -> tuple[T | None, ExitStack]:
        """Returns the last kept table that can be used. Without one, closes those that are kept
        beyond one for each other reader."""
        with self._lock:
            self._in_use += 1
            for index in reversed(range(len(self._kept))):
                known, same, table, stack = self._kept[index]
                if stamp is not None and (known, same) == (stamp, key) and fits(table):
                    del self._kept[index]
                    return table, stack
            others = self._in_use - 1
        self._shrink(others)
        return None, ExitStack()

    def _keep(self, stamp: Stamp | None, key: object, table: T | None, stack: ExitStack) -> None:
        """Keeps a table, unless its file is remote or is gone."""
        with self._lock:
            self._in_use -= 1
            keep = stamp is not None and table is not None
            if keep:
                self._kept.append((stamp, key, table, stack))
            most = self._in_use + 1
        if not keep:
            stack.close()
        self._shrink(most)

    def _shrink(self, most: int) -> None:
        """Closes the tables that were used least recently, until at most `most` are kept."""
        with self._lock:
            count = max(0, len(self._kept) - most)
            closing, self._kept = self._kept[:count], self._kept[count:]
        for *_, stack in closing:
            stack.close()


def stamp_of(path: str) -> Stamp | None:
    """Returns what changes when a local file changes, or None for a remote or a missing one."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return path, status.st_ino, status.st_mtime_ns, status.st_size
