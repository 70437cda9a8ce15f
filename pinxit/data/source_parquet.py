"""Parquet tables: of URLs and captions, or with a column of encoded images.

A unit is a run of whole row groups of one file with at most `unit_rows` rows together, or, where a
single row group has more than that, one of equal parts of it. So a unit is about as long whatever
the writer chose, and reading one touches few row groups, and of those the wanted columns alone.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinxit.data.schema import Row, Unit
from pinxit.data.source_columns import Columns, Found, make_row
from pinxit.data.source_files import File, open_file, reading

if TYPE_CHECKING:
    from pyarrow import DataType
    from pyarrow.parquet import ParquetFile

BATCH = {True: 32, False: 1024}
"""Rows in memory at a time, with images and without."""
READERS = 8
"""Footers read at a time, where the files are remote."""


@dataclass(frozen=True)
class ParquetSource:
    """Rows of parquet files."""

    name: str
    revision: str | None
    files: tuple[File, ...]
    columns: Columns
    bears_images: bool = False
    unit_rows: int = 10_000

    def units(self, *, limit: int | None = None) -> list[Unit]:
        """Every unit; reads the footer of each file, of as few files as `limit` needs."""
        units: list[Unit] = []
        if limit is None and any("://" in file.path for file in self.files):
            with ThreadPoolExecutor(READERS) as pool:
                for some in pool.map(self._units_of, range(len(self.files))):
                    units += some
            return units
        for index in range(len(self.files)):
            if limit is not None and len(units) >= limit:
                break
            units += self._units_of(index)
        return units[:limit]

    def read(self, unit: Unit) -> Iterator[Row]:
        """The rows of a unit, numbered as in their file."""
        with open_table(unit.path) as table:
            found = match(self.columns, table, where=f"{self.name}: {unit.path}")
            groups = _group_rows(table)
            start, stop = plan(groups, unit_rows=self.unit_rows)[unit.part]
            touched, at = _overlapping(groups, start, stop)
            batches = table.iter_batches(
                batch_size=BATCH["image" in found],
                row_groups=touched,
                columns=sorted({name for names in found.values() for name in names}),
                use_threads=False,
            )
            for batch in batches:
                low, high = max(start - at, 0), min(stop - at, batch.num_rows)
                records = batch.slice(low, high - low).to_pylist() if low < high else []
                for number, record in enumerate(records, start=at + low):
                    yield make_row(f"{unit.id}/{number:08d}", record, found)
                at += batch.num_rows
                if at >= stop:
                    break

    def _units_of(self, index: int) -> list[Unit]:
        path = self.files[index].path
        with open_table(path) as table:
            match(self.columns, table, where=f"{self.name}: {path}")
            parts = plan(_group_rows(table), unit_rows=self.unit_rows)
        return [
            Unit(f"{index:05d}-{part:03d}", path, part, stop - start)
            for part, (start, stop) in enumerate(parts)
        ]


def match(columns: Columns, table: ParquetFile, *, where: str) -> Found:
    """What the columns of a table mean; images are bytes, or the hub's structs of them."""
    schema = table.schema_arrow
    binary = [field.name for field in schema if _holds_bytes(field.type)]
    return columns.match(schema.names, where=where, binary=binary)


@contextlib.contextmanager
def open_table(path: str) -> Iterator[ParquetFile]:
    """A parquet file; ValueError names one that is damaged, OSError one that is out of reach."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    with reading(path), open_file(path) as stream:
        try:
            with ParquetFile(stream, page_checksum_verification=True) as table:
                yield table
        except pyarrow.ArrowException as error:
            raise ValueError(f"{path} is no readable parquet file: {error}") from error


def plan(group_rows: Sequence[int], *, unit_rows: int) -> list[tuple[int, int]]:
    """The units of a file with these row groups: (first row, row after the last) of each."""
    units: list[tuple[int, int]] = []
    start = at = 0
    for rows in group_rows:
        if at > start and at + rows - start > unit_rows:
            units.append((start, at))
            start = at
        at += rows
        if at - start > unit_rows:  # one group alone
            parts = -(-rows // unit_rows)
            cuts = [start + rows * part // parts for part in range(parts + 1)]
            units += list(itertools.pairwise(cuts))
            start = at
    return [*units, (start, at)] if at > start else units


def _holds_bytes(kind: DataType) -> bool:
    """Whether `image_bytes` can find an image in values of this type."""
    from pyarrow import types

    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return any(
        test(kind)
        for test in (
            *(types.is_binary, types.is_large_binary),
            *(types.is_fixed_size_binary, types.is_binary_view),
        )
    )


def _group_rows(table: ParquetFile) -> list[int]:
    return [table.metadata.row_group(i).num_rows for i in range(table.metadata.num_row_groups)]


def _overlapping(group_rows: Sequence[int], start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows `start` to `stop`, and the number of their first row."""
    touched, first, at = [], 0, 0
    for group, rows in enumerate(group_rows):
        if at < stop and at + rows > start:
            first = at if not touched else first
            touched.append(group)
        at += rows
    return touched, first
