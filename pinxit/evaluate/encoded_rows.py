"""Held-out rows that are encoded once for all sets of parameters of a run.

The rows and the encoders are fixed, so their latents and conditioning are the same each time that a
run evaluates. They are stored on the host, if they are not too many.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from pinxit.arrays import Conditioning

MOST_BYTES = 2**30
"""Bytes of encoded rows that are stored. Beyond that, they are encoded again each time."""


@dataclass(frozen=True)
class EncodedRound:
    """The rows that the devices compute at the same time."""

    numbers: Int[np.ndarray, " n"]
    """Numbers of the rows."""
    latents: Float[np.ndarray, "n h w c"]
    conditioning: Conditioning

    @property
    def size(self) -> int:
        """The number of bytes of all arrays."""
        return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(self.parts))

    @property
    def parts(self) -> tuple[Any, ...]:
        """The arrays of the rows, as a tuple."""
        return self.numbers, self.latents, self.conditioning


class EncodedRows:
    """Stores the encoded rows of one set of rows and encoders."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Stores nothing yet, and at most `most_bytes` later."""
        self._most_bytes = most_bytes
        self._rounds: dict[Hashable, list[EncodedRound]] = {}

    def rounds(
        self, key: Hashable, encode: Callable[[], Iterator[EncodedRound]]
    ) -> Iterator[EncodedRound]:
        """Yields the stored rounds of this key, or those that `encode` yields, which are stored
        after the last one."""
        if key in self._rounds:
            yield from self._rounds[key]
            return
        rounds: list[EncodedRound] = []
        size = 0
        for one_round in encode():
            size += one_round.size
            rounds.append(one_round)
            if size > self._most_bytes:
                rounds.clear()
            yield one_round
        if size <= self._most_bytes:
            self._rounds[key] = rounds
