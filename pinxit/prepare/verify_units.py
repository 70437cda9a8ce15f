"""Finds damaged files of finished units, so that their units are made again.

Only `pinxit prepare` renames damaged files, to ``<name>.corrupt``. Readers of a dataset never do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pinxit.data.prepared.manifest import STAGES
from pinxit.data.prepared.shards import DamagedShard, quarantine, verify_shard
from pinxit.prepare.finished_units import FinishedUnits
from pinxit.prepare.ledger import Ledger, UnitRecord


def quarantine_damaged(root: Path, units: Sequence[str]) -> list[str]:
    """Compares the files of both stages of these units with their records by SHA-256, renames those
    that differ, and returns the units that have any. Raises OSError if a file cannot be read."""

    records: dict[str, list[UnitRecord]] = {unit: [] for unit in units}
    for stage in STAGES:
        finished = FinishedUnits(Ledger(root, stage))
        finished.refresh(units)
        for unit in records.keys() & finished.records.keys():
            records[unit].append(finished.records[unit])

    def is_damaged(unit: str) -> bool:
        return not all([is_intact(root, record) for record in records[unit]])

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return [unit for unit, bad in zip(units, pool.map(is_damaged, units), strict=True) if bad]


def is_intact(root: Path, record: UnitRecord) -> bool:
    """Returns whether the unit's files match its record, and quarantines those that do not."""
    intact = True
    for folder, info in record.files.items():
        path = root / folder / info.name
        try:
            verify_shard(path, info)
        except DamagedShard:
            quarantine(path)
            intact = False
    return intact
