"""Says how many rows may still succeed, and the command that tries them again."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from pinxit.data.outcome import can_heal

RETRY = "--retry_failed"


def retry_advice(counts: Mapping[str, int], argv: Sequence[str]) -> str | None:
    """Returns the number of rows that failed for reasons that may be temporary, with the command
    that retries them, or None if there are no such rows. `argv` are the words of this command."""
    failed = Counter({status: n for status, n in counts.items() if n and _heals(status)})
    if not failed:
        return None
    reasons = ", ".join(f"{status} {count:,}" for status, count in failed.most_common())
    rows = f"{failed.total():,} row{'s' * (failed.total() != 1)}"
    command = shlex.join(["pinxit", "prepare", *_without_retry(argv), RETRY, "1"])
    return f"{rows} failed for reasons that may be temporary ({reasons}); to retry them: {command}"


def _heals(status: str) -> bool:
    """Returns whether a retry may succeed although nothing is installed before it."""
    return can_heal(status) and status != "unsupported"


def _without_retry(argv: Sequence[str]) -> list[str]:
    """Returns the words without the setting that retries, if it is among them."""
    words, rest = [], iter(argv)
    for word in rest:
        if word == RETRY:
            next(rest, None)
        elif not word.startswith(f"{RETRY}="):
            words.append(word)
    return words
