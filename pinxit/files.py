"""Files that are whole or absent, whatever interrupts their writing.

A file is written under another name in the same folder, synced to the disk, and renamed; then the
folder is synced. A process killed at any moment leaves the old file, the new one, or none, and at
worst a leftover called ``.<name>.<digits>.partial``, which `sweep` removes. The digits are random:
processes of several containers share a folder and may have one number.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors that freeing space, or a larger quota, heals."""
PARTIAL = ".partial"
"""How the name of an unfinished file ends."""


class DiskFull(OSError):
    """There is no room for a file; nothing of it was left behind."""


def disk_full(path: Path, error: OSError | str) -> DiskFull:
    """The error for a file that did not fit."""
    reason = error if isinstance(error, str) else error.strerror or str(error)
    free = shutil.disk_usage(path.parent).free / 2**30
    return DiskFull(
        f"{path} could not be written: {reason} ({free:.2f} GiB free); "
        "make room and run the same command again"
    )


def sync(path: Path) -> None:
    """Waits until the file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields the name to write to; the file gets its own name when the block ends well.

    Raises `DiskFull` where the disk or a quota is full; the unfinished file is removed then, as
    after any other error.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.randbelow(10**12):012d}{PARTIAL}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in FULL:
            raise disk_full(path, error) from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON, whole or not at all; equal values give equal bytes."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with whole(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def unfinished(name: str) -> str | None:
    """The name that a leftover would have got; None for any other file."""
    if not (name.startswith(".") and name.endswith(PARTIAL)):
        return None
    stem, _, digits = name[1 : -len(PARTIAL)].rpartition(".")
    return stem if stem and digits.isdigit() else None


def sweep(folder: Path, mine: Callable[[str], bool] = lambda name: True) -> int:
    """Removes the leftovers whose final name is `mine` to remove; returns how many there were.

    Only for files that no running process is writing.
    """
    removed = 0
    if folder.is_dir():
        for entry in list(os.scandir(folder)):
            final = unfinished(entry.name)
            if final is not None and mine(final):
                Path(entry.path).unlink(missing_ok=True)
                removed += 1
    return removed
