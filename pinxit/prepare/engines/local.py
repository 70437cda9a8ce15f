"""The engines of this machine: ``inline`` is this process, ``local`` is a pool of processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from pinxit import extensions
from pinxit.config import UsageError
from pinxit.prepare.engines.base import DIED, UnitResult, attempt, close
from pinxit.prepare.engines.handing_out import HandingOut


class InlineEngine:
    """Runs units in this process, in order."""

    name = "inline"

    def share(self, units: Sequence[Any]) -> list[Any]:
        """Returns all units."""
        return list(units)

    def map(
        self, fn: Callable[[Any], Any], units: Sequence[Any], *, workers: int = 1
    ) -> Generator[UnitResult, None, None]:
        """Runs the units one after another; `workers` has no effect."""
        try:
            for unit in units:
                yield attempt(fn, unit)
        finally:
            close(fn)


def _serve(pipe: Connection) -> None:
    """Runs a worker: receives the function, then units until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent decides
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)  # the parent is dead, so the result is lost

    threading.Thread(target=watch, name="pinxit-parent-watch", daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        extensions.load()
        fn = pickle.loads(pipe.recv_bytes())
        try:
            while True:
                pipe.send(attempt(fn, pipe.recv()))
        finally:
            close(fn)


class _Worker:
    """One process, and the unit that it is working on."""

    def __init__(self, fn: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # Not a daemon, because a daemon may not start processes, and the function may.
        self.process = context.Process(target=_serve, args=(theirs,), name="pinxit-worker")
        self.process.start()
        theirs.close()
        self.unit: Any = None
        self.started = 0.0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send_bytes(fn)  # if the worker died meanwhile, `result` notices

    def give(self, unit: Any) -> None:
        """Sends a unit to the process."""
        self.unit, self.started = unit, time.perf_counter()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(unit)

    def result(self) -> UnitResult | None:
        """Receives the unit's result. Returns None if the process died."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError, OSError):
            return None

    def lost(self, reason: str) -> UnitResult:
        """Returns the failed result of the current unit, whose worker died."""
        seconds = time.perf_counter() - self.started
        return UnitResult(self.unit, kind=DIED, reason=reason, seconds=seconds)

    def end(self, *, kill: bool) -> int | None:
        """Ends the process, at once if `kill`, else after its unit. Returns its exit code."""
        self.pipe.close()
        if kill:
            self.process.kill()
        self.process.join(10)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        code = self.process.exitcode
        self.process.close()
        return code


class LocalEngine:
    """Runs units in spawned processes of this machine, and replaces those that die."""

    name = "local"

    def __init__(self, *, attempts: int = 2) -> None:
        """Sets how many processes may die on a unit before it fails."""
        self.attempts = attempts

    def share(self, units: Sequence[Any]) -> list[Any]:
        """Returns all units."""
        return list(units)

    def map(
        self, fn: Callable[[Any], Any], units: Sequence[Any], *, workers: int = 1
    ) -> Generator[UnitResult, None, None]:
        """Implements `Engine.map`."""
        if workers < 1:
            raise UsageError("workers", workers, problem="too small", valid="at least 1")
        pickled = pickle.dumps(fn)
        waiting = HandingOut(units)
        busy: dict[Connection, tuple[_Worker, int]] = {}
        idle: list[_Worker] = []
        try:
            while waiting or busy:
                while waiting and len(busy) < workers:
                    worker = idle.pop() if idle else _Worker(pickled)
                    unit, count = waiting.next(worker)
                    worker.give(unit)
                    busy[worker.pipe] = worker, count
                for pipe in wait(list(busy)):
                    assert isinstance(pipe, Connection)
                    worker, count = busy.pop(pipe)
                    result = worker.result()
                    if result is None:
                        waiting.leave(worker)
                        code = worker.end(kill=False)
                        result = worker.lost(f"the worker died ({_exit(code)})")
                        if count < self.attempts:
                            waiting.again(result.unit, count + 1)
                            continue
                    else:
                        idle.append(worker)
                    yield result
        finally:
            for worker in idle:
                worker.end(kill=False)
            for worker, _ in busy.values():
                worker.end(kill=True)


def _exit(code: int | None) -> str:
    """Describes an exit code, by the signal's name if the process was killed."""
    if code is None or code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
