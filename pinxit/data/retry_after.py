"""Parses the ``Retry-After`` header, in which a server asks clients to wait."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def seconds_of(retry_after: str) -> float | None:
    """Returns the wait in seconds that a ``Retry-After`` header asks for, as a number or as a date.

    Returns None if the header is neither.
    """
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    now = datetime.now(UTC) if date.tzinfo else datetime.now(UTC).replace(tzinfo=None)
    return max(0.0, (date - now).total_seconds())
