"""The records of a folder that `pinxit prepare` wrote, read from its shards.

The manifest alone determines which record a row number refers to, never the state of the disk. A
shard that is damaged, missing or unreadable (see `unit_readers`) takes all of its rows with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from threading import RLock

import numpy as np

from pinxit.data.prepared.manifest import Manifest
from pinxit.data.prepared.row_layout import parts_of, shards_of
from pinxit.data.prepared.shards import DamagedShard
from pinxit.data.prepared.unit_readers import UnitReaders

TOLERANCE = 0.05
"""The fraction of the shards that may be damaged. One damaged shard is always accepted."""


class ShardRecords:
    """A `RecordSource` of shards."""

    def __init__(
        self,
        root: Path,
        manifest: Manifest,
        *,
        kind: str,
        text: bool,
        shape: tuple[int, ...] | None,
        open_shards: int | None,
        hash_first: bool | None,
        lock: RLock,
        say: Callable[[str], None],
    ) -> None:
        """Opens the shards of `kind`, and of the text with `text`. See `UnitReaders` for the rest.

        The caller holds `lock` while it uses this object.
        """
        self.root = root
        self._names = manifest.units
        self._files = shards_of(manifest, (kind, "text") if text else (kind,))
        self._parts, self.buckets = parts_of(manifest, kind, self._files, shape)
        self._ends = np.cumsum([part.count for part in self._parts], dtype=np.int64)
        self.units = UnitReaders(
            root,
            self._files,
            open_units=open_shards,
            hash_first=hash_first,
            lock=lock,
            say=say,
        )

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def reasons(self) -> dict[str, str]:
        """Maps each unusable shard to the reason."""
        return self.units.reasons

    def read(self, rows: Sequence[int]) -> list[dict[str, bytes]] | None:
        """Returns the records of each row by folder, or None if a shard turned out unusable."""
        slots_of_part: dict[int, list[int]] = {}
        for slot, part in enumerate(np.searchsorted(self._ends, rows, side="right").tolist()):
            slots_of_part.setdefault(part, []).append(slot)
        self.units.open_ahead([self._parts[part].unit for part in slots_of_part])
        records: list[dict[str, bytes]] = [{} for _ in rows]
        complete = True
        for index, slots in sorted(slots_of_part.items()):
            part = self._parts[index]
            start = int(self._ends[index]) - part.count - part.first
            try:
                contents = self.units.read(part.unit, [rows[slot] - start for slot in slots])
            except DamagedShard:  # it has been reported
                complete = False
                continue
            for folder, records_of in contents.items():
                for slot, content in zip(slots, records_of, strict=True):
                    records[slot][folder] = content
        return records if complete else None

    def is_bad(self, row: int) -> bool:
        """Returns whether the shard of a row is known to be unusable."""
        bad = self.units.unusable
        return bool(bad) and self._parts[self._part(row)].unit in bad

    def all_bad(self, start: int, stop: int) -> bool:
        """Returns whether all shards of these rows are known to be unusable."""
        parts = range(self._part(start), self._part(stop - 1) + 1)
        return all(self._parts[i].unit in self.units.unusable for i in parts)

    def are_sound(self, rows: Sequence[int]) -> list[bool]:
        """Returns which rows have shards that match the manifest. Their SHA-256 is compared."""
        numbers = [self._parts[self._part(row)].unit for row in rows]
        usable = {n: self.units.is_usable(n) for n in sorted(set(numbers))}
        return [usable[number] for number in numbers]

    def spans(self, keys: Set[str]) -> Iterator[tuple[int, int, Set[str]]]:
        """Yields the rows of each unit that a key names, with the unit's keys."""
        keys_of_unit: dict[str, set[str]] = {}
        for key in keys:
            keys_of_unit.setdefault(key.rpartition("/")[0], set()).add(key)
        for part, end in zip(self._parts, self._ends.tolist(), strict=True):
            if keys_here := keys_of_unit.get(self._names[part.unit]):
                yield end - part.count, end, keys_here

    def excess(self) -> str:
        """Returns how many shards are unusable, if more are than may be."""
        count, total = len(self.units.unusable), len(self._files)
        if count <= min(max(1, int(TOLERANCE * total)), total - 1):
            return ""
        return f"{count} of {total} shards"

    def remedy(self) -> str:
        """Returns how to make damaged shards again, or "" if none is damaged."""
        if not self.units.found_damage:
            return ""
        return (
            f"; to make damaged shards again, run the same `pinxit prepare … --out {self.root}` "
            "command with --verify 1"
        )

    def verify_all(self, *, workers: int) -> None:
        """Compares the SHA-256 of all shards now."""
        self.units.verify_all(workers=workers)

    def end_checks(self) -> None:
        """Ends the thread that hashes shards."""
        self.units.end_checks()

    def close(self) -> None:
        """Closes the files, and ends the thread that hashes them."""
        self.units.close()

    def _part(self, row: int) -> int:
        """Returns the index of the part that holds a row."""
        return int(np.searchsorted(self._ends, row, side="right"))
