"""Runs the first stage of a preparation over all units, on any engine.

A stage that is run again does only the remaining work. A unit that fails is reported with its
reason and the others continue. A unit that an outage may have hit is tried again at the end. A full
disk stops the stage at once. The manifest is written once
every unit is done. Units whose source is damaged can be left out of it.

Images may be deleted once their latents exist: such a unit counts as done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pinxit.data.outcome import can_heal
from pinxit.data.prepared.manifest import STAGES, Manifest, Stage, Unfinished
from pinxit.data.row import Unit
from pinxit.files import DiskFull, sweep
from pinxit.prepare.engines.base import Engine, UnitResult
from pinxit.prepare.finished_units import FinishedUnits, finished_units, leftovers
from pinxit.prepare.folder_lock import locked
from pinxit.prepare.gather import withdraw_manifest, write_manifest
from pinxit.prepare.images import ImageStage
from pinxit.prepare.ledger import Ledger, UnitRecord, unit_of
from pinxit.prepare.network_wait import LongOutage, Offline
from pinxit.prepare.progress import StageProgress, WatchFn, no_watch
from pinxit.prepare.rejected_previews import FOLDER as PREVIEWS
from pinxit.prepare.second_round import OUTAGES, PAUSE, in_two_rounds
from pinxit.prepare.unit_list import write_unit_list
from pinxit.prepare.verify_units import quarantine_damaged


@dataclass(frozen=True)
class StageResult:
    """The result of a stage."""

    stage: Stage
    units: int
    """Number of units that this command is responsible for."""
    done: int
    """Number of these units that are done."""
    failed: tuple[UnitResult, ...] = ()
    skipped: tuple[UnitResult, ...] = ()
    """The units that failed and were left out of the manifest."""
    stopped: str = ""
    """The reason why the stage stopped early; empty if it did not."""
    manifest: Manifest | None = None
    """The manifest of the whole dataset, if every unit is done."""
    waiting: str = ""
    """A description of the unfinished units that prevent a manifest; empty if there are none."""
    ids: tuple[str, ...] = ()
    """The ids of all units of the dataset, including those of other ranks."""

    @property
    def exit_code(self) -> int:
        """The exit code: 0 if no unit failed and the stage was not stopped, else 1."""
        return 1 if self.failed or self.stopped else 0


OFFLINE_LIMIT = 3
"""The stage stops after this many units in a row that reach no host."""


def run_images(
    stage: ImageStage,
    engine: Engine,
    *,
    workers: int = 1,
    limit: int | None = None,
    skip_failed: bool = False,
    verify: bool = False,
    watch: WatchFn = no_watch,
) -> StageResult:
    """Runs the first stage over the source's units, or over the first `limit` of them.

    With `skip_failed`, units that `can_skip` accepts are left out of the manifest when they fail,
    and are tried again in the next run. With `verify`, the files of finished units are compared
    with their records, and units with damaged files are made again in both stages. Raises
    ValueError if the folder holds a dataset with other settings, or if another command is using it.
    """
    with locked(stage.out, engine):
        work = begin_images(stage, engine, limit=limit, verify=verify)
        result = do_images(
            stage, engine, work, workers=workers, skip_failed=skip_failed, watch=watch
        )
        return finish_stage(result, "images", work.units, work.known)


@dataclass
class ImageWork:
    """The first stage of one command, before its units are done."""

    finished: FinishedUnits
    latents: FinishedUnits
    """The units of the second stage, which are read when they are needed first."""
    units: list[str]
    """The ids of all units of the dataset, including those of other ranks."""
    mine: list[str]
    """The ids of the units that this command is responsible for."""
    todo: list[Unit]
    """The units among them that are not done."""

    @property
    def known(self) -> dict[Stage, FinishedUnits]:
        """The records that have been read, by stage."""
        latents: dict[Stage, FinishedUnits] = {"latents": self.latents}
        return {"images": self.finished, **(latents if self.latents.files else {})}


def begin_images(
    stage: ImageStage, engine: Engine, *, limit: int | None, verify: bool
) -> ImageWork:
    """Finds out what is to be done, and prepares the folder for it."""
    ledger = Ledger(stage.out, "images")
    ledger.begin(stage.identity(), notes=stage.notes())
    units = stage.source.units(limit=limit)
    write_unit_list(stage.out, [unit.id for unit in units])
    shared = engine.share(units)
    mine = [unit.id for unit in shared]
    if verify:
        quarantine_damaged(stage.out, mine)
    finished = finished_units(ledger, mine)
    clean(finished, mine)
    for unit in ledger.skipped().keys() & set(mine):
        ledger.unskip(unit)
    latents = FinishedUnits(Ledger(stage.out, "latents"))

    def is_done(unit: Unit) -> bool:
        record = finished.done(unit.id)
        if record is None:
            return finished.lacks_images(unit.id) and is_spent(unit.id, finished, latents)
        return not (stage.retry and any(map(can_heal, record.counts)))

    todo = [unit for unit in shared if not is_done(unit)]
    withdraw(finished, [unit.id for unit in todo])
    return ImageWork(finished, latents, [unit.id for unit in units], mine, todo)


def do_images(
    stage: ImageStage,
    engine: Engine,
    work: ImageWork,
    *,
    workers: int,
    skip_failed: bool,
    watch: WatchFn,
    halt: Callable[[], str] = str,
) -> StageResult:
    """Does the units. `halt` returns why they are not to be continued, or an empty string; it is
    asked after each unit."""
    ledger = work.finished.ledger
    result = _run(
        stage,
        ledger,
        engine,
        work.todo,
        total=len(work.mine),
        workers=workers,
        watch=watch,
        last=dataclasses.replace(stage, doubt=False),
        pause=min(PAUSE, 3600 * stage.outage_hours),
        halt=halt,
    )
    result = dataclasses.replace(result, ids=tuple(work.units))
    return _skip(result, ledger) if skip_failed else result


def is_spent(unit: str, images: FinishedUnits, latents: FinishedUnits) -> bool:
    """Returns whether a unit's images were deleted after its latents were made.

    A damaged shard that was quarantined does not count as deleted: it is made again. The records of
    `latents` are read when they are needed first.
    """
    if not images.lacks_images(unit):
        return False
    if not latents.files:
        latents.refresh(images.records)
        latents.list_files()
    return latents.done(unit, source=images.source(unit)) is not None


def can_skip(result: UnitResult) -> bool:
    """Returns whether a unit failed because of its own data, so that it would fail again.

    A full disk, a missing network and an unreachable server are not such failures.
    """
    if result.kind in OUTAGES or result.kind == DiskFull.__name__:
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
    last: Callable[[Any], UnitRecord] | None = None,
    pause: float = 0.0,
    halt: Callable[[], str] = str,
) -> StageResult:
    """Runs `fn` on the units of `todo`, and counts results and rows.

    `total` is the number of units that this command is responsible for. Units that an outage may
    have hit are run again with `last` at the end, after a `pause` in seconds. If `halt` returns a
    reason, the other units are not run.
    """
    started = time.monotonic()
    counts: Counter[str] = Counter()
    failed: list[UnitResult] = []
    postponed: dict[str, UnitResult] = {}
    fresh, offline, stopped = 0, 0, ""

    def progress() -> StageProgress:
        return StageProgress(
            stage=ledger.stage,
            units=total,
            done=total - len(todo) + fresh,
            failed=len(failed),
            rows=counts.total(),
            counts=dict(counts),
            seconds=time.monotonic() - started,
            fresh=fresh,
        )

    watch(progress(), None)
    rounds = in_two_rounds(engine, fn, last or fn, todo, workers=workers, pause=pause)
    with contextlib.closing(rounds) as results:
        for result, is_final in results:
            if not is_final:
                postponed[result.unit.id] = result
            elif postponed:
                postponed.pop(result.unit.id, None)
            if result.failed:
                failed += [result] if is_final else []
                offline = offline + 1 if result.kind == Offline.__name__ else 0
                is_over = result.kind in (DiskFull.__name__, LongOutage.__name__)
            else:
                fresh, offline, is_over = fresh + 1, 0, False
                counts.update(result.value.counts)
            watch(progress(), result)
            stopped = result.reason if is_over or offline == OFFLINE_LIMIT else halt()
            if stopped:
                break
    failed += postponed.values()  # the stage was stopped before their second attempt
    return StageResult(
        ledger.stage, total, total - len(todo) + fresh, failed=tuple(failed), stopped=stopped
    )


def _skip(stage_result: StageResult, ledger: Ledger) -> StageResult:
    """Marks the failed units that `can_skip` accepts as left out."""
    skipped = tuple(result for result in stage_result.failed if can_skip(result))
    for result in skipped:
        ledger.skip(result.unit.id, result.reason)
    failed = tuple(result for result in stage_result.failed if not can_skip(result))
    return dataclasses.replace(stage_result, failed=failed, skipped=skipped)


def finish_stage(
    result: StageResult,
    stage: Stage,
    units: Sequence[str],
    known: Mapping[Stage, FinishedUnits],
    *,
    skipped: Mapping[str, str] | None = None,
) -> StageResult:
    """Writes the manifest, if every unit of the dataset is done in `stage`."""
    root = known[stage].ledger.root
    result = dataclasses.replace(result, ids=tuple(units))
    try:
        manifest = write_manifest(root, units, stage, skipped=skipped, finished=known)
    except Unfinished as error:
        return dataclasses.replace(result, waiting=str(error))
    return dataclasses.replace(result, manifest=manifest)


# --- cleaning up the folder -------------------------------------------------------------------


def clean(finished: FinishedUnits, units: Sequence[str]) -> int:
    """Removes the files that killed workers left of these units, and returns their number."""
    ledger, mine = finished.ledger, set(units)
    folders = [f"units/{ledger.stage}", *STAGES[ledger.stage]]
    removed = 0
    for name in [*folders, PREVIEWS] if ledger.stage == "images" else folders:
        removed += sweep(ledger.root / name, lambda name: unit_of(name) in mine)
    for path in leftovers(finished, mine):
        path.unlink(missing_ok=True)
        del finished.files[path.parent.name][path.name]
        removed += 1
    return removed


def withdraw(finished: FinishedUnits, todo: Sequence[str]) -> None:
    """Removes the manifest if a unit that it may list is to be done again."""
    if not finished.records.keys().isdisjoint(todo):
        withdraw_manifest(finished.ledger.root)
