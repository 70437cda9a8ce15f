"""Datasets by name. Each is a function ``(size, image_size, seed, split)`` that returns `Example`s.

To add a dataset, write such a function and add a line to `DATASETS`. The names in
`data.sources.SOURCES`, whose images are fetched or read from files, are datasets as well. So is
every folder that `pinxit prepare` wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

from pinxit.arrays import Example
from pinxit.config import UsageError
from pinxit.data.code_fingerprint import code_fingerprint
from pinxit.data.mock import mock_examples
from pinxit.data.scenes.dataset import scene_examples
from pinxit.data.sources.catalogue import SOURCES

Split = Literal["train", "heldout"]


@runtime_checkable
class Dataset(Protocol):
    """A deterministic sequence of rows: row i is always the same.

    It may also have a method ``fingerprint() -> str``, whose result must change when the rows
    change. Without it, the rows are assumed to change only with the code that makes them. With a
    method ``caption(row) -> str``, which returns the caption of a row without its image, training
    on a CPU begins before all images are encoded.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Example: ...


DATASETS: dict[str, Callable[..., Dataset]] = {"scenes": scene_examples, "mock": mock_examples}

PREPARED = "prepared"
"""The name of every dataset that `pinxit prepare` wrote."""


def dataset_names() -> tuple[str, ...]:
    """Returns the names of all datasets."""
    return (*DATASETS, *SOURCES, PREPARED)


def load_examples(
    name: str, size: int, *, image_size: int, seed: int = 0, split: Split = "train"
) -> Dataset:
    """Returns `size` rows of the dataset called `name`."""
    if name not in DATASETS:
        raise UsageError(f"dataset_name: unknown dataset {name!r}; known: {', '.join(DATASETS)}")
    return DATASETS[name](size, image_size, seed=seed, split=split)


def held_out_examples(name: str, count: int, *, image_size: int, seed: int) -> list[Example]:
    """Returns the first rows of the held-out split of the dataset called `name`."""
    rows = load_examples(name, count, image_size=image_size, seed=seed, split="heldout")
    return [rows[row] for row in range(count)]


def dataset_fingerprint(name: str, examples: Dataset) -> str:
    """Returns the dataset's own fingerprint, or one of the code that makes its rows."""
    own = getattr(examples, "fingerprint", None)
    return own() if callable(own) else code_fingerprint(DATASETS[name], type(examples))
