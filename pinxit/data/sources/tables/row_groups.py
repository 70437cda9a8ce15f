"""Reads the row groups of open parquet files, and keeps remote ones that several units share.

A row group of a remote file that is cut into units is downloaded once per machine: the first
process stores its needed columns, uncompressed, and all processes map them. Where that fails, the
process keeps the row group in its own memory for its other units.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from pinxit.data.sources.tables.machine_cache import (
    CacheFault,
    Draft,
    MachineCache,
    entry_name,
    machine_cache,
    say_fault,
)
from pinxit.data.sources.tables.open_parquet import open_table
from pinxit.data.sources.tables.remote_files import is_remote, version_of

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Table
    from pyarrow.parquet import ParquetFile

CACHED_BYTES = 256 * 2**20
"""The largest row group of a remote file that a process keeps in its own memory, in bytes."""
STORED = (8192, 2**23)
"""The most rows that are stored together, and about the most bytes."""
REQUESTED = 32 * 2**20
"""The number of bytes of a remote file that are requested before they are decoded, at least one row
group."""


class OpenBatches:
    """An open file, and the batches that are read from it."""

    def __init__(self, table: ParquetFile, path: str) -> None:
        self.table = table
        self.path = path
        self.groups = group_rows(table)
        """The number of rows of each row group."""
        self.units = cache(lambda unit_rows: units_of(self.groups, unit_rows=unit_rows))
        """Returns (first row, row after the last) of each unit of at most `unit_rows` rows."""
        self._key: object = None
        self._at = 0
        self._last: RecordBatch | None = None
        self._rest: Iterator[RecordBatch] = iter(())

    def batches(
        self, groups: Sequence[int], first: int, columns: Sequence[str], *, size: int, start: int
    ) -> tuple[Iterator[RecordBatch], int]:
        """Returns batches of row groups that begin at row `first`, and the row at which the first
        batch begins: at most `start`, and as late as the batches before allow."""
        key = (*groups, *columns, size)
        if key != self._key or self._at > start:
            self._key, self._at, self._last = key, first, None
            self._rest = self._batches(groups, columns, size)
        return self._continued(), self._at

    def size(self, group: int, columns: Sequence[str], *, packed: bool) -> int:
        """Returns the bytes of some columns of a row group, as they are stored or unpacked."""
        chunks = self.table.metadata.row_group(group)
        total = 0
        for index in range(chunks.num_columns):
            chunk = chunks.column(index)
            if chunk.path_in_schema.partition(".")[0] in columns:
                total += chunk.total_compressed_size if packed else chunk.total_uncompressed_size
        return total

    def _batches(
        self, groups: Sequence[int], columns: Sequence[str], size: int
    ) -> Iterator[RecordBatch]:
        """Yields the batches of row groups. The columns of a remote file that are requested
        together are all in memory, so that only a few row groups are read at a time."""
        runs = [list(groups)]
        if is_remote(self.path):
            runs, total = [], 0
            for group in groups:
                packed = self.size(group, columns, packed=True)
                if not runs or total + packed > REQUESTED:
                    runs, total = [*runs, []], 0
                runs[-1].append(group)
                total += packed
        for run in runs:
            yield from self.table.iter_batches(
                batch_size=size, row_groups=run, columns=list(columns), use_threads=False
            )

    def _continued(self) -> Iterator[RecordBatch]:
        """Yields the batch that was read last, and those after it."""
        if self._last is not None:
            yield self._last
        for batch in self._rest:
            self._at += self._last.num_rows if self._last is not None else 0
            self._last = batch
            yield batch


@contextlib.contextmanager
def open_batches(path: str) -> Iterator[OpenBatches]:
    """Opens a parquet file for its batches."""
    with open_table(path) as table:
        yield OpenBatches(table, path)


_LOCK = threading.Lock()
_MAPPED: WeakValueDictionary[str, Table] = WeakValueDictionary()
"""The row groups that this process uses."""
_LAST: list[Table] = []
"""The row group that it used last: at most one, which its next unit probably needs."""
_LOADING: WeakValueDictionary[str, Any] = WeakValueDictionary()
"""The locks of the row groups that threads of this process load."""


class _Lock:
    """A lock to which weak references exist."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def shared_group(opened: OpenBatches, group: int, columns: Sequence[str]) -> Table | None:
    """Returns some columns of a remote row group, downloaded once for all units and processes.

    Returns None if they can be kept neither on the disk nor in memory.
    """
    version = version_of(opened.path)
    name = entry_name("row group", opened.path, version, group, list(columns))
    with _LOCK:
        turn = _LOADING.get(name)
        if turn is None:
            turn = _LOADING[name] = _Lock()
    with turn.lock:
        table = _MAPPED.get(name)
        if table is None:
            table = _loaded(opened, name, group, columns)
    if table is not None:
        with _LOCK:
            _MAPPED[name] = table
            _LAST[:] = [table]
    return table


def release_groups() -> None:
    """Drops the row group that this process keeps for its next unit."""
    with _LOCK:
        _LAST.clear()


def _loaded(opened: OpenBatches, name: str, group: int, columns: Sequence[str]) -> Table | None:
    """Maps a row group of the machine's cache, which it stores first if it is not there."""
    release_groups()
    folder = machine_cache()
    fits = opened.size(group, columns, packed=False) <= CACHED_BYTES
    if folder is None:
        return _downloaded(opened, group, columns) if fits else None
    max_age = version_of(opened.path).max_age
    content = folder.open(name, max_age=max_age)
    if content is not None:
        return _table_of(content)
    with folder.locked(name):
        content = folder.open(name, max_age=max_age)
        if content is not None:
            return _table_of(content)
        table = _downloaded(opened, group, columns) if fits else None
        batches = _stored_batches(opened, group, columns) if table is None else table.to_batches()
        try:
            _store(folder, name, batches)
        except CacheFault as fault:
            say_fault(folder.folder, str(fault))
            return table
    content = folder.open(name)
    return table if content is None else _table_of(content)


def _downloaded(opened: OpenBatches, group: int, columns: Sequence[str]) -> Table | None:
    import pyarrow

    batches = list(_stored_batches(opened, group, columns))
    return pyarrow.Table.from_batches(batches) if batches else None


def _stored_batches(
    opened: OpenBatches, group: int, columns: Sequence[str]
) -> Iterator[RecordBatch]:
    """Yields the batches of a row group without dictionaries, which may differ between batches."""
    import pyarrow

    most, size = STORED[0], opened.size(group, columns, packed=False)
    rows = max(1, min(most, STORED[1] * opened.groups[group] // max(1, size)))
    for batch in opened.table.iter_batches(
        batch_size=rows, row_groups=[group], columns=list(columns), use_threads=False
    ):
        arrays = [
            array.dictionary_decode() if pyarrow.types.is_dictionary(array.type) else array
            for array in batch.columns
        ]
        yield pyarrow.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def _store(folder: MachineCache, name: str, batches: Iterator[RecordBatch]) -> None:
    """Writes batches as an entry, in Arrow's file format. Raises CacheFault if that fails."""
    import pyarrow

    with Draft(folder, name) as draft, contextlib.ExitStack() as stack:
        writer: Any = None
        for batch in batches:
            if writer is None:
                writer = stack.enter_context(pyarrow.ipc.new_file(draft, batch.schema))
            writer.write_batch(batch)
        stack.close()
        draft.commit()


def _table_of(content: memoryview) -> Table:
    """Returns the stored row group. Its columns lie in the mapped file."""
    import pyarrow

    return pyarrow.ipc.open_file(pyarrow.py_buffer(content)).read_all()


def units_of(group_rows: Sequence[int], *, unit_rows: int) -> list[tuple[int, int]]:
    """Returns (first row, row after the last) of each unit of a file with these row groups."""
    units: list[tuple[int, int]] = []
    start = at = 0
    for rows in group_rows:
        if at > start and at + rows - start > unit_rows:
            units.append((start, at))
            start = at
        at += rows
        if at - start > unit_rows:  # a single row group is larger than a unit
            parts = -(-rows // unit_rows)
            cuts = [start + rows * part // parts for part in range(parts + 1)]
            units += list(itertools.pairwise(cuts))
            start = at
    return [*units, (start, at)] if at > start else units


def group_rows(table: ParquetFile) -> list[int]:
    """Returns the number of rows of each row group."""
    return [table.metadata.row_group(i).num_rows for i in range(table.metadata.num_row_groups)]


def overlapping(group_rows: Sequence[int], start: int, stop: int) -> tuple[list[int], int]:
    """Returns the row groups that hold rows `start` to `stop - 1`, and the position of their first
    row."""
    touched, first, at = [], 0, 0
    for group, rows in enumerate(group_rows):
        if at < stop and at + rows > start:
            first = at if not touched else first
            touched.append(group)
        at += rows
    return touched, first


def is_part(groups: Sequence[int], touched: Sequence[int], rows: int) -> bool:
    """Returns whether a unit of `rows` rows is part of a single row group."""
    return len(touched) == 1 and rows < groups[touched[0]]


def cut_groups(groups: Sequence[int], units: Sequence[tuple[int, int]]) -> list[int | None]:
    """Returns, for each unit, the row group that it is a part of; None for whole row groups."""
    ends = list(itertools.accumulate(groups))
    holders = [bisect.bisect_right(ends, start) for start, _ in units]
    return [
        holder if stop - start < groups[holder] else None
        for holder, (start, stop) in zip(holders, units, strict=True)
    ]
