"""Batches as a pure function of the step, so that the position in the data is one integer.

The order of samples is a global shuffle by index (Grain): epoch after epoch, each a new permutation
of all rows, each row once. Batch ``s`` holds samples ``s * batch_size`` and following of that
order, whatever was read before; resuming at a step reads exactly what an uninterrupted run would
have read. A reader may take a part of each batch: the parts of several readers, put together, are
the batches of one.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Protocol, runtime_checkable

import grain
import numpy as np
from jaxtyping import Int

from pinxit.config import UsageError
from pinxit.data.read_ahead import read_ahead


@runtime_checkable
class Rows(Protocol):
    """A dataset that gives many rows at once."""

    def __len__(self) -> int: ...

    def take(self, rows: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        """Returns the arrays of these rows, each with a leading axis ``b``."""
        ...


class ArrayRows:
    """Rows held in memory: named arrays with one leading axis."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Refuses arrays of different lengths."""
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"arrays: their lengths differ: {lengths}")
        self.arrays = dict(arrays)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def take(self, rows: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        """Returns the arrays at these rows."""
        return {name: array[rows] for name, array in self.arrays.items()}


class Loader:
    """Shuffled batches of `rows`, addressed by step."""

    def __init__(
        self,
        rows: Rows,
        *,
        batch_size: int,
        seed: int = 0,
        part: Int[np.ndarray, " p"] | None = None,
        count: int | None = None,
    ) -> None:
        """Shuffles the first `count` rows (none: all). `part` are the indices in each batch that
        this reader takes, in order (none: all).

        Refuses an empty dataset, and indices beyond the batch.
        """
        count = len(rows) if count is None else count
        if count == 0:
            raise UsageError("rows: the dataset is empty")
        if batch_size < 1:
            raise UsageError(f"batch_size: {batch_size} must be at least 1")
        self.part = np.arange(batch_size) if part is None else np.asarray(part)
        if not len(self.part) or self.part.min() < 0 or self.part.max() >= batch_size:
            raise ValueError(f"part: {self.part} must be places in a batch of {batch_size}")
        self.rows = rows
        self.batch_size = batch_size
        """Samples of a whole batch."""
        order = grain.MapDataset.range(count).seed(seed).shuffle().repeat()
        self._order = order
        self.wait_seconds = 0.0
        """Time that `batches` has waited for data, in all."""

    def row_numbers(self, step: int) -> Int[np.ndarray, " b"]:
        """Returns which rows this reader's part of batch `step` holds."""
        first = step * self.batch_size
        return np.asarray([self._order[first + int(i)] for i in self.part], np.int64)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns this part of batch `step`: the rows' arrays, and `index`, the samples' positions
        in the order."""
        index = (step * self.batch_size + self.part.astype(np.int64)) % 2**31
        return {**self.rows.take(self.row_numbers(step)), "index": index.astype(np.int32)}

    def batches(
        self, start: int, stop: int, *, prefetch: int = 4
    ) -> Generator[dict[str, np.ndarray], None, None]:
        """Yields batches `start` to `stop - 1`, read ahead by a thread; close the generator to end
        the thread."""
        batches = (self.batch(step) for step in range(start, stop))
        return read_ahead(batches, ahead=prefetch, name="pinxit-loader", waited=self._waited)

    def _waited(self, seconds: float) -> None:
        """Counts time spent waiting for data."""
        self.wait_seconds += seconds
