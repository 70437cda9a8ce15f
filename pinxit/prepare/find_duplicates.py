"""Finds the duplicates of a dataset of any size, in three passes over parts that fit in memory.

::

    read    units -> (hash of the URL, perceptual hash, row) of the rows that pass the filters
    urls    for each partition of URL hashes: drops all but the first row with the same hash
    phash   for each partition of perceptual hashes: the same for the remaining rows
    merge   writes the dropped rows as bits, which are the list (duplicate_list.py)

The first bits of a hash determine its partition. A partition holds about `PARTITION_ROWS` rows, so
that a billion rows need no more memory than a thousand. The passes write to ``FILE.work``, which
exists until the list is written. Each part is written atomically and depends only on its inputs, so
that a killed search can continue on any engine and gives the same bytes. The hash of a URL has 128
bits: the probability that any two of a billion URLs have the same hash is 1.5e-21.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pinxit.config import UsageError, differences, plain, read_json
from pinxit.data.filters.duplicate_list import DuplicateList, list_identity, write_list
from pinxit.data.filters.row_filter import Filter, FilterConfig
from pinxit.data.html_ampersands import without_entities
from pinxit.data.row import Row, Source, Unit, unusable
from pinxit.files import sweep, whole, write_json
from pinxit.prepare.engines.base import Engine, UnitResult
from pinxit.prepare.folder_lock import locked
from pinxit.prepare.progress import StageProgress, WatchFn, no_watch

GROUP = 32
"""Number of units in one task of the first pass; a killed worker loses at most this much work."""
PARTITION_ROWS = 2**22
"""Approximate rows of a partition: 128 MB, and four times that while it is sorted."""
MARK = np.dtype([("high", "<u8"), ("low", "<u8"), ("phash", "<u8"), ("row", "<u8")])
"""One row in the pass over URLs. `row` packs the unit's number (31 bits), the row's number in the
unit (32 bits) and whether it has a perceptual hash (1 bit), and so sorts in the dataset's order."""
HASH = np.dtype([("phash", "<u8"), ("row", "<u8")])
"""One row in the pass over perceptual hashes; `row` is the same as in `MARK`."""


@dataclass(frozen=True)
class Search:
    """The input and the working files of a search for duplicates."""

    source: Source
    filters: FilterConfig
    folder: Path
    """The working folder, ``FILE.work``."""
    units: tuple[Unit, ...]
    partitions: int
    """Number of partitions, a power of two."""
    group: int
    """Number of units in one task of the first pass."""
    skip_failed: bool = False
    """Whether a unit that cannot be read is left out, so that the list does not cover it."""

    @property
    def groups(self) -> list[int]:
        """The numbers of the tasks of the first pass."""
        return list(range(-(-len(self.units) // self.group)))

    def array(self, step: str, number: int, name: str) -> Path:
        """Returns the path of an array that a task writes."""
        return self.folder / step / f"{number:05d}.{name}.npy"

    def record(self, step: str, number: int) -> Path:
        """Returns the path of a task's commit record, which is written last."""
        return self.folder / step / f"{number:05d}.json"

    def read_record(self, step: str, number: int) -> dict[str, Any] | None:
        """Reads a task's commit record. Returns None if the task is not done."""
        try:
            return json.loads(self.record(step, number).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def write(self, step: str, number: int, arrays: Mapping[str, np.ndarray], **about: Any) -> None:
        """Writes the arrays of a task, then its commit record with `about`."""
        for name, array in arrays.items():
            with whole(self.array(step, number, name)) as temporary, temporary.open("wb") as file:
                np.save(file, array)
        write_json(self.record(step, number), about)

    def part(self, step: str, number: int, name: str, partition: int) -> np.ndarray:
        """Reads one partition of an array that is sorted by partition."""
        about = self.read_record(step, number)
        if about is None:
            raise OSError(f"{self.record(step, number)} is missing")
        low, high = about[name][partition : partition + 2]
        if low == high:
            return np.empty(0, MARK if name == "marks" else HASH)
        mapped = np.load(self.array(step, number, name), mmap_mode="r", allow_pickle=False)
        return np.array(mapped[low:high])

    def partitioned(self, records: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Sorts records by the partition partition their hashes.

        Returns them and the index at which each partition begins, with the end as the last index.
        """
        bits = self.partitions.bit_length() - 1
        partition = (
            (hashes >> np.uint64(64 - bits)).astype(np.int64)
            if bits
            else np.zeros(len(hashes), int)
        )
        order = np.argsort(partition, kind="stable")
        edges = np.searchsorted(partition[order], np.arange(self.partitions + 1)).tolist()
        return records[order], edges


@dataclass
class ReadMarks:
    """The first pass: reads a group of units and writes their hashes."""

    search: Search
    _plain: Filter | None = field(default=None, init=False, repr=False)

    def __call__(self, group: int) -> dict[str, int]:
        self._plain = self._plain or Filter(self.search.filters)
        search, counts = self.search, Counter[str]()
        parts = {"marks": [np.empty(0, MARK)], "hashes": [np.empty(0, HASH)]}
        ranges, skipped = [], {}
        start = group * search.group
        for number, unit in enumerate(search.units[start : start + search.group], start):
            of_unit = Counter[str]()
            try:
                marks, hashes, rows = self._unit(number, unit, of_unit)
            except (OSError, ValueError) as error:
                is_remote = isinstance(error, OSError) and "://" in unit.path
                if is_remote or not search.skip_failed:
                    raise
                marks, hashes, rows = np.empty(0, MARK), np.empty(0, HASH), [0, 0]
                skipped[unit.id] = str(error)
            else:
                counts.update(of_unit)
            parts["marks"].append(marks)
            parts["hashes"].append(hashes)
            ranges.append(rows)
        marks, hashes = (np.concatenate(arrays) for arrays in parts.values())
        marks, mark_edges = search.partitioned(marks, marks["high"])
        hashes, hash_edges = search.partitioned(hashes, mixed(hashes["phash"]))
        edges = {"marks": mark_edges, "hashes": hash_edges}
        arrays = {"marks": marks, "hashes": hashes}
        search.write(
            "read", group, arrays, ranges=ranges, counts=dict(counts), skipped=skipped, **edges
        )
        return dict(counts)

    def _unit(
        self, number: int, unit: Unit, counts: Counter[str]
    ) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Reads one unit.

        Returns the rows with a URL as `MARK`, those with only a perceptual hash as `HASH`, and the
        number of the first row with the count of rows.
        """
        assert self._plain is not None
        marks: list[tuple[int, int, int, int]] = []
        lone: list[tuple[int, int]] = []
        first = last = -1
        for row in self.search.source.read(unit):
            row_number = int(row.key.rpartition("/")[2])
            first = row_number if first < 0 else first
            if row_number <= last:
                raise UsageError(f"the rows of unit {unit.id} are not in the order of their keys")
            last = row_number
            reason = unusable(row) or self._plain.alone(row)
            counts[reason or "ok"] += 1
            if reason is None:
                self._mark(row, number << 33 | (row_number - first) << 1, marks, lone)
        count = last - first + 1 if first >= 0 else 0
        return np.array(marks, MARK), np.array(lone, HASH), [max(first, 0), count]

    def _mark(
        self,
        row: Row,
        number: int,
        marks: list[tuple[int, int, int, int]],
        lone: list[tuple[int, int]],
    ) -> None:
        """Appends a row to `marks` if its URL is compared, else to `lone` if its hash is."""
        config = self.search.filters
        phash = int(row.phash, 16) if config.unique_phash and row.phash is not None else None
        url = without_entities(row.url or row.origin or "") if config.unique_url else ""
        if url:
            hashed = hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            high, low = int.from_bytes(hashed[:8], "big"), int.from_bytes(hashed[8:], "big")
            marks.append((high, low, phash or 0, number | (phash is not None)))
        elif phash is not None:
            lone.append((phash, number | 1))


@dataclass
class FirstOfUrls:
    """The second pass: finds the rows of one partition whose URL occurs in an earlier row."""

    search: Search

    def __call__(self, partition: int) -> dict[str, int]:
        search = self.search
        parts = [search.part("read", group, "marks", partition) for group in search.groups]
        marks = np.concatenate([np.empty(0, MARK), *parts])
        del parts
        marks = marks[np.lexsort((marks["row"], marks["low"], marks["high"]))]
        repeated = np.zeros(len(marks), bool)
        repeated[1:] = (marks["high"][1:] == marks["high"][:-1]) & (
            marks["low"][1:] == marks["low"][:-1]
        )
        hashed = marks[~repeated & (marks["row"] & 1 == 1)]
        hashes = np.empty(len(hashed), HASH)
        hashes["phash"], hashes["row"] = hashed["phash"], hashed["row"]
        hashes, edges = search.partitioned(hashes, mixed(hashes["phash"]))
        arrays = {"dropped": np.sort(marks["row"][repeated]), "hashes": hashes}
        search.write("urls", partition, arrays, hashes=edges)
        return {"ok": int((~repeated).sum()), "filtered_url": int(repeated.sum())}


@dataclass
class FirstOfHashes:
    """The third pass: finds the rows of one partition whose perceptual hash occurs earlier."""

    search: Search

    def __call__(self, partition: int) -> dict[str, int]:
        search = self.search
        parts = [search.part("read", group, "hashes", partition) for group in search.groups]
        parts += [search.part("urls", p, "hashes", partition) for p in range(search.partitions)]
        hashes = np.concatenate([np.empty(0, HASH), *parts])
        del parts
        hashes = hashes[np.lexsort((hashes["row"], hashes["phash"]))]
        repeated = np.zeros(len(hashes), bool)
        repeated[1:] = hashes["phash"][1:] == hashes["phash"][:-1]
        search.write("phash", partition, {"dropped": np.sort(hashes["row"][repeated])})
        return {"ok": int((~repeated).sum()), "filtered_phash": int(repeated.sum())}


def mixed(hashes: np.ndarray) -> np.ndarray:
    """Mixes the bits of perceptual hashes (Fibonacci hashing).

    The first bits of a perceptual hash differ too little between pictures to partition by them.
    """
    return np.asarray(hashes, np.uint64) * np.uint64(0x9E3779B97F4A7C15)


class Incomplete(OSError):
    """A task of the search failed; the same command continues the search."""


def find_duplicates(
    path: Path,
    source: Source,
    filters: FilterConfig,
    engine: Engine,
    *,
    workers: int = 1,
    limit: int | None = None,
    skip_failed: bool = False,
    watch: WatchFn = no_watch,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, int]:
    """Writes the list of duplicates of the source, or of its first `limit` units, to `path`.

    With `skip_failed`, units that cannot be read are left out, and `say` receives a line for each.

    Returns the number of rows by status, at once if the list already exists. Raises `Incomplete` if
    a task fails, and ValueError if `path` is another file or the search was started with other
    settings.
    """
    identity = list_identity(source, filters)
    units = tuple(source.units(limit=limit))
    work = path.with_name(f"{path.name}.work")
    if path.exists():
        known = DuplicateList(path)
        known.check(identity)
        if known.about["units"] != [unit.id for unit in units]:
            problem = f"a list of {len(known.about['units'])} units, not of {len(units)}"
            raise UsageError("find_duplicates", str(path), problem=problem, valid="another file")
        shutil.rmtree(work, ignore_errors=True)  # left by a command that was killed at its end
        return dict(known.about["counts"])
    rows = sum(unit.rows or source.unit_rows or 10_000 for unit in units)
    partitions = 2 ** max(0, (-(-rows // PARTITION_ROWS) - 1).bit_length())
    search = Search(source, filters, work, units, partitions, GROUP, skip_failed)
    with locked(search.folder, engine):
        _begin(search, {**identity, "units": len(units), "partitions": partitions, "group": GROUP})
        passes: tuple[tuple[str, Callable[[int], dict[str, int]], Sequence[int]], ...] = (
            ("read", ReadMarks(search), search.groups),
            ("urls", FirstOfUrls(search), range(partitions)),
            ("phash", FirstOfHashes(search), range(partitions)),
        )
        for name, fn, pieces in passes:
            _run(search, name, fn, pieces, engine, workers, watch)
        counts = _merge(path, search, identity)
        for group in search.groups:
            about = search.read_record("read", group) or {}
            for unit, reason in about.get("skipped", {}).items():
                say(f"{unit} left out: {reason}")
    shutil.rmtree(search.folder)
    return counts


def _begin(search: Search, identity: Mapping[str, Any]) -> None:
    """Records the search's settings, or raises if the folder belongs to a different search."""
    about = search.folder / "search.json"
    before = read_json(about) if about.is_file() else None
    if before is not None and (changed := differences(before, plain(identity))):
        raise UsageError(
            f"{search.folder} was started with other settings: {'; '.join(changed)}; "
            "use the same settings, or remove the folder"
        )
    write_json(about, identity)


def _run(
    search: Search,
    name: str,
    work: Callable[[int], dict[str, int]],
    pieces: Sequence[int],
    engine: Engine,
    workers: int,
    watch: WatchFn,
) -> None:
    """Runs the unfinished tasks (`pieces`) of one pass."""
    sweep(search.folder / name)
    todo = [piece for piece in pieces if search.read_record(name, piece) is None]
    started, fresh = time.monotonic(), 0
    counts: Counter[str] = Counter()

    def show(result: UnitResult | None) -> None:
        done, seconds = len(pieces) - len(todo) + fresh, time.monotonic() - started
        rows = counts.total()
        watch(StageProgress(name, len(pieces), done, 0, rows, dict(counts), seconds, fresh), result)

    show(None)
    with contextlib.closing(engine.map(work, todo, workers=workers)) as results:
        for result in results:
            if result.failed:
                advice = "run the same command again to continue"
                if not result.os_error:
                    advice += ", with --skip_failed 1 to leave out units that cannot be read"
                raise Incomplete(f"{name} {result.unit}: {result.reason}; {advice}")
            fresh += 1
            counts.update(result.value)
            show(result)


def _merge(path: Path, search: Search, identity: Mapping[str, Any]) -> dict[str, int]:
    """Writes the dropped rows as a list of bits, and returns the number of rows by status."""
    counts, ranges = Counter[str](), []
    for group in search.groups:
        about = search.read_record("read", group) or {}
        counts.update(about["counts"])
        ranges += about["ranges"]
    first = np.array([low for low, _ in ranges], np.int64)
    sizes = np.array([-(-count // 8) for _, count in ranges], np.int64)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    bits = {}
    for name, step in (("url", "urls"), ("phash", "phash")):
        bits[name] = np.zeros(int(start[-1]), np.uint8)
        for partition in range(search.partitions):
            dropped = np.load(search.array(step, partition, "dropped"), allow_pickle=False)
            unit, row = (dropped >> np.uint64(33)).astype(np.int64), dropped >> np.uint64(1)
            row = (row & np.uint64(2**32 - 1)).astype(np.int64)
            mask = np.left_shift(1, row & 7).astype(np.uint8)
            np.bitwise_or.at(bits[name], start[unit] + (row >> 3), mask)
            counts[f"filtered_{name}"] += len(dropped)
            counts["ok"] -= len(dropped)
    write_list(
        path,
        identity=identity,
        units=[unit.id for unit in search.units],
        first=first,
        start=start,
        bits=bits,
        counts=(known := dict(sorted(counts.items()))),
    )
    return known
