"""Parses the size of a picture as people write it: one side, or width and height."""

from __future__ import annotations

import re

from pinxit.config import UsageError

SIZE = re.compile(r"([0-9]{1,9})(?:\s*[xX×]\s*([0-9]{1,9}))?")  # noqa: RUF001 - a real times sign
VALID_SIZE = "one side, or WIDTHxHEIGHT, such as 320x192"
"""The valid values, for messages."""


def parse_size(text: str, *, field: str = "size") -> int | tuple[int, int]:
    """Returns one side, or (width, height), in pixels. The sign between them is x, X or ×.

    Raises `UsageError`, which calls the setting `field`, for other texts and for sides of 0.
    """  # noqa: RUF002
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(field, text, problem="not understood", valid=VALID_SIZE)
    sides = [int(side) for side in match.groups() if side is not None]
    if 0 in sides:
        raise UsageError(field, text, problem="too small", valid="sides of at least 1")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])
