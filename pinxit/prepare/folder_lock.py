"""Locks an output folder for one command at a time, or for the ranks of one world."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pinxit.config import UsageError
from pinxit.data.prepared.manifest import Stage
from pinxit.prepare.engines.base import Engine
from pinxit.prepare.engines.ranks import RankEngine

NAMES: dict[Stage, str] = {"images": ".lock", "latents": ".lock.latents"}
"""The name of each stage's lock. One command may encode while another one prepares images."""
LOOKS = 3
"""Number of times that a lock is tried, since `is_locked` holds it for a moment."""


@contextlib.contextmanager
def locked(root: Path, engine: Engine, stage: Stage = "images") -> Iterator[None]:
    """Locks a stage of the folder against other commands, except other ranks of the same world.

    Raises `UsageError` if it is locked. The lock is also released when the process ends.
    """
    name = NAMES[stage]
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as open_files:

        def lock(path: Path, how: int) -> bool:
            file = open_files.enter_context(path.open("a+"))  # NFS requires reading and writing
            for look in range(LOOKS):
                if _try(file, how) is not False:
                    return True
                time.sleep(0.1 * (look + 1 < LOOKS))
            return False

        ranked = engine if isinstance(engine, RankEngine) else None
        free = lock(root / name, fcntl.LOCK_SH if ranked else fcntl.LOCK_EX)
        if free and ranked:
            free = lock(root / f"{name}-{ranked.rank}-of-{ranked.world}", fcntl.LOCK_EX)
            for path in sorted(root.glob(f"{name}-*-of-*")) if free else ():
                world = path.name.rpartition("-")[2]
                if world != str(ranked.world) and not lock(path, fcntl.LOCK_SH):
                    raise UsageError(f"{root} is in use by ranks of a world of {world}")
        if not free:
            raise UsageError(f"{root} is in use by another preparation")
        yield


def is_locked(root: Path, stage: Stage) -> bool | None:
    """Returns whether a command is running a stage now; None if this cannot be told."""
    try:
        with (root / NAMES[stage]).open("r+") as file:
            free = _try(file, fcntl.LOCK_EX)
    except FileNotFoundError:
        return False
    return None if free is None else not free


def _try(file: IO[str], how: int) -> bool | None:
    """Tries to lock a file. Returns None if this file system has no locks."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
            raise
        return None
    return True
