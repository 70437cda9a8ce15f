"""Defines feature extractors: functions from pictures and their prompts to rows of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

Picture = UInt8[np.ndarray, "_ _ 3"]
"""A picture, of any size, which may differ from that of the others in a call."""


@runtime_checkable
class Extractor(Protocol):
    """Turns each picture into a row of numbers, such as the features of a network.

    A row must depend on its picture and its prompt alone, to the last bit: not on the other
    pictures of the call, nor on the number of devices (`batches.in_batches` sees to both).
    """

    @property
    def name(self) -> str:
        """The name that tables show, such as ``inception``."""
        ...

    @property
    def width(self) -> int:
        """The number of features of a picture."""
        ...

    def about(self) -> Mapping[str, Any]:
        """Returns everything that the features depend on (network, weights, resizing), as JSON."""
        ...

    def __call__(
        self, pictures: Sequence[Picture], prompts: Sequence[str]
    ) -> Float[np.ndarray, "n d"]:
        """Returns a row of float32 features for each picture."""
        ...
