"""How an image is cut into tokens: whole cells of the autoencoder's grid, some to each token."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pinxit.config import UsageError


@dataclass(frozen=True)
class TokenGrid:
    """The grid that sides of images must fit."""

    downsample: int
    """Pixels along a side of one cell of the autoencoder's grid."""
    patch: int
    """Cells along a side of one token."""

    @property
    def unit(self) -> int:
        """The number of pixels along a side of one token."""
        return self.downsample * self.patch

    def __str__(self) -> str:
        return f"{self.unit} (vae factor {self.downsample} x patch {self.patch})"

    def misfits(self, sizes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Returns those of the (width, height) that are not a whole number of tokens."""
        unit = self.unit
        return [(w, h) for w, h in sizes if min(w, h) < unit or w % unit or h % unit]

    def refuse(self, field: str, value: Any) -> UsageError:
        """Returns the error for a setting that asks for images which do not fit."""
        problem, valid = "not divisible into tokens", f"multiples of {self}"
        return UsageError(field, value, problem=problem, valid=valid)
