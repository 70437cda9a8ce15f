"""Features in memory, and extractors without a network, for the tests of distances."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np


class ArrayRows:
    """Rows of features in an array; it counts the largest block that was read."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.width = np.asarray(array, np.float32), array.shape[1]

    def __len__(self) -> int:
        return len(self.array)

    def blocks(self, start: int = 0, stop: int | None = None, *, size: int = 7) -> Iterator[Any]:
        stop = len(self.array) if stop is None else min(stop, len(self.array))
        yield from (self.array[i : min(i + size, stop)] for i in range(start, stop, size))

    def take(self, numbers: Sequence[int]) -> np.ndarray:
        return self.array[np.asarray(numbers)]


class Means:
    """An extractor of mean colours, halves and quarters: cheap, and of any width."""

    def __init__(self, name: str = "means", width: int = 6, change: Callable = lambda x: x) -> None:
        self.name, self.width, self._change = name, width, change

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "width": self.width}

    def __call__(self, pictures: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        rows = []
        for picture in pictures:
            lines = picture.reshape(-1, 3).astype(np.float32) / 255
            parts = np.concatenate([part.mean(0) for part in np.array_split(lines, self.width)])
            rows.append(parts[: self.width])
        return self._change(np.stack(rows).astype(np.float32))


def correlated(n: int, d: int, *, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    """Features with a full covariance, not negative, as a network's are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(d, d)) / np.sqrt(d)
    return np.maximum(rng.normal(size=(n, d)) @ mixing + shift, 0).astype(np.float32)
