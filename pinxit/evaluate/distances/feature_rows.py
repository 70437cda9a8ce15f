"""The input of every distance: rows of features that are read in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from pinxit.config import UsageError
from pinxit.evaluate.feature_store import BLOCK


@runtime_checkable
class FeatureRows(Protocol):
    """Rows of features, addressed by number, such as a `FeatureStore`."""

    width: int

    def __len__(self) -> int: ...

    def blocks(
        self, start: int = 0, stop: int | None = None, *, size: int = BLOCK
    ) -> Iterator[Float[np.ndarray, "b d"]]:
        """Yields the rows from `start` to `stop` in blocks of `size`; the last may be smaller."""
        ...

    def take(self, numbers: Sequence[int] | Int[np.ndarray, " n"]) -> Float[np.ndarray, "n d"]:
        """Returns the rows with these numbers, in their order."""
        ...


class SelectedRows:
    """Some of the rows of others, addressed by their position in the selection."""

    def __init__(self, rows: FeatureRows, numbers: Sequence[int] | range) -> None:
        """Selects the rows with these numbers, in their order."""
        self._rows, self._numbers = rows, np.asarray(numbers, np.int64)
        self.width = rows.width

    def __len__(self) -> int:
        return len(self._numbers)

    def blocks(
        self, start: int = 0, stop: int | None = None, *, size: int = BLOCK
    ) -> Iterator[Float[np.ndarray, "b d"]]:
        """Yields the selected rows in blocks of `size`; the last may be smaller."""
        stop = len(self) if stop is None else min(stop, len(self))
        for first in range(start, stop, size):
            yield self._rows.take(self._numbers[first : min(first + size, stop)])

    def take(self, numbers: Sequence[int] | Int[np.ndarray, " n"]) -> Float[np.ndarray, "n d"]:
        """Returns the selected rows at these positions, in their order."""
        return self._rows.take(self._numbers[np.asarray(numbers, np.int64)])


def same_width(x: FeatureRows, y: FeatureRows) -> None:
    """Raises `UsageError` unless both sets have the same number of features."""
    if x.width != y.width:
        raise UsageError(
            f"features: {x.width} of one set and {y.width} of the other; both sets of pictures "
            "must be seen by the same network"
        )
