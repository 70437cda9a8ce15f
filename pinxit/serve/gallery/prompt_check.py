"""Says how much of a prompt the text encoder reads, before anything is drawn."""

from __future__ import annotations

import re
from collections.abc import Callable

from pinxit.arrays import TextEncoder


def read_length(text_encoder: TextEncoder, prompt: str) -> int:
    """Returns the number of characters that the text encoder reads, up to the end of a word.

    A prompt that is not cut is read as a whole. A word of which only the beginning is read does not
    count.
    """
    if not text_encoder.truncated([prompt])[0]:
        return len(prompt)
    ends = [match.end() for match in re.finditer(r"\S+", prompt)]
    if len(ends) < 2:
        ends = list(range(1, len(prompt) + 1))
    return _last_within(ends, lambda end: not text_encoder.truncated([prompt[:end]])[0])


def _last_within(ends: list[int], fits: Callable[[int], bool]) -> int:
    """Returns the last end that fits, or 0. If an end fits, all before it do."""
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if fits(ends[middle]) else (low, middle)
    return ends[low - 1] if low else 0
