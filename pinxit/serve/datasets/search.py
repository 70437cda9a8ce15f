"""Pages through the rows of a prepared dataset, and searches them for a bounded time.

An answer says how far it came, and the next one goes on from there: a search through millions of
rows is a series of short requests. A damaged file is named and passed over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from pinxit.data.prepared.shards import SUFFIX, DamagedShard
from pinxit.prepare.rejected_previews import FOLDER as PREVIEWS
from pinxit.serve.datasets.outcome_tables import RowFilter, outcome_rows, plain_row
from pinxit.serve.datasets.shard_pictures import Record, ShardPictures
from pinxit.serve.datasets.unit_totals import UnitEntry

SECONDS = 1.5
"""The longest time of one answer, apart from the piece that is being read."""
PIECE = 64
"""The number of pictures that are read at a time."""
CAPTION = 2_000
"""The longest caption that is passed on, in characters."""
PREVIEW_FILES = 400
"""The maximum number of files with previews that are read."""
PREVIEWS_EACH = 400
"""The maximum number of previews that are read of one file."""


@dataclass
class RowPage:
    """The rows that one request found."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    start: int = 0
    """The position from which the rows were read."""
    next: int = 0
    """The position of the first row that was not looked at."""
    total: int = 0
    """The number of rows that there are to look at."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Maps each file that cannot be read to the reason."""

    def to_json(self) -> dict[str, Any]:
        """Returns the answer as plain values."""
        left = self.total - self.next
        return {**self.__dict__, "searched": self.next - self.start, "more": left > 0}


def kept_pictures(
    root: Path,
    entries: Sequence[UnitEntry],
    pictures: ShardPictures,
    *,
    start: int,
    limit: int,
    text: str = "",
    seconds: float = SECONDS,
) -> RowPage:
    """Returns up to `limit` kept pictures from the position `start` on whose caption or key
    contains `text`."""
    counts = [entry.images.count if entry.images else 0 for entry in entries]
    answer = RowPage(start=start, next=start, total=sum(counts))
    until, needle = time.monotonic() + seconds, text.casefold()
    for entry, first, count in _from(start, entries, counts):
        info = entry.images
        if info is None:
            continue
        path = root / "images" / info.name
        for begin in range(first, count, PIECE):
            numbers = range(begin, min(begin + PIECE, count))
            try:
                records = pictures.read(path, numbers, info)
            except (DamagedShard, OSError) as error:
                answer.damaged[f"images/{info.name}"] = _reason(error)
                answer.next += count - begin
                break
            for number, record in zip(numbers, records, strict=True):
                answer.next += 1
                row = kept_row(entry, number, record)
                if needle and not _matches(record[1], needle):
                    continue
                answer.rows.append(row)
                if len(answer.rows) == limit:
                    return answer
            if time.monotonic() > until:
                return answer
    return answer


def kept_row(entry: UnitEntry, number: int, record: Record) -> dict[str, Any]:
    """Describes a kept picture."""
    meta, version = record[1], entry.images.sha256[:8] if entry.images else ""
    return {
        "unit": entry.unit,
        "number": number,
        "version": str(version),
        "key": _text(meta.get("key")),
        "caption": _text(meta.get("caption")),
        "original": meta.get("original"),
        "crop": meta.get("crop"),
        "bytes": len(record[0]),
    }


def _matches(meta: dict[str, Any], needle: str) -> bool:
    return any(needle in str(meta.get(name, "")).casefold() for name in ("caption", "key"))


def _text(value: Any) -> str:
    text = str(value if value is not None else "")
    return text if len(text) <= CAPTION else f"{text[:CAPTION]}…"


def all_rows(
    root: Path,
    entries: Sequence[UnitEntry],
    *,
    start: int,
    limit: int,
    row_filter: RowFilter,
    seconds: float = SECONDS,
) -> RowPage:
    """Returns up to `limit` rows from the position `start` on that match."""
    counts = [entry.outcomes.count if entry.outcomes else 0 for entry in entries]
    answer = RowPage(start=start, next=start, total=sum(counts))
    until = time.monotonic() + seconds
    for entry, first, count in _from(start, entries, counts):
        if time.monotonic() > until:
            return answer
        info = entry.outcomes
        if info is None:
            continue
        end = answer.next + count - first
        if not any(n and row_filter.accepts_status(status) for status, n in entry.counts.items()):
            answer.next = end
            continue
        try:
            for piece in outcome_rows(root / "outcomes" / info.name, info, start=first):
                for row in piece:
                    answer.next += 1
                    if row_filter.accepts(row):
                        answer.rows.append({**plain_row(row), "unit": entry.unit})
                        if len(answer.rows) == limit:
                            return answer
                if time.monotonic() > until:
                    return answer
        except (DamagedShard, OSError, KeyError, TypeError, AttributeError) as error:
            answer.damaged[f"outcomes/{info.name}"] = _reason(error)
        answer.next = end
    return answer


def _from(
    start: int, entries: Sequence[UnitEntry], counts: Sequence[int]
) -> Iterator[tuple[UnitEntry, int, int]]:
    """Yields the units from a position on: each with its first row to read and its row count."""
    for entry, count, end in zip(entries, counts, accumulate(counts), strict=True):
        if end > start:
            yield entry, max(0, start - (end - count)), count


def rejected_previews(
    root: Path,
    pictures: ShardPictures,
    *,
    start: int,
    limit: int,
    reason: str = "",
    text: str = "",
    reasons: Callable[[str], None] = lambda name: None,
) -> RowPage:
    """Returns the stored small pictures of rejected rows, which are few. `reasons` receives the
    reason of each of them, whether it matches or not."""
    answer = RowPage(start=start, next=start)
    needle, matching = text.casefold(), []
    for path in sorted((root / PREVIEWS).glob(f"*{SUFFIX}"))[:PREVIEW_FILES]:
        try:
            count = min(pictures.count(path), PREVIEWS_EACH)
            records = pictures.read(path, range(count), None)
        except (DamagedShard, OSError) as error:
            answer.damaged[f"{PREVIEWS}/{path.name}"] = _reason(error)
            continue
        for number, (_, meta) in enumerate(records):
            reasons(str(meta.get("reason", "")))
            if reason and meta.get("reason") != reason:
                continue
            if needle and not _matches(meta, needle):
                continue
            about = {"file": path.name.removesuffix(SUFFIX), "number": number}
            names = ("reason", "key", "caption")
            matching.append({**about, **{name: _text(meta.get(name)) for name in names}})
    answer.total = len(matching)
    answer.rows = matching[start : start + limit]
    answer.next = min(start + limit, answer.total)
    return answer


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
