"""An object store in memory, which counts requests and can fail."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


class MemoryStore:
    """A `ByteStore` in memory."""

    def __init__(self, url: str = "memory://bucket/set") -> None:
        self.files: dict[str, bytes] = {}
        self.counts: Counter[str] = Counter()
        self.failures: dict[str, list[OSError]] = {}
        """The errors of the next requests for each file."""
        self._root = url
        self._lock = threading.Lock()

    @property
    def root(self) -> str:
        return self._root

    def exists(self, name: str) -> bool:
        self._count("exists", name)
        return name in self.files

    def size(self, name: str) -> int:
        return len(self._file("size", name))

    def read(self, name: str) -> bytes:
        return self._file("read", name)

    def ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        contents = []
        for name, start, stop in ranges:
            contents.append(self._file("range", name)[start:stop])
            self.counts["bytes"] += len(contents[-1])
        return contents

    def upload(self, path: Path, name: str) -> None:
        self._count("upload", name)
        self.files[name] = path.read_bytes()

    def close(self) -> None:
        return

    def fill(self, folder: Path) -> None:
        """Takes the files of a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.files[str(path.relative_to(folder))] = path.read_bytes()

    def _count(self, what: str, name: str) -> None:
        with self._lock:
            self.counts[what] += 1
            if self.failures.get(name):
                raise self.failures[name].pop(0)

    def _file(self, what: str, name: str) -> bytes:
        self._count(what, name)
        if name not in self.files:
            raise FileNotFoundError(2, "No such file", f"{self._root}/{name}")
        return self.files[name]
