"""Bounds a cache that several processes share: encoded datasets, or features of pictures.

A process holds a shared lock on each entry that it reads. The entries that were used least recently
are removed until the rest fits, but never one that a process holds. What a killed process has left
unfinished is removed once nothing has been written there for an hour.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from pinxit.files import last_write, sweep, unfinished

STALE_SECONDS = 3600.0
"""Seconds without a write after which an unfinished entry counts as left by a killed process."""

_HELD: dict[Path, int] = {}
"""The open folders, by path, whose locks this process holds until it ends."""


def hold(entry: Path) -> None:
    """Marks an entry as used now, and keeps other processes from removing it while this one
    runs."""
    if entry not in _HELD:
        descriptor = os.open(entry, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        _HELD[entry] = descriptor
    os.utime(entry)


def limit_cache(
    cache: Path,
    *,
    gigabytes: float,
    say: Callable[[str], None],
    contents: str = "encoded datasets",
    setting: str = "--cache_gb",
) -> None:
    """Removes the entries used least recently until the cache has at most this size.

    `say` receives a line with the `contents` and the `setting` of the size if any were removed.
    Faults of the disk are ignored: the cache is only larger then.
    """
    try:
        sweep(cache, lambda name: time.time() - last_write(cache, name) > STALE_SECONDS)
        entries = [path for path in cache.iterdir() if path.is_dir() and not unfinished(path.name)]
        sizes = {entry: _size(entry) for entry in entries}
        total, removed = sum(sizes.values()), 0
        for entry in sorted(entries, key=lambda path: path.stat().st_mtime):
            if total <= gigabytes * 1e9:
                break
            if _remove(entry):
                total, removed = total - sizes[entry], removed + sizes[entry]
        if removed:
            say(
                f"{cache}: removed {removed / 1e9:.2f} GB of {contents} that were used least "
                f"recently; {total / 1e9:.2f} GB remain ({setting} {gigabytes:g})"
            )
    except OSError as error:
        say(f"warning: {cache} could not be cleaned: {error}")


def _remove(entry: Path) -> bool:
    """Removes an entry, and returns whether it could: not if a process holds it."""
    if entry in _HELD:
        return False
    descriptor = os.open(entry, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(entry)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _size(entry: Path) -> int:
    """Returns the size of all files of an entry, in bytes."""
    return sum(file.stat().st_size for file in entry.rglob("*") if file.is_file())
