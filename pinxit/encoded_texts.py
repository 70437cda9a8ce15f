"""The conditioning of a call's prompts: each distinct text is encoded once.

Texts are encoded in chunks of one fixed size, so that one program of the encoder serves every call
and a text is encoded to the same bytes in all of them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from pinxit.arrays import Conditioning
from pinxit.fixed_batches import concatenated, padded


class EncodedTexts:
    """The conditioning of texts, encoded when first needed and kept until last needed.

    `texts` has every use of a text in the order in which `rows` will request them. A request also
    encodes the next texts of that order until a chunk is full.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str]], Conditioning],
        texts: Iterable[str],
        *,
        chunk: int,
    ) -> None:
        self._encode = encode
        self._uses = Counter(texts)
        self._waiting = dict.fromkeys(self._uses)
        self._chunk = chunk
        self._encoded: dict[str, Conditioning] = {}

    def rows(self, texts: Sequence[str]) -> Conditioning:
        """Returns the conditioning of the texts, one row for each, as host arrays."""
        for text in texts:
            if text not in self._encoded:
                self._add(text)
        rows = concatenated([self._encoded[text] for text in texts])
        for text in texts:
            self._uses[text] -= 1
            if self._uses[text] <= 0:
                self._encoded.pop(text, None)
        return rows

    def _add(self, text: str) -> None:
        """Encodes a text, and with it the next ones that wait, up to a chunk."""
        self._waiting.pop(text, None)
        chunk = [text, *itertools.islice(self._waiting, self._chunk - 1)]
        for other in chunk[1:]:
            del self._waiting[other]
        encoded = self._encode(padded(chunk, self._chunk))
        for row, name in enumerate(chunk):
            self._encoded[name] = _row(encoded, row)


def _row(encoded: Conditioning, row: int) -> Conditioning:
    """Returns a copy of one row, so that the whole chunk need not be kept in memory."""
    return jax.tree.map(lambda leaf: np.array(leaf[row : row + 1]), encoded)
