"""Captions to rows of token ids of one length, the form in which text reaches a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from tokenizers import Encoding, Tokenizer

from pinxit.config import UsageError

Clean = Callable[[str], str]
"""What is done to a caption before it is tokenised."""


class TokenRows:
    """A tokenizer whose rows have one length, for captions that are cleaned first."""

    def __init__(
        self, tokenizer: Tokenizer, length: int, *, padding: dict[str, Any], clean: Clean | None
    ) -> None:
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(**padding | {"length": length})
        self._tokenizer = tokenizer
        self._length = length
        self._clean = clean

    def ids(self, captions: Sequence[str]) -> Int[np.ndarray, "b l"]:
        """Token ids, padded or truncated."""
        rows = [encoding.ids for encoding in self._encode(captions)]
        return np.array(rows, np.int32).reshape(len(captions), self._length)

    def truncated(self, captions: Sequence[str]) -> Bool[np.ndarray, " b"]:
        """Whether each caption has more tokens than a row holds."""
        return np.array([bool(row.overflowing) for row in self._encode(captions)], bool)

    def _encode(self, captions: Sequence[str]) -> list[Encoding]:
        if isinstance(captions, str):
            raise ValueError(f"captions is the string {captions!r}; pass a list of strings")
        clean = self._clean
        texts = list(captions) if clean is None else [clean(caption) for caption in captions]
        return self._tokenizer.encode_batch(texts)


def check_fit(tokenizer: Tokenizer, vocab_size: int, *, max_tokens: int, longest: int) -> None:
    """Raises where the embedding lacks tokens of the tokenizer, or rows are too short or long."""
    if not 2 <= max_tokens <= longest:
        valid = f"2 to {longest}"
        raise UsageError("max_tokens", max_tokens, problem="out of range", valid=valid)
    size = tokenizer.get_vocab_size()
    if size > vocab_size:
        raise UsageError(f"the tokenizer has {size} tokens, the text tower knows {vocab_size}")
