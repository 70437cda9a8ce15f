"""Gathers the commit records of all units into the manifest of a prepared dataset.

The last of the commands that prepare a dataset together writes the manifest. Each tries it when its
own units are done, one after another, so the last one sees all commits.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pinxit.config import UsageError
from pinxit.data.prepared.manifest import MANIFEST, STAGES, Manifest, Stage, Unfinished
from pinxit.prepare.finished_units import FinishedUnits
from pinxit.prepare.ledger import Ledger, UnitRecord, rows_by_status

Finished = Mapping[Stage, FinishedUnits]
"""The records of each stage, as far as a command has read them already."""


def gather(
    root: Path,
    units: Sequence[str],
    stage: Stage,
    *,
    skipped: Mapping[str, str] | None = None,
    finished: Finished | None = None,
) -> Manifest:
    """Gathers the commit records of these units into a manifest.

    Raises `Unfinished` if a unit is not done in `stage`. Existing latents are included if they are
    complete and were made from these images. Units in `skipped` and those that the first stage left
    out are only listed as skipped. Of the records in `finished`, only new ones are read.
    """
    known = {
        name: (finished or {}).get(name) or FinishedUnits(Ledger(root, name)) for name in STAGES
    }
    images = known["images"]
    reasons = images.ledger.skipped()
    not_done = set(images.lacks(reasons))
    left_out = {unit: reasons[unit] for unit in units if unit in not_done}
    skipped = {**(skipped or {}), **left_out}
    units = [unit for unit in units if unit not in skipped]
    if missing := known[stage].lacks(units):  # most ranks end here, and read no other records
        raise _unfinished(known[stage], missing, len(units))
    for one in known.values():
        one.refresh(units)
    records: dict[Stage, list[UnitRecord]] = {}
    for name in STAGES:
        if known[name].ledger.about.is_file() or name == stage:
            try:
                records[name] = _all(known[name], units, images if "images" in records else None)
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
    described = {"shapes": shapes} if shapes and None not in shapes else None
    counts = dict(sorted(total.items()))
    return Manifest(identity, tuple(units), files, counts, latents, text, described, skipped)


def write_manifest(
    root: Path,
    units: Sequence[str],
    stage: Stage,
    *,
    skipped: Mapping[str, str] | None = None,
    finished: Finished | None = None,
) -> Manifest:
    """Writes the manifest of these units, unless the same one is there, and returns it.

    Raises `Unfinished` as `gather` does. Commands that end at the same time do this one after
    another, so that none writes over a later manifest.
    """
    with _one_at_a_time(root):
        manifest = gather(root, units, stage, skipped=skipped, finished=finished)
        with contextlib.suppress(UsageError):  # none yet, or a damaged one
            if Manifest.read(root) == manifest:
                return manifest
        manifest.write(root)
        return manifest


def withdraw_manifest(root: Path) -> None:
    """Removes the manifest, before a unit that it may list is done again."""
    (root / MANIFEST).unlink(missing_ok=True)


@contextlib.contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """Waits until no other command gathers the records of this folder."""
    with (root / ".lock-manifest").open("a+") as file:
        with contextlib.suppress(OSError):  # this file system has no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _all(
    finished: FinishedUnits, units: Sequence[str], images: FinishedUnits | None
) -> list[UnitRecord]:
    """Returns the records of all units, in order. Raises `Unfinished` if one is missing.

    With `images`, the records of the first stage, a record must have been made from these images.
    """
    known = finished.records
    missing = [
        unit
        for unit in units
        if unit not in known or (images and known[unit].source != images.source(unit))
    ]
    if missing:
        raise _unfinished(finished, missing, len(units))
    return [known[unit] for unit in units]


def _unfinished(finished: FinishedUnits, missing: Sequence[str], count: int) -> Unfinished:
    """Returns the error for units that are not done in a stage, of `count` in all."""
    ledger = finished.ledger
    return Unfinished(
        f"{ledger.root}: {len(missing)} of {count} units are not done in the stage "
        f"{ledger.stage!r} (the first: {missing[0]})"
    )


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
