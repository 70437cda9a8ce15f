"""A run whose disk is full or read-only for a while: `python full_disk.py CONFIG KIND BEGIN END`.

The fault begins and ends at the given steps, or with END "+S" S seconds after it has begun. BEGIN
"cache" lets it last while encoded rows are stored, and BEGIN "start" lets it last from the start.
"""

from __future__ import annotations

import builtins
import errno
import json
import os
import resource
import sys
import threading
from pathlib import Path
from typing import Any


class Disk:
    """Makes writes fail. "full" limits the size of every file of this process to nothing."""

    def __init__(self, kind: str, root: str) -> None:
        self.kind = kind
        self.root = root
        self.broken = False
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if kind == "read-only":
            self._patch()

    def begin(self) -> None:
        """Begins the fault."""
        self.broken = True
        if self.kind == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, self.limits[1]))

    def end(self) -> None:
        """Ends the fault."""
        self.broken = False
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)

    def _patch(self) -> None:
        for name in ("mkdir", "rename", "replace", "unlink"):
            self._refuse(os, name, lambda *_: True)
        flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        self._refuse(os, "open", lambda *rest: bool(rest and rest[0] & flags))
        self._refuse(builtins, "open", lambda *rest: bool(rest) and set(rest[0]) & set("wax+"))

    def _refuse(self, owner: Any, name: str, writes: Any) -> None:
        original = getattr(owner, name)

        def patched(path: Any, *rest: Any, **options: Any) -> Any:
            inside = isinstance(path, str | os.PathLike) and str(path).startswith(self.root)
            if self.broken and inside and writes(*rest):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return original(path, *rest, **options)

        setattr(owner, name, patched)


def main(config_path: str, kind: str, begin: str, end: str) -> int:
    """Runs the settings in a file, and returns the exit code of the command."""
    from pinxit.cli.main import guarded
    from pinxit.train import background_writer, checkpoint, current_run, run
    from pinxit.train.display import Display
    from pinxit.train.input import in_memory
    from pinxit.train.settings import config_from_json

    checkpoint.RETRY_SECONDS = background_writer.RETRY_SECONDS = 0.5
    current_run.LAST_SECONDS = run.CLOSE_SECONDS = 6.0
    config = config_from_json(json.loads(Path(config_path).read_text()))
    disk = Disk(kind, config.output_dir)
    on_step, store = Display.on_step, in_memory._store

    def step_with_fault(self: Display, step: int) -> None:
        on_step(self, step)
        if str(step) == begin:
            disk.begin()
            if end.startswith("+"):
                threading.Timer(float(end), disk.end).start()
        if str(step) == end:
            disk.end()

    def store_with_fault(*args: Any) -> None:
        disk.begin()
        try:
            store(*args)
        finally:
            disk.end()

    Display.on_step = step_with_fault  # type: ignore[method-assign]
    if begin == "cache":
        in_memory._store = store_with_fault
    if begin == "start":
        disk.begin()
    return guarded(lambda: run.run(config).exit_code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
