"""The records of a packed dataset. A damaged record costs one row, a lost pack all of its rows.

At most 5 % of the rows may be unusable, and one row always may.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence, Set

from pinxit.config import UsageError
from pinxit.data.packed.pack_reader import PackReader, Place
from pinxit.data.packed.packed_manifest import PackedManifest, PackedShape
from pinxit.data.prepared.row_layout import Bucket
from pinxit.data.prepared.shards import parse_shape, shape_name
from pinxit.data.stores.byte_store import ByteStore

TOLERANCE = 0.05
"""The fraction of the rows that may be unusable. One row always may."""
BLOCK = 256
"""The number of records that are read together when all are verified."""


class PackedRecords:
    """A `RecordSource` of packs."""

    def __init__(
        self,
        store: ByteStore,
        manifest: PackedManifest,
        *,
        kind: str,
        text: bool,
        shape: tuple[int, ...] | None,
        say: Callable[[str], None],
    ) -> None:
        """Opens the packs of `kind`, and of the text with `text`, for all shapes or for one."""
        self.root = store.root
        self._store = store
        shapes = _selected(manifest.kinds[kind], shape)
        kinds = {kind: shapes}
        if text:
            names = {one.shape for one in shapes}
            kinds["text"] = [one for one in manifest.kinds["text"] if one.shape in names]
        ends = list(itertools.accumulate(one.rows for one in shapes))
        self.buckets = tuple(
            Bucket(parse_shape(one.shape) if one.shape else None, end - one.rows, end)
            for one, end in zip(shapes, ends, strict=True)
        )
        self._stored = [(bucket.start + s.first, bucket.stop) for bucket, s in
                        zip(self.buckets, shapes, strict=True)]  # fmt: skip
        self._kinds = {name: _Kind(store, of_kind, say) for name, of_kind in kinds.items()}

    def __len__(self) -> int:
        return self.buckets[-1].stop if self.buckets else 0

    @property
    def stored_rows(self) -> int:
        """The number of rows whose records are stored."""
        return sum(stop - start for start, stop in self._stored)

    @property
    def reasons(self) -> dict[str, str]:
        """Maps each pack with unusable records to the reason."""
        return {n: text for kind in self._kinds.values() for n, text in kind.reader.reasons.items()}

    def read(self, rows: Sequence[int]) -> list[dict[str, bytes]] | None:
        """Returns the records of each row by kind, or None if one of them is damaged."""
        records: list[dict[str, bytes]] = [{} for _ in rows]
        complete = True
        for name, kind in self._kinds.items():
            for slot, content in enumerate(kind.reader.read([kind.place(row) for row in rows])):
                if content is None:
                    complete = False
                else:
                    records[slot][name] = content
        return records if complete else None

    def is_bad(self, row: int) -> bool:
        """Returns whether a record of a row is known to be unusable."""
        return any(
            (kind.reader.lost or kind.reader.damaged) and kind.reader.is_bad(*kind.place(row))
            for kind in self._kinds.values()
        )

    def all_bad(self, start: int, stop: int) -> bool:
        """Returns whether all of these rows are known to be unusable."""
        if sum(kind.reader.bad_records for kind in self._kinds.values()) < stop - start:
            return False
        return all(self.is_bad(row) for row in range(start, stop))

    def are_sound(self, rows: Sequence[int]) -> list[bool]:
        """Reads these rows, and returns which of them match their checksums."""
        for kind in self._kinds.values():
            kind.reader.read([kind.place(row) for row in rows])
        return [not self.is_bad(row) for row in rows]

    def spans(self, keys: Set[str]) -> Iterator[tuple[int, int, Set[str]]]:
        """Yields the stored rows of each shape: a pack does not know the units of its rows."""
        for start, stop in self._stored:
            yield start, stop, keys

    def excess(self) -> str:
        """Returns how many rows are unusable, if more are than may be."""
        bad = max(kind.reader.bad_records for kind in self._kinds.values())
        total = self.stored_rows
        if bad <= min(max(1, int(TOLERANCE * total)), total - 1):
            return ""
        return f"{bad} of {total} rows"

    def remedy(self) -> str:
        """Returns how to write damaged packs again, or "" if none is damaged."""
        if not any(kind.reader.found_damage for kind in self._kinds.values()):
            return ""
        return (
            f"; to write damaged packs again, delete them and give the same `pinxit pack … --out "
            f"{self.root}` command again"
        )

    def verify_all(self, *, workers: int) -> None:
        """Compares the checksums of all records now. The store reads in parallel by itself."""
        for kind in self._kinds.values():
            for number, pack in enumerate(kind.reader.packs):
                for start in range(0, pack.rows, BLOCK):
                    records = range(start, min(start + BLOCK, pack.rows))
                    kind.reader.read([(number, record) for record in records])

    def end_checks(self) -> None:
        """Does nothing: no thread checks packs."""

    def close(self) -> None:
        """Closes the files."""
        self._store.close()


class _Kind:
    """The packs of one kind, and where each row lies in them."""

    def __init__(
        self, store: ByteStore, shapes: Sequence[PackedShape], say: Callable[[str], None]
    ) -> None:
        self.reader = PackReader(store, [p for shape in shapes for p in shape.packs], say=say)
        self._starts: list[int] = []
        """The first row of each pack."""
        self._stops: list[int] = []
        start = 0
        for shape in shapes:
            row = start + shape.first
            for pack in shape.packs:
                self._starts.append(row)
                row += pack.rows
                self._stops.append(row)
            start += shape.rows

    def place(self, row: int) -> Place:
        """Returns the pack of a row, and the record in it."""
        pack = bisect.bisect_right(self._starts, row) - 1
        if pack < 0 or row >= self._stops[pack]:
            raise IndexError(f"row {row} is not stored in the packs")
        return pack, row - self._starts[pack]


def _selected(shapes: Sequence[PackedShape], shape: tuple[int, ...] | None) -> list[PackedShape]:
    """Returns all shapes, or the one that was asked for."""
    if shape is None:
        return list(shapes)
    if matching := [one for one in shapes if one.shape == shape_name(shape)]:
        return matching
    listed = ", ".join(f"{one.shape} ({one.rows})" for one in shapes)
    problem = "not one of the dataset's"
    raise UsageError("shape", shape_name(shape), problem=problem, valid=listed or "none")
