"""Adds up the commit records of a prepared dataset, and reads only those that are new or changed.

A large dataset has tens of thousands of records, so one refresh reads for a bounded time, and the
next one goes on. Of each record only a few numbers stay in memory.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pinxit.config import UsageError
from pinxit.data.filters.histograms import Histograms
from pinxit.data.prepared.manifest import Manifest
from pinxit.data.prepared.shards import ShardInfo
from pinxit.prepare.commit_log import RecordPlace
from pinxit.prepare.ledger import Ledger, UnitRecord, parsed_record

SECONDS = 2.0
"""The longest time that one refresh reads."""


@dataclass(frozen=True)
class UnitEntry:
    """The part of a commit record that is kept in memory."""

    unit: str
    counts: Mapping[str, int]
    images: ShardInfo | None
    outcomes: ShardInfo | None
    seconds: float
    enlarged: int
    """The number of kept images that were enlarged."""


class UnitTotals:
    """The sums over all units of a dataset, as far as they have been read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._identity: Any = None
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        """Forgets all units."""
        self.entries: dict[str, UnitEntry] = {}
        """The units that are done, by id. They are sorted by id."""
        self.counts: Counter[str] = Counter()
        """Rows by status."""
        self.histograms = Histograms()
        self.unread = 0
        """The number of records that have not been read yet."""
        self.newest = 0.0
        """When the last unit was finished, in seconds since 1970; 0 if none was."""
        self._places: dict[str, RecordPlace] = {}
        """Where the records are that have been read."""
        self._measured: set[str] = set()
        """The units whose histograms have been added."""
        self.damaged: list[str] = []
        """The units whose records cannot be read."""

    @property
    def seconds(self) -> float:
        """The time that all units took."""
        return sum(entry.seconds for entry in self.entries.values())

    def refresh(self, *, seconds: float = SECONDS) -> None:
        """Reads new and changed records, for at most about `seconds`."""
        with self._lock:
            ledger = Ledger(self.root, "images")
            if (identity := ledger.identity()) != self._identity:
                self._reset()
                self._identity = identity
            self._read(ledger, time.monotonic() + seconds)

    def _read(self, ledger: Ledger, until: float) -> None:
        """Reads the records that are new or changed, until a time."""
        log = ledger.log
        log.refresh()
        places = log.places()
        changed = [unit for unit, place in places.items() if self._places.get(unit) != place]
        entries = {unit: entry for unit, entry in self.entries.items() if unit in places}
        known = {unit: place for unit, place in self._places.items() if unit in places}
        self.unread = len(changed)
        damaged = {unit for unit in self.damaged if unit in places}
        for unit, raw in log.each(changed):
            if time.monotonic() > until:
                break
            self.unread -= 1
            known[unit] = places[unit]
            try:
                record = parsed_record(raw)
                if record is None:
                    raise KeyError("unit")
                entries[unit] = _entry(record)
                self._measure(record)
                damaged.discard(unit)
            except (UsageError, AttributeError, KeyError, TypeError, ValueError):
                damaged.add(unit)
        self.damaged = sorted(damaged)
        self._places = known
        if not places:
            entries = _listed(self.root)
        if changed or len(entries) != len(self.entries):
            self.entries = dict(sorted(entries.items()))
            self.counts = Counter()
            for entry in self.entries.values():
                self.counts.update(entry.counts)
        self.newest = log.written()

    def _measure(self, record: UnitRecord) -> None:
        """Adds a unit's histograms. A retry does not change them, so they are added once."""
        stored = record.measured.get("histograms")
        if stored is not None and record.unit not in self._measured:
            self._measured.add(record.unit)
            self.histograms.merge_json(stored)


def _entry(record: UnitRecord) -> UnitEntry:
    return UnitEntry(
        unit=record.unit,
        counts={str(status): int(count) for status, count in record.counts.items()},
        images=_plain_name(record.files.get("images")),
        outcomes=_plain_name(record.files.get("outcomes")),
        seconds=float(record.seconds),
        enlarged=int(record.measured.get("enlarged", {}).get("rows", 0)),
    )


def _plain_name(info: ShardInfo | None) -> ShardInfo | None:
    """Returns the description of a file, whose name must not lead to another folder.

    A record may come from a stranger. A name with a folder in it is replaced by one that no file
    has, so that the file counts as missing.
    """
    if info is None or (info.name == Path(info.name).name and "\0" not in info.name):
        return info
    return replace(info, name=".not-a-file-name")


def _listed(root: Path) -> dict[str, UnitEntry]:
    """Returns the units of a manifest, for a dataset that was copied without its records."""
    try:
        manifest = Manifest.read(root)
    except UsageError:
        return {}
    images = manifest.files.get("images", (None,) * len(manifest.units))
    entries = {
        unit: UnitEntry(unit, {"ok": info.count if info else 0}, _plain_name(info), None, 0.0, 0)
        for unit, info in zip(manifest.units, images, strict=True)
    }
    if entries:  # the counts of single units are not in a manifest
        first = next(iter(entries))
        others = {status: count for status, count in manifest.counts.items() if status != "ok"}
        entries[first] = replace(entries[first], counts={**entries[first].counts, **others})
    return entries
