"""Writes the packs of one kind and shape, one after another, and continues where it stopped.

A pack is finished when its index exists, which is written last. A record that would make a pack
larger than the limit begins the next one, so that the packs depend on the records alone: a command
that was killed writes the same packs again, and leaves those that are finished as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from pinxit.config import UsageError
from pinxit.data.packed.pack_index import DamagedPack, PackIndex, index_name
from pinxit.data.packed.packed_manifest import PackedShape, PackInfo, pack_name
from pinxit.data.stores.byte_store import ByteStore, LocalStore
from pinxit.files import whole


class PackOutput:
    """The folder, or the object store, that packs are written to.

    Files for an object store are first written to a folder of this machine.
    """

    def __init__(self, store: ByteStore, scratch: Path) -> None:
        """Takes the store, and a folder for files that are to be uploaded."""
        self.store = store
        self.scratch = scratch

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yields a path to write to. The file gets its name, whole, if the block succeeds."""
        if isinstance(self.store, LocalStore):
            with whole(self.store.folder / name) as temporary:
                yield temporary
            return
        path = self.scratch / name.replace("/", "-")
        try:
            with whole(path) as temporary:
                yield temporary
            self.store.upload(path, name)
        finally:
            path.unlink(missing_ok=True)

    def write(self, name: str, content: bytes) -> None:
        """Writes a small file."""
        with self.writing(name) as path:
            path.write_bytes(content)


class PackSeries:
    """The packs of one kind and shape. Leaving the block finishes the last pack."""

    def __init__(self, output: PackOutput, shape: PackedShape, *, kind: str, limit: int) -> None:
        """Finds the packs that are finished. `limit` is the size of a pack in bytes. `shape` has no
        packs yet."""
        self.output = output
        self.shape = shape
        self.kind = kind
        self.limit = limit
        self.packs = list(self._finished())
        self.next_row = shape.first + sum(pack.rows for pack in self.packs)
        """The row of this shape that is written next."""
        if self.next_row > shape.rows:
            raise UsageError(
                f"{output.store.root} has packs of another dataset: more rows of {kind} than this "
                "one. Pack into another folder"
            )
        self._stack = contextlib.ExitStack()
        self._open: _OpenPack | None = None

    @property
    def finished(self) -> PackedShape:
        """The shape with all of its packs."""
        return PackedShape(self.shape.shape, self.shape.rows, self.shape.first, tuple(self.packs))

    def add(self, record: bytes) -> None:
        """Writes the next record."""
        if self._open is not None and self._open.size + len(record) > self.limit:
            self._finish()
        if self._open is None:
            name = pack_name(self.kind, self.shape.shape, len(self.packs))
            path = self._stack.enter_context(self.output.writing(name))
            self._open = _OpenPack(name, self._stack.enter_context(path.open("wb")))
        self._open.add(record)
        self.next_row += 1

    def __enter__(self) -> PackSeries:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()
        else:
            self._stack.__exit__(kind, error, trace)  # removes the unfinished pack

    def _finish(self) -> None:
        """Finishes the pack that is being written, and then writes its index."""
        if self._open is None:
            return
        pack, self._open = self._open, None
        self._stack.close()
        index = pack.index()
        content = index.to_bytes()
        self.output.write(index_name(pack.name), content)
        self.packs.append(_described(pack.name, index, content))

    def _finished(self) -> Iterator[PackInfo]:
        """Yields the packs that are there, up to the first one that is not finished."""
        store, number = self.output.store, 0
        while True:
            name = pack_name(self.kind, self.shape.shape, number)
            try:
                content = store.read(index_name(name))
                index = PackIndex.from_bytes(content, name)
                if store.size(name) != index.size:
                    return
            except (FileNotFoundError, DamagedPack):  # it is written again
                return
            yield _described(name, index, content)
            number += 1


class _OpenPack:
    """A pack that is being written."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name = name
        self.size = 0
        self._file = file
        self._digest = hashlib.sha256()
        self._offsets = [0]
        self._checksums: list[int] = []

    def add(self, record: bytes) -> None:
        self._file.write(record)
        self._digest.update(record)
        self.size += len(record)
        self._offsets.append(self.size)
        self._checksums.append(zlib.crc32(record))

    def index(self) -> PackIndex:
        return PackIndex(
            self._digest.hexdigest(),
            np.array(self._offsets, np.uint32),
            np.array(self._checksums, np.uint32),
        )


def _described(name: str, index: PackIndex, content: bytes) -> PackInfo:
    """Returns the properties of a pack for the manifest."""
    digest = hashlib.sha256(content).hexdigest()
    return PackInfo(name, len(index), index.size, index.sha256, digest)
