"""A store whose reads wait while the network is down, so that an outage does not end a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pinxit.data.stores.byte_store import ByteStore, Range
from pinxit.train.input.outage import Outage, patiently

T = TypeVar("T")


class PatientStore:
    """A `ByteStore` that reads another one, again and again during an outage.

    Its methods raise `Ended` after the time that the `Outage` allows, and once the run should stop.
    """

    def __init__(self, store: ByteStore, outage: Outage) -> None:
        """Waits for `store` by the rules of `outage`."""
        self._store, self._outage = store, outage

    @property
    def root(self) -> str:
        """The path or URL of the root."""
        return self._store.root

    def exists(self, name: str) -> bool:
        """Returns whether there is a file of this name."""
        return self._patiently(lambda: self._store.exists(name))

    def size(self, name: str) -> int:
        """Returns the size of a file in bytes."""
        return self._patiently(lambda: self._store.size(name))

    def read(self, name: str) -> bytes:
        """Returns a whole file."""
        return self._patiently(lambda: self._store.read(name))

    def ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Returns the bytes of each range, in order."""
        return self._patiently(lambda: self._store.ranges(ranges))

    def upload(self, path: Path, name: str) -> None:
        """Stores a finished local file under a name. Training uploads nothing, so this does not
        wait."""
        self._store.upload(path, name)

    def close(self) -> None:
        """Closes files and connections."""
        self._store.close()

    def _patiently(self, act: Callable[[], T]) -> T:
        return patiently(act, self._outage, self._store.root)
