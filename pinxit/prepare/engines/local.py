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
from collections.abc import Callable, Generator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from pinxit import extensions
from pinxit.config import UsageError
from pinxit.prepare.engines.base import DIED, TIMEOUT, UnitResult, attempt, close

READY = "ready"
"""What a worker says first: its start, with all imports, is no part of a unit's time."""


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
        pipe.send(READY)
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
        self.ready = False
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send_bytes(fn)  # a worker that died meanwhile is found by `result`

    def give(self, unit: Any) -> None:
        """Starts on a unit."""
        self.unit, self.begun = unit, time.perf_counter()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(unit)

    def result(self) -> UnitResult | str | None:
        """What it sent: a result, or that it is `READY`; None if it died instead."""
        try:
            sent = self.pipe.recv()
        except (EOFError, ConnectionResetError, OSError):
            return None
        if sent == READY:
            self.ready, self.begun = True, time.perf_counter()
        return sent

    def lost(self, kind: str, why: str) -> UnitResult:
        """The result of a unit that the worker will never send."""
        return UnitResult(
            self.unit, kind=kind, reason=why, seconds=time.perf_counter() - self.begun
        )

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

    def __init__(self, *, attempts: int = 2, timeout: float | None = None) -> None:
        """A unit whose process dies is given to `attempts` processes; `timeout` is in seconds."""
        self.attempts = attempts
        self.timeout = timeout

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
                for pipe in self._ready(busy):
                    worker, count = busy[pipe]
                    result = worker.result() if pipe.poll() else worker.lost(TIMEOUT, self._late())
                    if isinstance(result, str):
                        continue
                    del busy[pipe]
                    if result is None:
                        code = worker.end(kill=False)
                        result = worker.lost(DIED, f"the worker died ({_exit(code)})")
                        if count < self.attempts:
                            waiting.append((result.unit, count + 1))
                            continue
                    elif result.kind == TIMEOUT:
                        worker.end(kill=True)
                    else:
                        idle.append(worker)
                    yield result
        finally:
            for worker in idle:
                worker.end(kill=False)
            for worker, _ in busy.values():
                worker.end(kill=True)

    def _late(self) -> str:
        return f"the unit took longer than {self.timeout:g} s"

    def _ready(self, busy: Mapping[Connection, tuple[_Worker, int]]) -> list[Connection]:
        """The pipes with a result, or an end, and those whose time is over."""
        ready = wait(list(busy), timeout=None if self.timeout is None else 0.2)
        pipes = [pipe for pipe in ready if isinstance(pipe, Connection)]
        if self.timeout is None:
            return pipes
        now = time.perf_counter()
        late = [p for p, (w, _) in busy.items() if w.ready and now - w.begun > self.timeout]
        return [*pipes, *(pipe for pipe in late if pipe not in pipes)]


def _exit(code: int | None) -> str:
    """An exit code in words."""
    if code is None or code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
