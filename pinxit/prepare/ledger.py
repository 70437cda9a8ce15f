"""Writes the commit records of a prepared dataset's units, and gathers them into the manifest.

When a unit is done again (a retry of failed rows), its files get new names, ``<unit>~1…``. One
line in a log switches from the old files to the new ones, and then the old ones are removed.
`pinxit.data.prepared.manifest` shows the folder's layout.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pinxit.config import UsageError, differences, plain, read_json
from pinxit.data.prepared.encoder_identity import without_scaling
from pinxit.data.prepared.manifest import FORMAT, STAGES, Stage
from pinxit.data.prepared.shards import SUFFIX, ShardInfo
from pinxit.files import write_json
from pinxit.prepare.commit_log import commit_log

SKIPPED = "skipped"
"""The folder with the units that were left out, beside the folders of commit records."""
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class UnitRecord:
    """The commit record of one unit in one stage: the files written and the rows by status."""

    unit: str
    files: Mapping[str, ShardInfo]
    """The unit's file in each folder. A folder is absent if the unit has no file in it."""
    counts: Mapping[str, int]
    """Number of rows by status; in the latents stage, of records by "ok" and "not_finite"."""
    generation: int = 0
    """Number of times that the failed rows were retried."""
    source: str = ""
    """SHA-256 of the image shard that was encoded (latents stage only)."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Score histograms (images stage), or shapes and sums over the channels (latents stage)."""
    seconds: float = 0.0
    """The time it took, the only value that differs between equal runs."""


class Ledger:
    """The commit records of one stage of a prepared dataset."""

    def __init__(self, root: Path, stage: Stage) -> None:
        self.root = root
        self.stage = stage
        self.log = commit_log(root / "units" / stage)

    @property
    def about(self) -> Path:
        """The path of the stage's settings."""
        return self.root / f"{self.stage}.json"

    def begin(self, identity: Mapping[str, Any], *, notes: Mapping[str, Any] | None = None) -> None:
        """Records the settings that determine the content (`identity`) and the others (`notes`).

        Raises `UsageError` if the stage was started with another identity, because all units of a
        dataset must be made with the same settings.
        """
        current = plain({"format": FORMAT, **identity})
        before = self.identity()
        if before is not None and before == without_scaling(before):
            current = without_scaling(current)  # an older version began this folder
        if before is not None and before != current:
            changed = differences(before, current)
            raise UsageError(
                f"{self.root} was started with other settings: {'; '.join(changed)}; "
                "use the same settings, or another folder"
            )
        write_json(self.about, {"identity": current, "notes": plain(notes or {})})

    def identity(self) -> dict[str, Any] | None:
        """Returns the identity that the stage was started with, or None if it was not started."""
        return self._read_about("identity")

    def notes(self) -> dict[str, Any]:
        """Returns the notes of the last `begin`."""
        return self._read_about("notes") or {}

    def _read_about(self, part: str) -> dict[str, Any] | None:
        """Reads one part of the file that `begin` wrote, or returns None if there is no file."""
        if not self.about.is_file():
            return None
        about = read_json(self.about)
        if not isinstance(about.get(part), dict):
            raise UsageError(f"{self.about} is damaged: {part!r} is missing")
        return about[part]

    def path(self, folder: str, unit: str, *, generation: int = 0) -> Path:
        """Returns the path of a unit's file in one of the stage's folders."""
        mark = f"~{generation}" if generation else ""
        return self.root / folder / f"{safe(unit)}{mark}{STAGES[self.stage][folder]}"

    def read(self, unit: str) -> UnitRecord | None:
        """Reads a unit's commit record. Returns None if it is absent or unreadable."""
        self.log.refresh()
        return parsed_record(self.log.read(safe(unit)))  # unreadable: the unit is done again

    def units(self) -> list[str]:
        """Returns the units that have a commit record, in the order of their ids."""
        self.log.refresh()
        return self.log.units()

    def newest(self, count: int) -> list[str]:
        """Returns at most `count` of the units that were committed last, the newest first."""
        self.log.refresh()
        return self.log.newest(count)

    def each(self, units: Iterable[str] | None = None) -> Iterator[UnitRecord]:
        """Yields the commit records one at a time, in the order in which they are stored.

        Without `units`, yields those of all units. Unreadable records are left out.
        """
        self.log.refresh()
        yield from self.parsed(units)

    def parsed(self, units: Iterable[str] | None = None) -> Iterator[UnitRecord]:
        """Does the same as `each`, for the records that are known without looking again."""
        for _, raw in self.log.each(units):
            if (record := parsed_record(raw)) is not None:
                yield record

    def records(self) -> list[UnitRecord]:
        """Reads all commit records, by unit."""
        return sorted(self.each(), key=lambda record: record.unit)

    def skip(self, unit: str, reason: str) -> None:
        """Leaves a unit out of the manifest until it is done."""
        write_json(self._skip_path(unit), {"unit": unit, "reason": reason})

    def unskip(self, unit: str) -> None:
        """Undoes `skip`."""
        self._skip_path(unit).unlink(missing_ok=True)

    def skipped(self) -> dict[str, str]:
        """Returns the reason for each unit that is left out."""
        reasons = {}
        for path in sorted((self.root / "units" / SKIPPED).glob("*.json")):
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                record = json.loads(path.read_text())
                reasons[str(record["unit"])] = str(record["reason"])
        return reasons

    def _skip_path(self, unit: str) -> Path:
        return self.root / "units" / SKIPPED / f"{safe(unit)}.json"

    def done(self, unit: str, *, source: str = "") -> UnitRecord | None:
        """Returns a unit's record if the unit is done, else None.

        A unit is done if its record has this `source` and its files exist in the recorded sizes.
        """
        record = self.read(unit)
        if record is None or record.source != source:
            return None
        for folder, info in record.files.items():
            path = self.root / folder / info.name
            if not path.is_file() or path.stat().st_size != info.bytes:
                return None
        return record

    def commit(self, record: UnitRecord) -> None:
        """Appends the record to this process's log, then removes the previous record's files."""
        safe(record.unit)
        before = self.read(record.unit)
        self.log.append([asdict(record)])
        for folder, info in (before.files if before else {}).items():
            if folder not in record.files or record.files[folder].name != info.name:
                (self.root / folder / info.name).unlink(missing_ok=True)


def parsed_record(raw: dict[str, Any] | None) -> UnitRecord | None:
    """Returns the record that a log has, or None if it is none."""
    if raw is None:
        return None
    try:
        files = {folder: ShardInfo(**info) for folder, info in raw.pop("files").items()}
        raw.pop("version", None)
        return UnitRecord(files=files, **raw)
    except (KeyError, TypeError, AttributeError):
        return None


def safe(unit: str) -> str:
    """Returns the id, or raises `UsageError` if it cannot be part of a file name."""
    if not SAFE.fullmatch(unit):
        raise UsageError(f"unit: {unit!r} is not a valid id; valid: letters, digits, '.', '_', '-'")
    return unit


def unit_of(name: str) -> str | None:
    """Returns the unit that a file of this name belongs to, or None for other files."""
    for suffix in (SUFFIX, ".parquet", ".json"):
        if name.endswith(suffix):
            return name[: -len(suffix)].partition("~")[0]
    return None


def rows_by_status(records: Iterable[UnitRecord]) -> Counter[str]:
    """Returns the number of rows of these units by status."""
    counts = Counter[str]()
    for record in records:
        counts.update(record.counts)
    return counts
