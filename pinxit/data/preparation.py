"""A whole preparation: both stages, over all units, on any engine, as often as it takes.

Run again, it does what is left. A unit that fails is named with its reason and the others go on;
a full disk stops the run at once. When every unit is done, the manifest is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinxit.data.durable import DiskFull, sweep
from pinxit.data.engines import Engine, RankEngine, UnitResult
from pinxit.data.manifest import (
    MANIFEST,
    STAGES,
    Ledger,
    Manifest,
    Stage,
    Unfinished,
    UnitRecord,
    gather,
    unit_of,
)
from pinxit.data.prepare import ImageStage, Offline
from pinxit.data.prepare_latents import LatentStage
from pinxit.data.previews import FOLDER as PREVIEWS
from pinxit.data.schema import Unit, can_heal


@dataclass(frozen=True)
class Progress:
    """How far a stage is."""

    stage: str
    """A `manifest.Stage`, or another part of a long job."""
    units: int
    """Units that this command sees to."""
    done: int
    """Of them, those that are done."""
    failed: int
    rows: int
    """Rows done since the start of this command."""
    counts: Mapping[str, int]
    """These rows by status."""
    seconds: float
    """Since the start of this command."""
    fresh: int
    """Units done since then."""

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def kept_rate(self) -> float:
        """Kept rows per second."""
        return self.counts.get("ok", 0) / self.seconds if self.seconds else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds until the stage is done, at the rate so far; None before the first unit."""
        left = self.units - self.done - self.failed
        return self.seconds / self.fresh * left if self.fresh else None


@dataclass(frozen=True)
class Ended:
    """How a stage ended."""

    stage: Stage
    units: int
    done: int
    failed: tuple[UnitResult, ...] = ()
    stopped: str = ""
    """Why it stopped before its end."""
    manifest: Manifest | None = None
    """Of the whole dataset, if every unit of it is done."""
    waiting: str = ""
    """What is still to be done elsewhere before there is a manifest."""

    @property
    def exit_code(self) -> int:
        """0 if nothing failed."""
        return 1 if self.failed or self.stopped else 0


Watch = Callable[[Progress, UnitResult | None], None]
"""Told of the state at the start, and of every unit as it ends."""
OFFLINE_LIMIT = 3
"""So many units in a row that reach no host stop the stage."""


def no_watch(progress: Progress, result: UnitResult | None) -> None:
    """Nobody watches."""


def run_images(
    stage: ImageStage,
    engine: Engine,
    *,
    workers: int = 1,
    limit: int | None = None,
    watch: Watch = no_watch,
) -> Ended:
    """The first stage over the source's units (the first `limit`).

    ValueError if the folder holds a dataset of another identity, or another command is at work.
    """
    ledger = Ledger(stage.out, "images")
    with locked(stage.out, engine):
        ledger.begin(stage.identity(), notes=stage.notes())
        units = stage.source.units(limit=limit)
        mine = engine.share(units)
        clean(ledger, [unit.id for unit in mine])

        def is_done(unit: Unit) -> bool:
            record = ledger.done(unit.id)
            heals = stage.retry and record is not None and any(map(can_heal, record.counts))
            return record is not None and not heals

        todo = [unit for unit in mine if not is_done(unit)]
        _withdraw(ledger, [unit.id for unit in todo])
        ended = _run(stage, ledger, engine, todo, total=len(mine), workers=workers, watch=watch)
        return _finish(ended, ledger, [unit.id for unit in units])


def run_latents(
    stage: LatentStage,
    engine: Engine,
    *,
    identity: Mapping[str, Any],
    workers: int = 1,
    watch: Watch = no_watch,
) -> Ended:
    """The second stage over all units of the first. `identity` tells the encoders apart: their
    names and fingerprints, and what captions went through.

    `Unfinished` before the first stage is done; ValueError as for `run_images`.
    """
    images = stage.images or stage.out
    first = Manifest.read(images)
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
        return _finish(ended, ledger, first.units, counts=first.counts)


def _run(
    fn: Callable[[Any], UnitRecord],
    ledger: Ledger,
    engine: Engine,
    todo: Sequence[Any],
    *,
    total: int,
    workers: int,
    watch: Watch,
) -> Ended:
    """Does the units, and counts."""
    begun = time.monotonic()
    counts: Counter[str] = Counter()
    failed: list[UnitResult] = []
    fresh, offline, stopped = 0, 0, ""

    def progress() -> Progress:
        return Progress(
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
    return Ended(ledger.stage, total, total - len(todo) + fresh, tuple(failed), stopped)


def _finish(
    ended: Ended, ledger: Ledger, units: Sequence[str], *, counts: Mapping[str, int] | None = None
) -> Ended:
    """Writes the manifest, if every unit of every worker is done."""
    try:
        manifest = gather(ledger.root, units, ledger.stage, counts=counts)
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


@contextlib.contextmanager
def locked(root: Path, engine: Engine) -> Iterator[None]:
    """Keeps other commands out of the folder, other ranks excepted. Ends with the process."""
    root.mkdir(parents=True, exist_ok=True)
    share = f"-{engine.rank}-of-{engine.world}" if isinstance(engine, RankEngine) else ""
    with (root / f".lock{share}").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{root}: another preparation is at work there") from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # a file system without locks
                raise
        yield
