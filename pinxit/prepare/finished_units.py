"""The finished units of a stage, in memory: their records and the files that are there.

A command reads each record once and lists each folder once, however many units there are. Later
calls read only the records that are new. Histograms and examples, which take most of a record, are
not kept.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from pinxit.data.prepared.manifest import STAGES
from pinxit.data.prepared.shards import quarantine_path
from pinxit.prepare.commit_log import RecordPlace
from pinxit.prepare.ledger import Ledger, UnitRecord, unit_of

LARGE = ("histograms", "examples")
"""The measurements that are not kept."""


class FinishedUnits:
    """The units of a stage that have a commit record."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.records: dict[str, UnitRecord] = {}
        self.files: dict[str, dict[str, int]] = {}
        """The size in bytes of each file by its name, for each folder of the stage that was
        listed."""
        self._places: dict[str, RecordPlace] = {}
        """Where the records are that have been read."""

    def refresh(self, only: Iterable[str] | None = None) -> None:
        """Reads the records that are new or changed, of all units or `only` of these."""
        log = self.ledger.log
        log.refresh()
        places = log.places()
        for unit in self.records.keys() - places.keys():
            del self.records[unit]
            self._places.pop(unit, None)
        units = places if only is None else [unit for unit in only if unit in places]
        changed = [unit for unit in units if self._places.get(unit) != places[unit]]
        for unit in changed:
            self.records.pop(unit, None)
            self._places[unit] = places[unit]
        with _collector_paused():
            for record in self.ledger.parsed(changed):
                self.add(record)

    def lacks(self, units: Iterable[str]) -> list[str]:
        """Returns the units that have no record, without reading those of the others."""
        self.ledger.log.refresh()
        places = self.ledger.log.places()
        return [unit for unit in units if unit not in places]

    def add(self, record: UnitRecord) -> None:
        """Adds a record that a worker has committed."""
        measured = {name: v for name, v in record.measured.items() if name not in LARGE}
        self.records[record.unit] = replace(record, measured=measured)

    def list_files(self) -> None:
        """Lists the files of the stage, with one pass over each folder."""
        self.files = {name: _sizes(self.ledger.root / name) for name in STAGES[self.ledger.stage]}

    def done(self, unit: str, *, source: str = "") -> UnitRecord | None:
        """Returns a unit's record if the unit is done, else None, as `Ledger.done` does.

        The files count that `list_files` has seen.
        """
        record = self.records.get(unit)
        if record is None or record.source != source:
            return None
        present = all(
            self.files.get(folder, {}).get(info.name) == info.bytes
            for folder, info in record.files.items()
        )
        return record if present else None

    def lacks_images(self, unit: str) -> bool:
        """Returns whether a unit's images are neither there nor quarantined."""
        record = self.records.get(unit)
        info = record.files.get("images") if record is not None else None
        if info is None:
            return False
        names = self.files["images"]
        return info.name not in names and quarantine_path(Path(info.name)).name not in names

    def source(self, unit: str) -> str:
        """Returns the SHA-256 of a unit's images, or "" if it has none."""
        record = self.records.get(unit)
        info = record.files.get("images") if record is not None else None
        return info.sha256 if info is not None else ""


def finished_units(ledger: Ledger, units: Iterable[str]) -> FinishedUnits:
    """Reads the records of these units in a stage, and lists its files."""
    finished = FinishedUnits(ledger)
    finished.refresh(units)
    finished.list_files()
    return finished


def leftovers(finished: FinishedUnits, units: Iterable[str]) -> list[Path]:
    """Returns the files of these units that killed workers left: no record names them."""
    mine = set(units)
    paths = []
    for folder, suffix in STAGES[finished.ledger.stage].items():
        for name in finished.files[folder]:
            unit = unit_of(name)
            if unit not in mine or not name.endswith(suffix):
                continue
            record = finished.records.get(unit)
            info = record.files.get(folder) if record is not None else None
            if info is None or info.name != name:
                paths.append(finished.ledger.root / folder / name)
    return paths


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Runs the block without the search for cycles, which would visit all records many times."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _sizes(folder: Path) -> dict[str, int]:
    """Returns the size of each file of a folder by its name; none if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name: entry.stat().st_size
                for entry in entries
                if not entry.name.startswith(".") and entry.is_file()
            }
    except FileNotFoundError:
        return {}
