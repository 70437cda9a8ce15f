"""Datasets by name: each a function ``(size, image_size, seed, split)`` to a sequence of `Example`.

To add one: such a function, and one line in `DATASETS`. The names of `data.sources.SOURCES`, whose
images are fetched or read from files, are datasets too, and so is a folder that `pinxit prepare`
made, whatever its name.
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
    """Rows by number, deterministic: row i is always the same.

    It may also have a method ``fingerprint() -> str``, which changes when the rows do; otherwise
    they are taken to change with the code that makes them.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Example: ...


DATASETS: dict[str, Callable[..., Dataset]] = {"scenes": scene_examples, "mock": mock_examples}

PREPARED = "prepared"
"""The name of every dataset that `pinxit prepare` made."""


def dataset_names() -> tuple[str, ...]:
    """What a run may train on."""
    return (*DATASETS, *SOURCES, PREPARED)


def load_examples(
    name: str, size: int, *, image_size: int, seed: int = 0, split: Split = "train"
) -> Dataset:
    """`size` rows of the dataset called `name`."""
    if name not in DATASETS:
        raise UsageError(f"dataset_name: unknown dataset {name!r}; known: {', '.join(DATASETS)}")
    return DATASETS[name](size, image_size, seed=seed, split=split)


def dataset_fingerprint(name: str, examples: Dataset) -> str:
    """What the rows of a dataset depend on besides its settings: its own word, or its code."""
    own = getattr(examples, "fingerprint", None)
    return own() if callable(own) else code_fingerprint(DATASETS[name], type(examples))
