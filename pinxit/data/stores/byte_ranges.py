"""Ranges of bytes of files. Those that touch are merged before they are requested, long ones cut.

Each request to an object store costs the same tens of milliseconds whatever its size, and a single
answer arrives at tens of megabytes per second. Neighbours are therefore one request, and a long
range is several, which are answered at the same time. No byte is requested twice or without need.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

Range = tuple[str, int, int]
"""A name, the first byte, and the byte after the last."""
LONGEST = 8 * 2**20
"""The most bytes of one request."""


def merged(ranges: Sequence[Range], *, longest: int = LONGEST) -> list[Range]:
    """Returns the fewest ranges of at most `longest` bytes that hold all bytes of `ranges`, each
    once, sorted. Empty ranges need none."""
    runs: list[Range] = []
    for name, start, stop in sorted(ranges):
        if stop <= start:
            continue
        if runs and runs[-1][0] == name and start <= runs[-1][2]:
            _, first, last = runs.pop()
            runs.append((name, first, max(last, stop)))
        else:
            runs.append((name, start, stop))
    return [
        (name, at, min(at + longest, stop))
        for name, start, stop in runs
        for at in range(start, stop, longest)
    ]


def cut_out(
    ranges: Sequence[Range], requests: Sequence[Range], answers: Sequence[bytes]
) -> list[bytes]:
    """Returns the bytes of each range from the answers to the requests that `merged` returned.

    Where an answer is shorter than its request, the file ends there.
    """
    pieces: dict[str, list[tuple[int, bytes]]] = {}
    for (name, start, _), answer in zip(requests, answers, strict=True):
        pieces.setdefault(name, []).append((start, answer))
    return [_cut(pieces.get(name, []), start, stop) for name, start, stop in ranges]


def _cut(pieces: list[tuple[int, bytes]], start: int, stop: int) -> bytes:
    """Returns the bytes from `start` to before `stop` of pieces, which are (first byte, content)
    in order."""
    parts = []
    at = max(0, bisect.bisect_right(pieces, start, key=lambda piece: piece[0]) - 1)
    for first, content in itertools.islice(pieces, at, None):
        if first >= stop:
            break
        parts.append(content[max(0, start - first) : max(0, stop - first)])
    return parts[0] if len(parts) == 1 else b"".join(parts)
