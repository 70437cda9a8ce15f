"""Rows of features in a folder: written in pieces while pictures are made, read in blocks.

A piece is whole or absent. So an interrupted evaluation goes on after the last piece, and memory
does not grow with the number of pictures. Two processes may write to one folder: a row depends on
its picture alone, so whatever pieces they replace, the rows from the first one on are the same.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from pinxit.config import UsageError
from pinxit.files import whole

BLOCK = 1024
"""Number of rows that are read together."""


class FeatureStore:
    """The features of one set of pictures by one extractor."""

    def __init__(self, folder: Path, *, width: int) -> None:
        """Opens a folder, which may contain pieces of an earlier evaluation."""
        self.folder, self.width = folder, width
        self._pieces: list[np.ndarray] = []
        self._starts: list[int] = []
        self.count = 0
        """The number of rows from the first one on."""
        while (path := self._path(self.count)).is_file():
            rows = self._read(path)
            if rows is None:
                break
            self._add(rows)

    def append(self, rows: Float[np.ndarray, "n d"], *, name: str) -> None:
        """Writes the rows after the last one. Raises `UsageError` unless all of them are finite.

        `name` is that of the extractor, for the message.
        """
        rows = np.ascontiguousarray(rows, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.width or not len(rows):
            raise ValueError(f"{name}: features of shape {rows.shape}, expected (n, {self.width})")
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(broken):
            raise UsageError(
                f"{name}: the features of picture {self.count + int(broken[0])} are not finite "
                f"({len(broken)} of {len(rows)} pictures). A network in a lower precision or "
                "damaged weights cause this; no figure is computed from them"
            )
        path = self._path(self.count)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as temporary, temporary.open("wb") as file:
            np.save(file, rows)
        self._add(np.load(path, mmap_mode="r"))

    def _read(self, path: Path) -> np.ndarray | None:
        """Returns the rows of a piece, or None if it is damaged, so that it is computed again."""
        try:
            rows = np.load(path, mmap_mode="r")
        except (ValueError, EOFError, OSError):
            return None
        fits = rows.ndim == 2 and len(rows) and rows.shape[1] == self.width
        return rows if fits and rows.dtype == np.float32 else None

    def _path(self, start: int) -> Path:
        return self.folder / f"rows-{start:09d}.npy"

    def _add(self, rows: np.ndarray) -> None:
        self._starts.append(self.count)
        self._pieces.append(rows)
        self.count += len(rows)

    def __len__(self) -> int:
        return self.count

    def blocks(
        self, start: int = 0, stop: int | None = None, *, size: int = BLOCK
    ) -> Iterator[Float[np.ndarray, "b d"]]:
        """Yields the rows from `start` to `stop` in blocks of `size`; the last may be smaller."""
        stop = self.count if stop is None else min(stop, self.count)
        for first in range(start, stop, size):
            yield self.take(np.arange(first, min(first + size, stop)))

    def take(self, numbers: Sequence[int] | Int[np.ndarray, " n"]) -> Float[np.ndarray, "n d"]:
        """Returns the rows with these numbers, in their order."""
        numbers = np.asarray(numbers, np.int64)
        if len(numbers) and not (numbers.min() >= 0 and numbers.max() < self.count):
            raise IndexError(f"rows {numbers.min()} to {numbers.max()} of {self.count}")
        rows = np.empty((len(numbers), self.width), np.float32)
        piece_of = np.searchsorted(self._starts, numbers, side="right") - 1
        for piece in np.unique(piece_of):
            here = piece_of == piece
            rows[here] = self._pieces[piece][numbers[here] - self._starts[piece]]
            _release(self._pieces[piece])
        return rows


def _release(piece: np.ndarray) -> None:
    """Returns the memory of a mapped file that was read, which counts as this process's."""
    if isinstance(piece.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        piece.base.madvise(mmap.MADV_DONTNEED)
