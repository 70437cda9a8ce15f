"""Encodes units while their images are still being prepared, in a thread beside that work.

The thread runs the second stage on an engine: in this process, which holds the devices, in
processes of this machine, or in actors of a Ray cluster. Units are offered to it as their images
are finished, in any order. The encoders are loaded when the first unit with images is offered.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from pinxit.files import DiskFull
from pinxit.prepare.engines.base import Engine, UnitResult, close
from pinxit.prepare.latents import EncodingStopped, LatentStage
from pinxit.prepare.ledger import Ledger, UnitRecord
from pinxit.prepare.progress import StageProgress, WatchFn
from pinxit.prepare.unit_queue import POLL, UnitQueue

MakeStage = Callable[[], tuple[LatentStage, Mapping[str, Any]]]
"""Loads the encoders, and returns the stage and the identity of the encoders."""
PATIENCE = 60.0
"""Seconds for which a stopped encoder may go on with its batch, before it is left alone."""

DELAY = 90.0
"""Seconds after which a file that another machine has written is seen in a folder that they share.
Network file systems remember the names in a folder for up to a minute."""


@dataclass
class NextUnit:
    """The second stage as an engine calls it, with a number in the queue in place of a unit."""

    stage: LatentStage
    queue: UnitQueue

    def __call__(self, number: int) -> UnitRecord | None:
        """Encodes the unit with this number. Returns None if there is none any more."""
        unit = self.queue.wait(number)
        if unit is None:
            return None
        ledger, end = Ledger(self.stage.out, "images"), time.monotonic() + DELAY
        while ledger.read(unit) is None and time.monotonic() < end:
            time.sleep(POLL)
        return self.stage(unit, is_stopped=self.queue.is_stopped)

    def close(self) -> None:
        close(self.stage)


class Encoding:
    """The second stage of the units of one command, in a thread of its own."""

    def __init__(
        self,
        ledger: Ledger,
        engine: Engine,
        make: MakeStage,
        *,
        name: str,
        total: int,
        workers: int,
        watch: WatchFn,
    ) -> None:
        """Prepares the thread. `ledger` is that of the latents, and `total` the number of units of
        this command. `name` is different for commands that share the folder."""
        self.ledger, self.engine, self.workers = ledger, engine, workers
        self.total = total
        self.done = 0
        """Number of units that were encoded before."""
        self.fresh = 0
        """Number of units that were encoded now."""
        self.failed: list[UnitResult] = []
        self.stopped = ""
        """The reason why encoding stopped early; empty if it did not."""
        self.has_begun = False
        """Whether a unit with images was offered, so that the encoders are needed."""
        self._make, self._watch = make, watch
        self._counts: Counter[str] = Counter()
        self._started = time.monotonic()
        self._error: BaseException | None = None
        folder = ledger.root / "units" / ledger.stage
        folder.mkdir(parents=True, exist_ok=True)
        self._queue = UnitQueue(folder / f".queue-{name}")
        self._queue.create()
        self._offered: list[str] = []
        self._is_over = threading.Event()
        """Set when no unit will be offered any more."""
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pinxit-encoding", daemon=True)

    def begin(self) -> None:
        """Loads the encoders. Without this, no unit is encoded."""
        if not self.has_begun:
            self.has_begun, self._started = True, time.monotonic()
            self._watch(self.progress(), None)
            self._thread.start()

    def offer(self, unit: str) -> None:
        """Adds a unit whose images are finished, and whose latents are not there."""
        self._offered.append(unit)
        self._queue.put(unit)

    def check(self) -> str:
        """Returns why encoding has stopped, or "". Raises the error with which it ended."""
        if self._error is not None:
            raise self._error
        return self.stopped

    def finish(self) -> None:
        """Waits until the offered units are encoded. Raises the error with which that ended."""
        self._is_over.set()
        self._queue.end()
        if self.has_begun:
            self._thread.join()
            self._watch(self.progress(), None)
        self._queue.remove()
        self.check()

    def stop(self) -> None:
        """Ends the encoding. The units that it has begun are not finished."""
        self._is_stopping.set()
        self._queue.remove()  # workers take this for a stop, even if the disk is full
        if self.has_begun:
            self._thread.join(PATIENCE)

    def progress(self) -> StageProgress:
        """Returns the progress of the stage."""
        return StageProgress(
            stage=self.ledger.stage,
            units=self.total,
            done=self.done + self.fresh,
            failed=len(self.failed),
            rows=self._counts.total(),
            counts=dict(self._counts),
            seconds=time.monotonic() - self._started,
            fresh=self.fresh,
        )

    def _run(self) -> None:
        """Loads the encoders and encodes the offered units, in the thread."""
        try:
            stage, identity = self._make()
            images = Ledger(self.ledger.root, "images").identity() or {}
            self.ledger.begin({**images, "encoders": dict(identity)})
            if self._queue_copy().wait(0) is None:
                return
            fn = NextUnit(stage, self._queue_copy())
            with closing(self.engine.map(fn, range(self.total), workers=self.workers)) as results:
                for result in results:
                    self._count(result)
                    ended = self.fresh + len(self.failed)
                    is_last = self._is_over.is_set() and ended == len(self._offered)
                    if self.stopped or self._is_stopping.is_set() or is_last:
                        return
        except BaseException as error:  # raised again where the thread is waited for
            self._error = error

    def _queue_copy(self) -> UnitQueue:
        """Returns a reader of the queue, since this object is its writer."""
        return UnitQueue(self._queue.path)

    def _count(self, result: UnitResult) -> None:
        """Counts the result of one number."""
        if result.kind == EncodingStopped.__name__ or (not result.failed and result.value is None):
            return
        result = replace(result, unit=self._offered[result.unit])
        if result.failed:
            self.failed.append(result)
            if result.kind == DiskFull.__name__:
                self.stopped = result.reason
        else:
            self.fresh += 1
            self._counts.update(result.value.counts)
        self._watch(self.progress(), result)
