"""A whole preparation: both stages, over all units, on any engine, as often as it takes.

Run again, it does what is left. A unit that fails is named with its reason and the others go on;
a full disk stops the run at once. When every unit is done, the manifest is written. Units whose
source is damaged can be left out of it.

Images may be deleted once their latents are there: such a unit is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinxit.data.outcome import can_heal
from pinxit.data.prepared.manifest import MANIFEST, STAGES, Manifest, Stage, Unfinished
from pinxit.data.prepared.shards import quarantine_path
from pinxit.data.row import Unit
from pinxit.files import DiskFull, sweep
from pinxit.prepare.engines.base import Engine, UnitResult
from pinxit.prepare.folder_lock import locked
from pinxit.prepare.images import ImageStage, Offline
from pinxit.prepare.latents import LatentStage
from pinxit.prepare.ledger import Ledger, UnitRecord, gather, unit_of
from pinxit.prepare.progress import StageProgress, WatchFn, no_watch
from pinxit.prepare.rejected_previews import FOLDER as PREVIEWS


@dataclass(frozen=True)
class StageResult:
    """How a stage ended."""

    stage: Stage
    units: int
    done: int
    failed: tuple[UnitResult, ...] = ()
    skipped: tuple[UnitResult, ...] = ()
    """Those that failed and were left out."""
    stopped: str = ""
    """Why it stopped before its end."""
    manifest: Manifest | None = None
    """Of the whole dataset, if every unit of it is done."""
    waiting: str = ""
    """What is still to be done elsewhere before there is a manifest."""
    ids: tuple[str, ...] = ()
    """All units of the dataset, whoever sees to them."""

    @property
    def exit_code(self) -> int:
        """0 if nothing failed."""
        return 1 if self.failed or self.stopped else 0


OFFLINE_LIMIT = 3
"""So many units in a row that reach no host stop the stage."""


def run_images(
    stage: ImageStage,
    engine: Engine,
    *,
    workers: int = 1,
    limit: int | None = None,
    skip_failed: bool = False,
    watch: WatchFn = no_watch,
) -> StageResult:
    """The first stage over the source's units (the first `limit`). With `skip_failed`, units that
    fail by themselves (`can_skip`) are left out of the manifest, and tried again in the next run.

    ValueError if the folder holds a dataset of another identity, or another command is at work.
    """
    ledger = Ledger(stage.out, "images")
    with locked(stage.out, engine):
        ledger.begin(stage.identity(), notes=stage.notes())
        units = stage.source.units(limit=limit)
        mine = engine.share(units)
        clean(ledger, [unit.id for unit in mine])

        for unit in {unit.id for unit in mine} & ledger.skipped().keys():
            ledger.unskip(unit)

        def is_done(unit: Unit) -> bool:
            if is_spent(stage.out, unit.id):
                return True
            record = ledger.done(unit.id)
            heals = stage.retry and record is not None and any(map(can_heal, record.counts))
            return record is not None and not heals

        todo = [unit for unit in mine if not is_done(unit)]
        _withdraw(ledger, [unit.id for unit in todo])
        ended = _run(stage, ledger, engine, todo, total=len(mine), workers=workers, watch=watch)
        if skip_failed:
            ended = _skip(ended, ledger)
        return _finish(ended, ledger, [unit.id for unit in units])


def run_latents(
    stage: LatentStage,
    engine: Engine,
    *,
    identity: Mapping[str, Any],
    workers: int = 1,
    watch: WatchFn = no_watch,
) -> StageResult:
    """The second stage over all units of the first. `identity` tells the encoders apart: their
    names and fingerprints, and what captions went through.

    `Unfinished` before the first stage is done; ValueError as for `run_images`.
    """
    first = Manifest.read(stage.out)
    ledger = Ledger(stage.out, "latents")
    with locked(stage.out, engine):
        ledger.begin({**first.identity, "encoders": dict(identity)})
        shards = first.files.get("images", (None,) * len(first.units))
        sources = {
            unit: info.sha256 if info else ""
            for unit, info in zip(first.units, shards, strict=True)
        }
        mine = engine.share(first.units)
        clean(ledger, mine)
        todo = [unit for unit in mine if ledger.done(unit, source=sources[unit]) is None]
        _withdraw(ledger, todo)
        ended = _run(stage, ledger, engine, todo, total=len(mine), workers=workers, watch=watch)
        return _finish(ended, ledger, first.units, skipped=dict(first.skipped))


def is_spent(root: Path, unit: str) -> bool:
    """Whether the unit's images are gone because their latents are there. A damaged shard that was
    set aside is another matter: it is made again."""
    record = Ledger(root, "images").read(unit)
    info = record.files.get("images") if record is not None else None
    if info is None:
        return False
    path = root / "images" / info.name
    if path.exists() or quarantine_path(path).exists():
        return False
    return Ledger(root, "latents").done(unit, source=info.sha256) is not None


def can_skip(result: UnitResult) -> bool:
    """Whether a unit of a source failed by itself, so that it would fail again: not for want of
    room, of a network, or of the server that has it."""
    if result.kind in (Offline.__name__, DiskFull.__name__):
        return False
    return not (result.os_error and "://" in result.unit.path)


def _run(
    fn: Callable[[Any], UnitRecord],
    ledger: Ledger,
    engine: Engine,
    todo: Sequence[Any],
    *,
    total: int,
    workers: int,
    watch: WatchFn,
) -> StageResult:
    """Does the units, and counts."""
    begun = time.monotonic()
    counts: Counter[str] = Counter()
    failed: list[UnitResult] = []
    fresh, offline, stopped = 0, 0, ""

    def progress() -> StageProgress:
        return StageProgress(
            stage=ledger.stage,
            units=total,
            done=total - len(todo) + fresh,
            failed=len(failed),
            rows=counts.total(),
            counts=dict(counts),
            seconds=time.monotonic() - begun,
            fresh=fresh,
        )

    watch(progress(), None)
    with contextlib.closing(engine.map(fn, todo, workers=workers)) as results:
        for result in results:
            if result.failed:
                failed.append(result)
                offline = offline + 1 if result.kind == Offline.__name__ else 0
            else:
                fresh, offline = fresh + 1, 0
                counts.update(result.value.counts)
            watch(progress(), result)
            if result.kind == DiskFull.__name__ or offline == OFFLINE_LIMIT:
                stopped = result.reason
                break
    return StageResult(
        ledger.stage, total, total - len(todo) + fresh, failed=tuple(failed), stopped=stopped
    )


def _skip(ended: StageResult, ledger: Ledger) -> StageResult:
    """Leaves out the units that would fail again."""
    skipped = tuple(result for result in ended.failed if can_skip(result))
    for result in skipped:
        ledger.skip(result.unit.id, result.reason)
    failed = tuple(result for result in ended.failed if not can_skip(result))
    return dataclasses.replace(ended, failed=failed, skipped=skipped)


def _finish(
    ended: StageResult,
    ledger: Ledger,
    units: Sequence[str],
    *,
    skipped: Mapping[str, str] | None = None,
) -> StageResult:
    """Writes the manifest, if every unit of every worker is done."""
    ended = dataclasses.replace(ended, ids=tuple(units))
    try:
        manifest = gather(ledger.root, units, ledger.stage, skipped=skipped)
    except Unfinished as error:
        return dataclasses.replace(ended, waiting=str(error))
    manifest.write(ledger.root)
    return dataclasses.replace(ended, manifest=manifest)


# --- order in the folder ----------------------------------------------------------------------


def clean(ledger: Ledger, units: Sequence[str]) -> int:
    """Removes what killed workers left of these units; returns how many files that were."""
    named = {
        unit: {folder: info.name for folder, info in record.files.items()} if record else {}
        for unit, record in ((unit, ledger.read(unit)) for unit in units)
    }
    removed = 0
    for name in (f"units/{ledger.stage}", *STAGES[ledger.stage], PREVIEWS):
        removed += sweep(ledger.root / name, lambda name: unit_of(name) in named)
    for folder, suffix in STAGES[ledger.stage].items():
        for path in (ledger.root / folder).glob(f"*{suffix}"):
            unit = unit_of(path.name)
            if unit in named and named[unit].get(folder) != path.name:
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def _withdraw(ledger: Ledger, todo: Sequence[str]) -> None:
    """Takes the manifest away before a unit that it lists is done again."""
    if any(ledger.read(unit) is not None for unit in todo):
        (ledger.root / MANIFEST).unlink(missing_ok=True)
