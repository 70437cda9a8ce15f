"""The lock on an output folder: one command at a time, or the ranks of one world."""

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
    """Keeps other commands out of the folder, other ranks of the same world excepted. Ends with
    the process."""
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:

        def lock(path: Path, how: int) -> bool:
            file = held.enter_context(path.open("a+"))  # NFS asks for reading and writing
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # a file system without locks
                    raise
            return True

        ranked = engine if isinstance(engine, RankEngine) else None
        free = lock(root / ".lock", fcntl.LOCK_SH if ranked else fcntl.LOCK_EX)
        if free and ranked:
            free = lock(root / f".lock-{ranked.rank}-of-{ranked.world}", fcntl.LOCK_EX)
            for path in sorted(root.glob(".lock-*-of-*")) if free else ():
                world = path.name.rpartition("-")[2]
                if world != str(ranked.world) and not lock(path, fcntl.LOCK_SH):
                    raise UsageError(f"{root}: ranks of a world of {world} are at work there")
        if not free:
            raise UsageError(f"{root}: another preparation is at work there")
        yield
