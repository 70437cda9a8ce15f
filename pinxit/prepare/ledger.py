"""Writes the commit records of a prepared dataset's units, and gathers them into the manifest.

When a unit is done again (a retry of failed rows), its files get new names, ``<unit>~1…``. One
rename of its record switches from the old files to the new ones, and then the old ones are removed.
`pinxit.data.prepared.manifest` shows the folder's layout.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pinxit.config import UsageError, differences, plain, read_json
from pinxit.data.prepared.encoder_identity import without_scaling
from pinxit.data.prepared.manifest import FORMAT, STAGES, Manifest, Stage, Unfinished
from pinxit.data.prepared.shards import SUFFIX, ShardInfo
from pinxit.files import write_json

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

    def record_path(self, unit: str) -> Path:
        """Returns the path of a unit's commit record."""
        return self.root / "units" / self.stage / f"{safe(unit)}.json"

    def read(self, unit: str) -> UnitRecord | None:
        """Reads a unit's commit record. Returns None if it is absent or unreadable."""
        try:
            raw = json.loads(self.record_path(unit).read_text())
            files = {folder: ShardInfo(**info) for folder, info in raw.pop("files").items()}
            return UnitRecord(files=files, **raw)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None  # absent or unreadable: the unit is done again

    def record_paths(self) -> list[Path]:
        """Returns the paths of all commit records, by unit."""
        return sorted((self.root / "units" / self.stage).glob("*.json"))

    def records(self) -> list[UnitRecord]:
        """Reads all commit records, by unit."""
        records = (self.read(path.stem) for path in self.record_paths())
        return [record for record in records if record is not None]

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
        """Writes the record in one rename, then removes the files of the previous record."""
        before = self.read(record.unit)
        write_json(self.record_path(record.unit), asdict(record))
        for folder, info in (before.files if before else {}).items():
            if folder not in record.files or record.files[folder].name != info.name:
                (self.root / folder / info.name).unlink(missing_ok=True)


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


def gather(
    root: Path,
    units: Sequence[str],
    stage: Stage,
    *,
    skipped: Mapping[str, str] | None = None,
) -> Manifest:
    """Gathers the commit records of these units into a manifest.

    Raises `Unfinished` if a unit is not done in `stage`. Existing latents are included if they are
    complete and were made from these images. Units in `skipped` and those that the first stage left
    out are only listed as skipped.
    """
    records: dict[Stage, list[UnitRecord]] = {}
    skipped = {**(skipped or {}), **_left_out(root, units)}
    units = [unit for unit in units if unit not in skipped]
    for name in STAGES:
        ledger = Ledger(root, name)
        if ledger.about.is_file() or name == stage:
            try:
                records[name] = _all(ledger, units, records.get("images"))
            except Unfinished:
                if name == stage or stage == "latents":
                    raise
    identity = Ledger(root, "latents" if "latents" in records else "images").identity()
    if identity is None:
        raise Unfinished(f"{root}: the stage {stage!r} was not started")
    files = {
        folder: tuple(record.files.get(folder) for record in of_stage)
        for name, of_stage in records.items()
        for folder in STAGES[name]
        if any(folder in record.files for record in of_stage)
    }
    total = rows_by_status(records.get("images", ()))
    latents, text = _measure(records["latents"]) if "latents" in records else (None, None)
    shapes = [record.measured.get("shapes") for record in records.get("images", ())]
    images = {"shapes": shapes} if shapes and None not in shapes else None
    counts = dict(sorted(total.items()))
    return Manifest(identity, tuple(units), files, counts, latents, text, images, skipped)


def _left_out(root: Path, units: Sequence[str]) -> dict[str, str]:
    """Returns the reason for each unit that the first stage left out."""
    ledger = Ledger(root, "images")
    reasons = ledger.skipped()
    return {unit: reasons[unit] for unit in units if unit in reasons and ledger.read(unit) is None}


def _all(
    ledger: Ledger, units: Sequence[str], images: Sequence[UnitRecord] | None
) -> list[UnitRecord]:
    """Reads the commit records of all units, in order. Raises `Unfinished` if one is missing.

    With `images`, the records of the first stage, a record must have been made from these images.
    """
    records: list[UnitRecord] = []
    missing: list[str] = []
    for number, unit in enumerate(units):
        record = ledger.read(unit)
        if record is not None and images is not None:
            info = images[number].files.get("images")
            record = record if record.source == (info.sha256 if info else "") else None
        if record is None:
            missing.append(unit)
        else:
            records.append(record)
    if missing:
        raise Unfinished(
            f"{ledger.root}: {len(missing)} of {len(units)} units are not done in the stage "
            f"{ledger.stage!r} (the first: {missing[0]})"
        )
    return records


def _measure(records: Sequence[UnitRecord]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Returns the statistics of all latents and of all texts, from the sums of the units."""
    measured = [record.measured for record in records]
    cells = sum(unit["cells"] for unit in measured)
    channels = range(max((len(unit["sum"]) for unit in measured), default=0))
    mean, std = [], []
    for channel in channels:
        total, square = (
            math.fsum(unit[name][channel] for unit in measured if unit["cells"])
            for name in ("sum", "square")
        )
        mean.append(total / cells)
        std.append(math.sqrt(max(0.0, square / cells - mean[-1] ** 2)))
    latents = {
        "count": sum(record.counts.get("ok", 0) for record in records),
        "not_finite": sum(record.counts.get("not_finite", 0) for record in records),
        "shapes": [unit["shapes"] for unit in measured],
        "mean": mean,
        "std": std,
    }
    texts = [unit["text"] for unit in measured if unit.get("text")]
    if not texts:
        return latents, None
    longest = max(text["longest"] for text in texts)
    wide = sum(text["wide"] for text in texts)
    return latents, {**texts[0], "longest": longest, "wide": wide}
