"""The division of an image into tokens: each is a square of cells of the autoencoder's grid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pinxit.config import UsageError


@dataclass(frozen=True)
class TokenGrid:
    """The grid of tokens, into which the sides of an image must be divisible."""

    downsample: int
    """The number of pixels along a side of one cell of the autoencoder's grid."""
    patch: int
    """The number of cells along a side of one token."""

    @property
    def unit(self) -> int:
        """The number of pixels along a side of one token."""
        return self.downsample * self.patch

    def __str__(self) -> str:
        return f"{self.unit} (vae factor {self.downsample} x patch {self.patch})"

    def tokens(self, side: int) -> int:
        """Returns the number of tokens of a square image with `side` pixels along each side."""
        return (side // self.unit) ** 2

    def misfits(self, sizes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Returns the sizes (width, height) that are not a whole number of tokens, at least one."""
        unit = self.unit
        return [(w, h) for w, h in sizes if min(w, h) < unit or w % unit or h % unit]

    def refuse(self, field: str, value: Any) -> UsageError:
        """Returns the error for a setting whose images are not divisible into tokens."""
        problem, valid = "not divisible into tokens", f"multiples of {self}"
        return UsageError(field, value, problem=problem, valid=valid)
