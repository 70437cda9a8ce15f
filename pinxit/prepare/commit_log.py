"""Append-only logs in which the processes of a preparation commit the units that they finished.

Every process that commits has a log of its own, ``log-<random digits>.jsonl``, so no two writers
share a file. A commit is one line, written at once and synced: the unit, the version of its record,
and the record. Of all lines of a unit, that with the highest version counts. A process that makes a
unit again reads its record first and adds 1, so the order does not depend on clocks.

A process that is killed while it writes leaves a line without an end. Readers ignore it, and no one
appends to it, because another process begins another log. Readers remember how far they have read
each log, and read only what was appended since. Of each unit they keep the place of its line.

Older versions wrote a file for each unit, ``<unit>.json``. These are still read, as version 0.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pinxit.files import FULL, append, disk_full, sync
from pinxit.plain_json import plain_values

PREFIX, SUFFIX = "log-", ".jsonl"
"""The beginning and the end of a log's name. No unit's file ends like this."""
LINE = re.compile(rb'\{"unit": "([A-Za-z0-9][A-Za-z0-9._-]{0,199})", "version": (\d{1,9}), ')
PIECE = 2**24
"""Number of bytes of a log that are read at a time."""


class RecordPlace(NamedTuple):
    """Says where the newest record of a unit is. A later place in this order is newer."""

    version: int
    """The version of the record; 0 for a file of an older Pinxit."""
    name: str
    """The file in the folder."""
    start: int
    """The first byte of the line; for a file of its own, its inode."""
    length: int
    """The number of bytes of the line; 0 for a file of its own."""


class CommitLog:
    """The commits of one folder. It may be used by several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._places: dict[str, RecordPlace] = {}
        self._read: dict[str, int] = {}
        """The number of bytes of each log that have been read."""
        self._own: tuple[int, str] | None = None
        """This process's id and the name of its log, which exists once it has committed."""

    # --- reading ------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Reads what was appended since the last call."""
        with self._lock:
            logs, singles = self._list()
            if any(size < self._read[name] for name, size in self._sizes(logs)):
                self._places, self._read = {}, {}  # a log was removed or cut: all is read again
            for unit, place in list(self._places.items()):
                if not place.length and unit not in singles:
                    del self._places[unit]
            for unit, inode in singles.items():
                self._add(unit, RecordPlace(0, f"{unit}.json", inode, 0))
            for name in logs:
                self._read_on(name)

    def places(self) -> dict[str, RecordPlace]:
        """Returns where each unit's record is. If the place is another one, so is the record."""
        with self._lock:
            return dict(self._places)

    def _list(self) -> tuple[list[str], dict[str, int]]:
        """Returns the names of the logs, and the inode of each unit's own file."""
        logs: list[str] = []
        singles: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(PREFIX) and name.endswith(SUFFIX):
                    logs.append(name)
                elif name.endswith(".json") and not name.startswith("."):
                    singles[name.removesuffix(".json")] = entry.inode()
        return sorted(logs), singles

    def _sizes(self, logs: Iterable[str]) -> Iterator[tuple[str, int]]:
        """Yields each log that has been read with its size now, which is -1 if it is gone."""
        present = set(logs)
        for name in list(self._read):
            size = -1
            if name in present:
                with contextlib.suppress(FileNotFoundError):
                    size = (self.folder / name).stat().st_size
            yield name, size

    def _read_on(self, name: str) -> None:
        """Notes the places of the complete lines that were appended to a log."""
        offset = self._read.get(name, 0)
        with contextlib.suppress(FileNotFoundError), (self.folder / name).open("rb") as file:
            # Opening asks a network file system for the size of now, and `stat` may not.
            while piece := os.pread(file.fileno(), PIECE, offset):
                begin = 0
                while (end := piece.find(b"\n", begin)) >= 0:
                    line = LINE.match(piece, begin)
                    if line is not None:  # else it is damaged, and its unit is made again
                        unit, version = line[1].decode(), int(line[2])
                        self._add(unit, RecordPlace(version, name, offset + begin, end - begin))
                    begin = end + 1
                if not begin:
                    break  # the last line is not complete, or never will be
                offset += begin
            self._read[name] = offset

    def _add(self, unit: str, place: RecordPlace) -> None:
        """Notes the place of a unit's record if it is newer than the known one."""
        known = self._places.get(unit)
        if known is None or known < place or (place.length == known.length == 0):
            self._places[unit] = place

    def units(self) -> list[str]:
        """Returns the units with a record, as far as they have been read, in their order."""
        with self._lock:
            return sorted(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def version(self, unit: str) -> int:
        """Returns the version of a unit's record; -1 if there is none."""
        with self._lock:
            place = self._places.get(unit)
            return -1 if place is None else place.version

    def read(self, unit: str) -> dict[str, Any] | None:
        """Returns a unit's newest record, or None if it has none that can be read."""
        records = list(self.each([unit]))
        return records[0][1] if records else None

    def each(
        self, units: Iterable[str] | None = None
    ) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Yields the units and their records in the order of the files, one at a time.

        The record is None if it cannot be read. Without `units`, yields all of them.
        """
        with self._lock:
            places = self._places
            chosen = list(places if units is None else (unit for unit in units if unit in places))
            ordered = sorted(chosen, key=lambda unit: places[unit][1:])
            by_place = [(unit, places[unit]) for unit in ordered]
        name, file = "", None
        with contextlib.ExitStack() as open_file:
            for unit, place in by_place:
                if not place.length:
                    yield unit, _parse(unit, _whole(self.folder / place.name))
                    continue
                if place.name != name:
                    open_file.close()
                    name, file = place.name, None
                    with contextlib.suppress(FileNotFoundError):
                        file = open_file.enter_context((self.folder / name).open("rb"))
                if file is not None:
                    line = os.pread(file.fileno(), place.length, place.start)
                    yield unit, _parse(unit, line)

    def newest(self, count: int) -> list[str]:
        """Returns at most `count` units of those that were committed last, the newest first."""
        with self._lock:
            by_file: dict[str, list[tuple[int, str]]] = {}
            for unit, place in self._places.items():
                by_file.setdefault(place.name, []).append((place.start, unit))
            units: list[str] = []
            for name in sorted(by_file, key=lambda name: self._written(name), reverse=True):
                units += [unit for _, unit in sorted(by_file[name], reverse=True)]
                if len(units) >= count:
                    break
            return units[:count]

    def written(self) -> float:
        """Returns when the last unit was committed, in seconds since 1970; 0 if none was."""
        with self._lock:
            names = {place.name for place in self._places.values()}
            return max(map(self._written, names), default=0.0)

    def _written(self, name: str) -> float:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / name).stat().st_mtime
        return 0.0

    # --- writing ------------------------------------------------------------------------------

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes records, each with its ``unit``, to the log of this process by one write.

        Call `refresh` before, so that the record gets a higher version than that of other
        processes. Raises `files.DiskFull` if the disk is full, and then nothing is committed.
        """
        with self._lock:
            name = self._name()
            path = self.folder / name
            is_new = not path.exists()
            lines, places, offset = [], {}, 0 if is_new else path.stat().st_size
            for record in records:
                unit, version = str(record["unit"]), max(0, self.version(record["unit"])) + 1
                line = json.dumps(
                    plain_values({"unit": unit, "version": version, **record}), allow_nan=False
                )
                places[unit] = RecordPlace(version, name, offset, len(line))
                lines.append(line)
                offset += len(line) + 1
            self.folder.mkdir(parents=True, exist_ok=True)
            own, self._own = self._own, None  # after an error, another log is begun
            append(path, "".join(f"{line}\n" for line in lines))
            try:
                sync(path)
                if is_new:
                    sync(self.folder)
            except OSError as error:
                if error.errno in FULL:
                    raise disk_full(path, error) from error
                raise
            self._own, self._read[name] = own, offset
            self._places.update(places)

    def _name(self) -> str:
        """Returns the name of this process's log. A process that was forked begins another."""
        if self._own is None or self._own[0] != os.getpid():
            self._own = os.getpid(), f"{PREFIX}{secrets.randbelow(10**12):012d}{SUFFIX}"
        return self._own[1]


def _whole(path: Path) -> bytes:
    """Returns the bytes of a unit's own file; none if it is gone."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


def _parse(unit: str, text: bytes) -> dict[str, Any] | None:
    """Parses a record. Returns None if it is damaged or that of another unit."""
    with contextlib.suppress(ValueError):
        record = json.loads(text)
        if isinstance(record, dict) and record.get("unit") == unit:
            return record
    return None


@functools.cache
def _of_process(folder: str) -> CommitLog:
    return CommitLog(Path(folder))


def commit_log(folder: Path) -> CommitLog:
    """Returns this process's one `CommitLog` of a folder, which has read it only once."""
    return _of_process(os.path.abspath(folder))
