"""`RecordSource`, the interface between the rows of a dataset and the files of their records.

Two classes implement it: `ShardRecords` (the folder of ``pinxit prepare``, where a damaged shard
takes all of its rows with it) and `PackedRecords` (what ``pinxit pack`` wrote, where a damaged
record costs one row).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Protocol, runtime_checkable

from pinxit.data.prepared.row_layout import Bucket


@runtime_checkable
class RecordSource(Protocol):
    """The records of a dataset, by row number. One thread uses it at a time."""

    buckets: tuple[Bucket, ...]
    """The rows of each shape, in order."""

    @property
    def reasons(self) -> dict[str, str]:
        """Maps each file with unusable records to the reason."""
        ...

    def __len__(self) -> int:
        """Returns the number of rows."""
        ...

    def read(self, rows: Sequence[int]) -> list[dict[str, bytes]] | None:
        """Returns the records of each row by kind, or None if a row turned out to be unusable. It
        has been reported then, and `is_bad` knows it."""
        ...

    def is_bad(self, row: int) -> bool:
        """Returns whether a row is known to be unusable."""
        ...

    def all_bad(self, start: int, stop: int) -> bool:
        """Returns whether all of these rows are known to be unusable."""
        ...

    def are_sound(self, rows: Sequence[int]) -> list[bool]:
        """Checks the files or records of these rows, and returns which of them can be used."""
        ...

    def spans(self, keys: Set[str]) -> Iterator[tuple[int, int, Set[str]]]:
        """Yields ranges of rows in which to look for keys, and the keys to look for there."""
        ...

    def excess(self) -> str:
        """Returns how much cannot be used if that is too much, such as "2 of 5 shards", or ""."""
        ...

    def remedy(self) -> str:
        """Returns how to repair damage, or "" if there is none."""
        ...

    def verify_all(self, *, workers: int) -> None:
        """Checks everything now, instead of when it is read."""
        ...

    def end_checks(self) -> None:
        """Ends the thread that checks files in the background, if there is one."""
        ...

    def close(self) -> None:
        """Closes the files."""
        ...
