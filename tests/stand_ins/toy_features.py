"""Sets of pictures and extractors of a few numbers, which count how often they are asked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(eq=False)
class ToyPictures:
    """Pictures of 4 x 4 pixels that follow from a seed."""

    count: int = 10
    seed: int = 0
    lasting: bool = False
    together: int = 4
    title: str = "making toys"
    made: list[int] = field(default_factory=list)
    """The numbers of the pictures that were made, in order."""

    def __len__(self) -> int:
        return self.count

    @property
    def prompts(self) -> Sequence[str]:
        """The prompt of each picture."""
        return [f"toy {i}" for i in range(self.count)]

    def about(self) -> dict[str, Any]:
        """Returns the seed and the count."""
        return {"seed": self.seed, "count": self.count}

    def pictures(self, numbers: range) -> list[np.ndarray]:
        """Makes the pictures."""
        self.made.extend(numbers)
        return [
            np.random.default_rng([self.seed, i]).integers(0, 256, (4, 4, 3), np.uint8)
            for i in numbers
        ]


@dataclass(eq=False)
class ToyFeatures:
    """The mean colour of a picture, and the length of its prompt."""

    name: str = "colour"
    width: int = 4
    seen: int = 0
    """The number of pictures that were seen."""
    stop_after: int | None = None
    """The number of pictures after which a KeyboardInterrupt is raised, as by Ctrl-C."""

    def about(self) -> dict[str, Any]:
        """Returns the name."""
        return {"name": self.name, "weights": hashlib.sha256(self.name.encode()).hexdigest()}

    def __call__(self, pictures: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        """Returns a row for each picture."""
        if self.stop_after is not None and self.seen >= self.stop_after:
            raise KeyboardInterrupt
        self.seen += len(pictures)
        rows = [
            [*picture.mean((0, 1)), len(prompt)]
            for picture, prompt in zip(pictures, prompts, strict=True)
        ]
        return np.asarray(rows, np.float32)
