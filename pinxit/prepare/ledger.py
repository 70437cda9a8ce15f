"""The commit records that a prepared dataset grows from, and the manifest gathered from them.

A unit that is done again (a retry of failed rows) gets files of a new name, ``<unit>~1…``; its
record changes from the old files to the new ones in one rename, and the old ones go afterwards.
The folder's layout is drawn in `pinxit.data.prepared.manifest`.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pinxit.config import UsageError, differences, plain, read_json
from pinxit.data.prepared.manifest import FORMAT, STAGES, Manifest, Stage, Unfinished
from pinxit.data.prepared.shards import SUFFIX, ShardInfo
from pinxit.files import write_json

SKIPPED = "skipped"
"""The folder beside those of the commits that says which units were left out."""
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class UnitRecord:
    """The commit of one unit in one stage: what was written, and what became of its rows."""

    unit: str
    files: Mapping[str, ShardInfo]
    """Folder to the file in it. A stage leaves out a file that it has no use for."""
    counts: Mapping[str, int]
    """Rows by status; in the stage of the latents, records by "ok" and "not_finite"."""
    generation: int = 0
    """How often its failed rows were tried again."""
    source: str = ""
    """SHA-256 of the image shard that was encoded (stage of the latents)."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Score histograms (images); shapes and sums over the latents' channels (latents)."""
    seconds: float = 0.0
    """How long it took; the only part that differs from run to run."""


class Ledger:
    """The commit records of one stage of a prepared dataset."""

    def __init__(self, root: Path, stage: Stage) -> None:
        self.root = root
        self.stage = stage

    @property
    def about(self) -> Path:
        """What the stage was begun with."""
        return self.root / f"{self.stage}.json"

    def begin(self, identity: Mapping[str, Any], *, notes: Mapping[str, Any] | None = None) -> None:
        """Records what decides the content (`identity`) and what does not (`notes`).

        Raises if the stage was begun with another identity: a dataset is made in one way.
        """
        given = plain({"format": FORMAT, **identity})
        before = self.identity()
        if before is not None and before != given:
            changed = differences(before, given)
            raise UsageError(
                f"{self.root} was begun with other settings: {'; '.join(changed)}; "
                "give the same ones, or another folder"
            )
        write_json(self.about, {"identity": given, "notes": plain(notes or {})})

    def identity(self) -> dict[str, Any] | None:
        """What the stage was begun with; None before that."""
        return self._begun("identity")

    def notes(self) -> dict[str, Any]:
        """What the last `begin` noted."""
        return self._begun("notes") or {}

    def _begun(self, part: str) -> dict[str, Any] | None:
        """One part of what `begin` wrote; None before that."""
        if not self.about.is_file():
            return None
        about = read_json(self.about)
        if not isinstance(about.get(part), dict):
            raise UsageError(f"{self.about} is damaged: it lacks {part!r}")
        return about[part]

    def path(self, folder: str, unit: str, *, generation: int = 0) -> Path:
        """Where a unit's file in one of the stage's folders lies."""
        mark = f"~{generation}" if generation else ""
        return self.root / folder / f"{safe(unit)}{mark}{STAGES[self.stage][folder]}"

    def record_path(self, unit: str) -> Path:
        """Where the commit of a unit lies."""
        return self.root / "units" / self.stage / f"{safe(unit)}.json"

    def read(self, unit: str) -> UnitRecord | None:
        """The commit of a unit, or None."""
        try:
            raw = json.loads(self.record_path(unit).read_text())
            files = {folder: ShardInfo(**info) for folder, info in raw.pop("files").items()}
            return UnitRecord(files=files, **raw)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None  # absent or unreadable: the unit is done again

    def skip(self, unit: str, reason: str) -> None:
        """Leaves a unit out of the manifest, until it is done after all."""
        write_json(self._skip_path(unit), {"unit": unit, "reason": reason})

    def unskip(self, unit: str) -> None:
        """Takes `skip` back."""
        self._skip_path(unit).unlink(missing_ok=True)

    def skipped(self) -> dict[str, str]:
        """The units that are left out, with the reason."""
        found = {}
        for path in sorted((self.root / "units" / SKIPPED).glob("*.json")):
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                said = json.loads(path.read_text())
                found[str(said["unit"])] = str(said["reason"])
        return found

    def _skip_path(self, unit: str) -> Path:
        return self.root / "units" / SKIPPED / f"{safe(unit)}.json"

    def done(self, unit: str, *, source: str = "") -> UnitRecord | None:
        """The commit of a unit whose files are there, made from `source`; otherwise None."""
        record = self.read(unit)
        if record is None or record.source != source:
            return None
        for folder, info in record.files.items():
            path = self.root / folder / info.name
            if not path.is_file() or path.stat().st_size != info.bytes:
                return None
        return record

    def commit(self, record: UnitRecord) -> None:
        """Makes the unit done, in one rename; then removes the files of the commit before."""
        before = self.read(record.unit)
        write_json(self.record_path(record.unit), asdict(record))
        for folder, info in (before.files if before else {}).items():
            if folder not in record.files or record.files[folder].name != info.name:
                (self.root / folder / info.name).unlink(missing_ok=True)


def safe(unit: str) -> str:
    """The id, if it may be part of a file's name."""
    if not SAFE.fullmatch(unit):
        raise UsageError(f"unit: {unit!r} is no valid id; valid: letters, digits, '.', '_', '-'")
    return unit


def unit_of(name: str) -> str | None:
    """The unit that a file's name belongs to."""
    for suffix in (SUFFIX, ".parquet", ".json"):
        if name.endswith(suffix):
            return name[: -len(suffix)].partition("~")[0]
    return None


def gather(
    root: Path,
    units: Sequence[str],
    stage: Stage,
    *,
    skipped: Mapping[str, str] | None = None,
) -> Manifest:
    """The manifest of these units from their commits; `Unfinished` if one lacks in `stage`.

    Latents that are there are part of it if they are complete and of these images. Units that the
    first stage left out are only named, as are those `skipped` before.
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
        raise Unfinished(f"{root}: the stage {stage!r} was not begun")
    files = {
        folder: tuple(record.files.get(folder) for record in found)
        for name, found in records.items()
        for folder in STAGES[name]
        if any(folder in record.files for record in found)
    }
    total: Counter[str] = Counter()
    for record in records.get("images", ()):
        total.update(record.counts)
    latents, text = _measure(records["latents"]) if "latents" in records else (None, None)
    shapes = [record.measured.get("shapes") for record in records.get("images", ())]
    images = {"shapes": shapes} if shapes and None not in shapes else None
    ends = dict(sorted(total.items()))
    return Manifest(identity, tuple(units), files, ends, latents, text, images, skipped)


def _left_out(root: Path, units: Sequence[str]) -> dict[str, str]:
    """The units that the first stage left out, with the reason."""
    ledger = Ledger(root, "images")
    said = ledger.skipped()
    return {unit: said[unit] for unit in units if unit in said and ledger.read(unit) is None}


def _all(
    ledger: Ledger, units: Sequence[str], images: Sequence[UnitRecord] | None
) -> list[UnitRecord]:
    """The commits of all units, in their order; of latents, those made from these images."""
    found: list[UnitRecord] = []
    missing: list[str] = []
    for number, unit in enumerate(units):
        record = ledger.read(unit)
        if record is not None and images is not None:
            info = images[number].files.get("images")
            record = record if record.source == (info.sha256 if info else "") else None
        if record is None:
            missing.append(unit)
        else:
            found.append(record)
    if missing:
        raise Unfinished(
            f"{ledger.root}: {len(missing)} of {len(units)} units are not done in the stage "
            f"{ledger.stage!r} (the first: {missing[0]})"
        )
    return found


def _measure(records: Sequence[UnitRecord]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What the manifest says of latents and text: the units' sums, put together."""
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
