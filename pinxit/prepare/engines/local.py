"""Engines of this machine: ``inline`` is this process, ``local`` is a pool of processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from pinxit import extensions
from pinxit.config import UsageError
from pinxit.prepare.engines.base import DIED, UnitResult, attempt, close


class InlineEngine:
    """In this process, in order."""

    name = "inline"

    def share(self, units: Sequence[Any]) -> list[Any]:
        """All."""
        return list(units)

    def map(
        self, fn: Callable[[Any], Any], units: Sequence[Any], *, workers: int = 1
    ) -> Generator[UnitResult, None, None]:
        """One after another; `workers` is not used."""
        try:
            for unit in units:
                yield attempt(fn, unit)
        finally:
            close(fn)


def _serve(pipe: Connection) -> None:
    """A worker's life: the function first, then units until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)  # nobody is left to take the result

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
    """One process, and the unit it is at."""

    def __init__(self, fn: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # Not a daemon: the function may have processes of its own.
        self.process = context.Process(target=_serve, args=(theirs,), name="pinxit-worker")
        self.process.start()
        theirs.close()
        self.unit: Any = None
        self.begun = 0.0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send_bytes(fn)  # a worker that died meanwhile is found by `result`

    def give(self, unit: Any) -> None:
        """Starts on a unit."""
        self.unit, self.begun = unit, time.perf_counter()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(unit)

    def result(self) -> UnitResult | None:
        """Returns the result that it sent; None if it died instead."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError, OSError):
            return None

    def lost(self, why: str) -> UnitResult:
        """Returns the result of a unit whose worker died."""
        seconds = time.perf_counter() - self.begun
        return UnitResult(self.unit, kind=DIED, reason=why, seconds=seconds)

    def end(self, *, kill: bool) -> int | None:
        """Ends the process, at once if `kill`, else after what it is at; returns its exit code."""
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
    """Processes of this machine, started afresh (spawn), each replaced when it dies."""

    name = "local"

    def __init__(self, *, attempts: int = 2) -> None:
        """A unit whose process dies is given to `attempts` processes."""
        self.attempts = attempts

    def share(self, units: Sequence[Any]) -> list[Any]:
        """All."""
        return list(units)

    def map(
        self, fn: Callable[[Any], Any], units: Sequence[Any], *, workers: int = 1
    ) -> Generator[UnitResult, None, None]:
        """See `Engine.map`."""
        if workers < 1:
            raise UsageError("workers", workers, problem="too small", valid="at least 1")
        pickled = pickle.dumps(fn)
        waiting = deque((unit, 1) for unit in units)
        busy: dict[Connection, tuple[_Worker, int]] = {}
        idle: list[_Worker] = []
        try:
            while waiting or busy:
                while waiting and len(busy) < workers:
                    unit, count = waiting.popleft()
                    worker = idle.pop() if idle else _Worker(pickled)
                    worker.give(unit)
                    busy[worker.pipe] = worker, count
                for pipe in wait(list(busy)):
                    assert isinstance(pipe, Connection)
                    worker, count = busy.pop(pipe)
                    result = worker.result()
                    if result is None:
                        code = worker.end(kill=False)
                        result = worker.lost(f"the worker died ({_exit(code)})")
                        if count < self.attempts:
                            waiting.append((result.unit, count + 1))
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
    """An exit code in words."""
    if code is None or code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
