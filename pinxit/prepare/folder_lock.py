"""Locks an output folder for one command at a time, or for the ranks of one world."""

from __future__ import annotations

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path

from pinxit.config import UsageError
from pinxit.prepare.engines.base import Engine
from pinxit.prepare.engines.ranks import RankEngine


@contextlib.contextmanager
def locked(root: Path, engine: Engine) -> Iterator[None]:
    """Locks the folder against other commands, except other ranks of the same world.

    Raises `UsageError` if the folder is locked. The lock is also released when the process ends.
    """
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as open_files:

        def lock(path: Path, how: int) -> bool:
            file = open_files.enter_context(path.open("a+"))  # NFS requires reading and writing
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # this file system has none
                    raise
            return True

        ranked = engine if isinstance(engine, RankEngine) else None
        free = lock(root / ".lock", fcntl.LOCK_SH if ranked else fcntl.LOCK_EX)
        if free and ranked:
            free = lock(root / f".lock-{ranked.rank}-of-{ranked.world}", fcntl.LOCK_EX)
            for path in sorted(root.glob(".lock-*-of-*")) if free else ():
                world = path.name.rpartition("-")[2]
                if world != str(ranked.world) and not lock(path, fcntl.LOCK_SH):
                    raise UsageError(f"{root} is in use by ranks of a world of {world}")
        if not free:
            raise UsageError(f"{root} is in use by another preparation")
        yield
