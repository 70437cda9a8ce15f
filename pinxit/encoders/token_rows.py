"""Turns captions into rows of token ids of one length, which are a network's input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from tokenizers import Tokenizer

from pinxit.arrays import Conditioning
from pinxit.config import UsageError

Clean = Callable[[str], str]
"""A function that is applied to a caption before it is tokenised."""


REMEMBERED = 2**15
"""Largest number of captions of one call that are kept with their rows, since the next call often
asks for the same ones: the rows, or which of them lost their ends."""


class TokenRows:
    """A tokenizer whose rows all have the same length; it cleans captions first."""

    def __init__(
        self, tokenizer: Tokenizer, length: int, *, padding: dict[str, Any], clean: Clean | None
    ) -> None:
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(**padding | {"length": length})
        self._tokenizer = tokenizer
        self._length = length
        self._clean = clean
        self._last: _Rows | None = None

    def ids(self, captions: Sequence[str]) -> Int[np.ndarray, "b l"]:
        """Returns token ids, padded or truncated to the row length."""
        return self._encoded(captions).ids

    def truncated(self, captions: Sequence[str]) -> Bool[np.ndarray, " b"]:
        """Returns whether each caption has more tokens than a row holds."""
        return self._encoded(captions).truncated

    def _encoded(self, captions: Sequence[str]) -> _Rows:
        if isinstance(captions, str):
            raise ValueError(f"captions is the string {captions!r}; pass a list of strings")
        captions, last = list(captions), self._last
        if last is not None and last.captions == captions:
            return last
        clean = self._clean
        texts = captions if clean is None else [clean(caption) for caption in captions]
        encodings = self._tokenizer.encode_batch(texts)
        ids = np.array([encoding.ids for encoding in encodings], np.int32)
        ids = ids.reshape(len(captions), self._length)
        rows = _Rows(captions, ids, np.array([bool(row.overflowing) for row in encodings], bool))
        if len(captions) <= REMEMBERED:
            self._last = rows
        return rows


@dataclass(frozen=True)
class _Rows:
    """Captions, their token ids, and whether each lost its end. The arrays can't be written to."""

    captions: list[str]
    ids: Int[np.ndarray, "b l"]
    truncated: Bool[np.ndarray, " b"]

    def __post_init__(self) -> None:
        self.ids.flags.writeable = self.truncated.flags.writeable = False


class TokenRowEncoder:
    """The methods that text encoders share: they read rows of token ids of one length.

    A subclass sets the attributes and defines `apply` (see `arrays.TextEncoder`).
    """

    params: Any
    """The frozen weights."""
    _rows: TokenRows
    """The rows of captions; missing in an encoder that was made for tracing alone."""
    _jitted: Callable[[Any, Any], Conditioning]
    """The compiled form of `apply`."""

    def tokenize(self, captions: Sequence[str]) -> Int[np.ndarray, "b l"]:
        """Returns token ids, padded or truncated to exactly `max_tokens`."""
        return self._rows.ids(captions)

    def truncated(self, captions: Sequence[str]) -> Bool[np.ndarray, " b"]:
        """Returns, for each caption, whether it is longer than `max_tokens` and loses its tail."""
        return self._rows.truncated(captions)

    def __call__(self, captions: Sequence[str]) -> Conditioning:
        return self._jitted(self.params, self.tokenize(captions))


def check_fit(tokenizer: Tokenizer, vocab_size: int, *, max_tokens: int, longest: int) -> None:
    """Raises `UsageError` if the embedding is smaller than the vocabulary, or `max_tokens` invalid.

    Rows must have 2 to `longest` tokens.
    """
    if not 2 <= max_tokens <= longest:
        valid = f"2 to {longest}"
        raise UsageError("max_tokens", max_tokens, problem="out of range", valid=valid)
    size = tokenizer.get_vocab_size()
    if size > vocab_size:
        raise UsageError(f"the tokenizer has {size} tokens, but the text tower only {vocab_size}")
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= vocab_size:
        problem = f"the tokenizer has the id {largest}, but the text tower's ids end at"
        raise UsageError(f"{problem} {vocab_size - 1}")
