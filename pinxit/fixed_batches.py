"""Batches of a fixed size and shape, because JAX compiles a program for each new shape."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

import jax
import numpy as np

T = TypeVar("T")


@overload
def padded(rows: np.ndarray, size: int) -> np.ndarray: ...
@overload
def padded(rows: list[T], size: int) -> list[T]: ...
def padded(rows: np.ndarray | list[T], size: int) -> np.ndarray | list[T]:
    """Appends copies of the last row until there are `size` rows.

    There must be at least one row and at most `size`. The rows of an array are along its first
    axis.
    """
    missing = size - len(rows)
    if missing < 0 or not len(rows):
        raise ValueError(f"rows: {len(rows)} cannot be padded to {size}; valid: 1 to {size}")
    if isinstance(rows, list):
        return rows + rows[-1:] * missing
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])


def concatenated(batches: Sequence[Any]) -> Any:
    """Joins trees of arrays along the first axis of each array."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)


def rounds_of(batches: Sequence[Iterable[T]], size: int, devices: int) -> list[list[T]]:
    """Returns rounds of one batch for each device, all of them padded to `size` items.

    The last round repeats its last batch for devices without another one.
    """
    full = [padded(list(batch), size) for batch in batches]
    rounds = [padded(full[i : i + devices], devices) for i in range(0, len(full), devices)]
    return [[item for batch in one_round for item in batch] for one_round in rounds]


def batches_by_shape(
    items: Iterable[T], size: int, *, shape: Callable[[T], Hashable]
) -> Iterator[list[T]]:
    """Yields batches of `size` items of one shape, each as soon as it is full.

    After the last item it yields the incomplete batches, in the order in which they were started.
    """
    pending: dict[Hashable, list[T]] = {}
    for item in items:
        batch = pending.setdefault(shape(item), [])
        batch.append(item)
        if len(batch) == size:
            yield pending.pop(shape(item))
    yield from pending.values()
