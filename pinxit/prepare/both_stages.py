"""Runs the second stage beside the first, in one command or in another one on another machine.

Units are encoded as their images are finished. A unit that fails holds back only itself. The
manifest is written by the command that finds all units done in both stages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinxit.data.prepared.manifest import Stage
from pinxit.files import DiskFull
from pinxit.prepare.encoding import Encoding, MakeStage
from pinxit.prepare.engines.base import Engine, UnitResult
from pinxit.prepare.engines.ranks import RankEngine
from pinxit.prepare.finished_units import FinishedUnits
from pinxit.prepare.folder_lock import is_locked, locked
from pinxit.prepare.images import ImageStage
from pinxit.prepare.latents import LatentStage
from pinxit.prepare.ledger import Ledger
from pinxit.prepare.progress import StageProgress, WatchFn, no_watch
from pinxit.prepare.stages import (
    StageResult,
    begin_images,
    clean,
    do_images,
    finish_stage,
    withdraw,
)
from pinxit.prepare.unit_list import read_unit_list
from pinxit.prepare.verify_units import quarantine_damaged

POLL = 2.0
"""Seconds between two looks for images that another command has finished."""
PATIENCE = 600.0
"""Seconds without any command that prepares images after which they are not waited for."""


@dataclass(frozen=True)
class EncodeSettings:
    """The settings with which the second stage is run."""

    make: MakeStage
    engine: Engine
    workers: int = 1


def run_both(
    stage: ImageStage,
    engine: Engine,
    encode: EncodeSettings,
    *,
    workers: int = 1,
    limit: int | None = None,
    skip_failed: bool = False,
    verify: bool = False,
    watch: WatchFn = no_watch,
) -> list[StageResult]:
    """Runs both stages at the same time, and returns their results.

    The second one has no result if no image was kept, since no encoder is needed then. The other
    arguments are those of `run_images`. Raises `UsageError` as it does, and if the latents in the
    folder were made by other encoders.
    """
    with (
        locked(stage.out, engine),
        locked(stage.out, engine, "latents"),
        _connected(engine, encode.engine, workers + encode.workers),
    ):
        work = begin_images(stage, engine, limit=limit, verify=verify)
        offers = _Offers(stage.out, encode, work.mine, work.finished, work.latents, watch)
        try:
            todo = {unit.id for unit in work.todo}
            offers.add(unit for unit in work.mine if unit not in todo)

            def watched(progress: StageProgress, result: UnitResult | None) -> None:
                if result is not None and not result.failed:
                    work.finished.add(result.value)
                    offers.add([result.unit.id])
                watch(progress, result)

            images = do_images(
                stage,
                engine,
                work,
                workers=workers,
                skip_failed=skip_failed,
                watch=watched,
                halt=offers.encoding.check,
            )
            if any(failure.kind == DiskFull.__name__ for failure in images.failed):
                offers.encoding.stop()
            else:
                offers.encoding.finish()
        except BaseException:
            offers.encoding.stop()
            raise
        known = work.known
        if not offers.encoding.has_begun:
            return [finish_stage(images, "images", work.units, known)]
        latents = finish_stage(offers.result(), "latents", work.units, known)
        if latents.manifest is None:
            images = finish_stage(images, "images", work.units, known)
        return [images, latents]


def run_latents(
    stage: LatentStage,
    engine: Engine,
    *,
    identity: Mapping[str, Any],
    workers: int = 1,
    verify: bool = False,
    watch: WatchFn = no_watch,
) -> StageResult:
    """Runs the second stage over the units whose images are finished.

    `identity` identifies the encoders: their names, their fingerprints and the caption cleaning.
    """
    encode = EncodeSettings(lambda: (stage, identity), engine, workers)
    return encode_finished(stage.out, encode, verify=verify, watch=watch)


def encode_finished(
    root: Path,
    encode: EncodeSettings,
    *,
    follow: bool = False,
    verify: bool = False,
    watch: WatchFn = no_watch,
    say: Callable[[str], object] = str,
    poll: float = POLL,
    patience: float = PATIENCE,
) -> StageResult:
    """Encodes the units whose images another command has finished, and says how many are not there.

    With `follow`, it waits for these as well, as long as a command prepares images: it gives up
    when there was none for `patience` seconds. Looks for new images every `poll` seconds. Raises
    `Unfinished` if the first stage has not begun, and `UsageError` as `run_both` does.
    """
    with locked(root, encode.engine, "latents"):
        units, skipped = read_unit_list(root)
        mine = encode.engine.share(units)
        if verify:
            quarantine_damaged(root, mine)
        images = FinishedUnits(Ledger(root, "images"))
        latents = FinishedUnits(Ledger(root, "latents"))
        offers = _Offers(root, encode, mine, images, latents, watch)
        try:
            seen = time.monotonic()
            is_first = True
            while not offers.encoding.check():
                images.refresh(mine)
                offers.add(unit for unit in mine if unit in images.records)
                missing = len(offers.missing - images.ledger.skipped().keys())
                if not missing:
                    break
                if is_first:
                    more = "" if follow else "; --follow 1 waits for them"
                    say(f"the images of {missing:,} of {len(mine):,} units are not there yet{more}")
                is_first = False
                seen = seen if is_locked(root, "images") is False else time.monotonic()
                if not follow or time.monotonic() - seen > patience:
                    break
                time.sleep(poll)
            if offers.count:
                offers.encoding.begin()
            offers.encoding.finish()
        except BaseException:
            offers.encoding.stop()
            raise
        known: dict[Stage, FinishedUnits] = {"images": images, "latents": latents}
        return finish_stage(offers.result(), "latents", units, known, skipped=skipped)


class _Offers:
    """Offers the units whose images are finished to an `Encoding`, each unit once."""

    def __init__(
        self,
        root: Path,
        encode: EncodeSettings,
        mine: list[str],
        images: FinishedUnits,
        latents: FinishedUnits,
        watch: WatchFn,
    ) -> None:
        self.images, self.latents = images, latents
        latents.refresh(mine)
        latents.list_files()
        clean(latents, mine)
        self.missing = set(mine)
        """The units whose images are not finished, as far as is known."""
        self.count = 0
        """Number of units that were offered."""
        rank = encode.engine if isinstance(encode.engine, RankEngine) else None
        self.encoding = Encoding(
            latents.ledger,
            encode.engine,
            encode.make,
            name=f"{rank.rank}-of-{rank.world}" if rank else "all",
            total=len(mine),
            workers=encode.workers,
            watch=watch,
        )

    def add(self, units: Any) -> None:
        """Adds these units to the queue, unless they are encoded."""
        is_needed = False
        for unit in units:
            if unit not in self.missing:
                continue
            self.missing.discard(unit)
            source = self.images.source(unit)
            if self.latents.done(unit, source=source) is not None:
                self.encoding.done += 1
            else:
                withdraw(self.latents, [unit])
                self.encoding.offer(unit)
                self.count += 1
            is_needed = is_needed or bool(source)
        if is_needed:
            self.encoding.begin()

    def result(self) -> StageResult:
        """Returns the result of the stage, without a manifest."""
        encoding = self.encoding
        done = encoding.done + encoding.fresh
        return StageResult(
            "latents", encoding.total, done, tuple(encoding.failed), stopped=encoding.stopped
        )


def _connected(engine: Engine, other: Engine, workers: int) -> AbstractContextManager[object]:
    """Connects to a cluster for as long as two engines use it at the same time."""
    connected = getattr(engine, "connected", None)
    if connected is None or getattr(other, "connected", None) is None:
        return nullcontext()
    return connected(workers)
