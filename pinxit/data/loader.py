"""Serves batches as a pure function of the step, so that a position in the data is one integer.

The samples are in a global shuffled order (Grain's index shuffle): each epoch is a new permutation
of all rows and contains every row once. Batch ``s`` holds the samples from ``s * batch_size`` on in
that order, whatever was read before. A resumed run therefore reads exactly what an uninterrupted
run would have read. A reader may take only a part of each batch. The parts of several readers add
up to the batches that a single reader would get.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Protocol, runtime_checkable

import grain
import numpy as np
from jaxtyping import Int

from pinxit.config import UsageError
from pinxit.data.read_ahead import read_ahead

PATIENCE = 3.0
"""Seconds to wait for the thread that reads batches when they are no longer needed."""


@runtime_checkable
class Rows(Protocol):
    """A dataset from which many rows can be read at once."""

    def __len__(self) -> int: ...

    def take(self, rows: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        """Returns the arrays of these rows, each with a leading axis ``b``."""
        ...


class ArrayRows:
    """Rows in memory: named arrays that share their leading axis."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes arrays of one length. Raises ValueError if their lengths differ."""
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"arrays: their lengths differ: {lengths}")
        self.arrays = dict(arrays)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def take(self, rows: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        """Returns the arrays at these rows."""
        return {name: array[rows] for name, array in self.arrays.items()}


def first_epoch(count: int, *, seed: int) -> Int[np.ndarray, " n"]:
    """Returns the order in which the first epoch of a `Loader` reads `count` rows."""
    order = _shuffled(count, seed)
    return np.asarray([order[i] for i in range(count)], np.int64)


def _shuffled(count: int, seed: int) -> grain.MapDataset[int]:
    return grain.MapDataset.range(count).seed(seed).shuffle()


class Loader:
    """Serves shuffled batches of `rows` by step."""

    def __init__(
        self,
        rows: Rows,
        *,
        batch_size: int,
        seed: int = 0,
        part: Int[np.ndarray, " p"] | None = None,
        count: int | None = None,
    ) -> None:
        """Shuffles the first `count` rows (None: all).

        `part` holds the indices within each batch that this reader takes, in order (None: all). An
        empty dataset and indices beyond the batch are refused.
        """
        count = len(rows) if count is None else count
        if count == 0:
            raise UsageError("rows: the dataset is empty")
        if batch_size < 1:
            raise UsageError(f"batch_size: {batch_size} must be at least 1")
        self.part = np.arange(batch_size) if part is None else np.asarray(part)
        if not len(self.part) or self.part.min() < 0 or self.part.max() >= batch_size:
            raise ValueError(f"part: {self.part} must be indices in a batch of {batch_size}")
        self.rows = rows
        self.batch_size = batch_size
        """The number of samples in a whole batch, over all parts."""
        self._order = _shuffled(count, seed).repeat()
        self.interrupted: Callable[[], bool] = lambda: False
        """A callback that returns True once waiting for a batch is to end."""
        self.read: Callable[[int], dict[str, np.ndarray]] = self.batch
        """The function that reads the batch of a step, in a thread."""
        self.served = 0
        """The step after the last batch that `batches` has yielded."""
        self.wait_seconds = 0.0
        """Total time that consumers of `batches` have waited for data, in seconds."""

    def row_numbers(self, step: int) -> Int[np.ndarray, " b"]:
        """Returns the row numbers of this reader's part of batch `step`."""
        first = step * self.batch_size
        return np.asarray([self._order[first + int(i)] for i in self.part], np.int64)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns this reader's part of batch `step`: the arrays of its rows, and ``index``, the
        positions of the samples in the shuffled order (int32, modulo 2**31)."""
        index = (step * self.batch_size + self.part.astype(np.int64)) % 2**31
        return {**self.rows.take(self.row_numbers(step)), "index": index.astype(np.int32)}

    def batches(
        self, start: int, stop: int, *, prefetch: int = 4
    ) -> Generator[dict[str, np.ndarray], None, None]:
        """Yields batches `start` to `stop - 1`, which a thread reads up to `prefetch` ahead, or
        fewer if `interrupted` returns True while none is ready.

        Closing the generator ends the thread, unless it hangs.
        """
        batches = (self.read(step) for step in range(start, stop))
        ahead = read_ahead(
            batches,
            ahead=prefetch,
            name="pinxit-loader",
            waited=self._waited,
            interrupted=lambda: self.interrupted(),
            patience=PATIENCE,
        )
        self.served = start
        with closing(ahead):
            for batch in ahead:
                self.served += 1
                yield batch

    def _waited(self, seconds: float) -> None:
        """Adds to the time spent waiting for data."""
        self.wait_seconds += seconds
