"""Keeps the last local table of a process open between its units, at the row that was read last.

Units of one file are mostly read in order. A reader that began again for each of them would read
the footer of a parquet file, or unpack a gzipped one from its beginning, once for each unit: a file
of twice the size would take four times as long.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Generic, TypeVar

T = TypeVar("T")
Stamp = tuple[str, int, int, int]


class LastOpened(Generic[T]):
    """At most one open table, which the next unit of the same file takes over."""

    def __init__(self) -> None:
        self._kept: list[tuple[Stamp, object, T, ExitStack]] = []

    @contextlib.contextmanager
    def taken(
        self,
        path: str,
        key: object,
        opening: Callable[[], AbstractContextManager[T]],
        fits: Callable[[T], bool] = lambda table: True,
    ) -> Iterator[T]:
        """Yields an open table: the kept one if it is of this file and `key` and `fits`, else a new
        one. Keeps it afterwards, unless an error was raised or the file is remote.

        A file that has changed is opened again. While a table is in use, no other thread gets it.
        """
        stamp = stamp_of(path)
        table, stack = self._take(stamp, key, fits)
        if table is None:
            stack = ExitStack()
            table = stack.enter_context(opening())
        try:
            yield table
        except GeneratorExit:  # the reader of the rows has enough of them
            self._keep(stamp, key, table, stack)
            raise
        except BaseException:
            stack.close()
            raise
        self._keep(stamp, key, table, stack)

    def close(self) -> None:
        """Closes the table that is kept, if there is one."""
        while self._kept:
            self._kept.pop()[3].close()

    def _take(
        self, stamp: Stamp | None, key: object, fits: Callable[[T], bool]
    ) -> tuple[T | None, ExitStack]:
        """Returns the kept table if it can be used, and closes it otherwise."""
        with contextlib.suppress(IndexError):
            known, same, table, stack = self._kept.pop()
            if stamp is not None and (known, same) == (stamp, key) and fits(table):
                return table, stack
            stack.close()
        return None, ExitStack()

    def _keep(self, stamp: Stamp | None, key: object, table: T, stack: ExitStack) -> None:
        """Keeps a table in place of another one, unless its file is remote or is gone."""
        self.close()
        if stamp is None:
            stack.close()
        else:
            self._kept.append((stamp, key, table, stack))


def stamp_of(path: str) -> Stamp | None:
    """Returns what changes when a local file changes, or None for a remote or a missing one."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return path, status.st_ino, status.st_mtime_ns, status.st_size
