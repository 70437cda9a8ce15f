"""The engines of this machine: ``inline`` is this process, ``local`` is a pool of processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any

from pinxit import extensions
from pinxit.config import UsageError
from pinxit.prepare.engines.assignment import Assignment
from pinxit.prepare.engines.base import UnitResult, close, open_units
from pinxit.prepare.engines.unit_threads import Message, UnitThreads


class InlineEngine:
    """Runs units in this process."""

    name = "inline"

    def share(self, units: Sequence[Any]) -> list[Any]:
        """Returns all units."""
        return list(units)

    def map(
        self, fn: Callable[..., Any], units: Sequence[Any], *, workers: int = 1
    ) -> Generator[UnitResult, None, None]:
        """Runs the units in order; `workers` has no effect. If `fn` is `Overlapping`, the next one
        begins in a thread of its own when the last one is drained."""
        messages: SimpleQueue[Message] = SimpleQueue()
        threads = UnitThreads(fn, messages.put)
        assignment = Assignment(
            units, lambda: threads, workers=1, open_units=open_units(fn), attempts=1
        )
        try:
            while not assignment.is_over:
                for _, number, unit in assignment.due():
                    threads.begin(number, unit)
                number, result = messages.get()
                if result is None:
                    assignment.drained(threads, number)
                else:
                    assignment.finished(threads, number)
                    yield result
        finally:
            close(fn)
            threads.join()


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
        sending = threading.Lock()

        def send(message: Message) -> None:
            with sending:
                try:
                    pipe.send(message)
                except OSError:  # the parent is ending
                    return
                except Exception:  # a result that cannot be sent would be waited for forever
                    traceback.print_exc()
                    os._exit(1)

        threads = UnitThreads(fn, send)
        try:
            while True:
                threads.begin(*pipe.recv())
        finally:
            close(fn)


class _Worker:
    """A process that does units, and the pipe to it."""

    def __init__(self, fn: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # Not a daemon, because a daemon may not start processes, and the function may.
        self.process = context.Process(target=_serve, args=(theirs,), name="pinxit-worker")
        self.process.start()
        theirs.close()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send_bytes(fn)  # if the worker died meanwhile, `message` notices

    def give(self, number: int, unit: Any) -> None:
        """Sends a unit to the process."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send((number, unit))

    def message(self) -> Message | None:
        """Receives the next message. Returns None if the process died."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError, OSError):
            return None

    def end(self, *, kill: bool) -> int | None:
        """Ends the process, at once if `kill`, else when it is idle. Returns its exit code."""
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
        self, fn: Callable[..., Any], units: Sequence[Any], *, workers: int = 1
    ) -> Generator[UnitResult, None, None]:
        """Implements `Engine.map`."""
        if workers < 1:
            raise UsageError("workers", workers, problem="too small", valid="at least 1")
        pickled = pickle.dumps(fn)
        assignment = Assignment(
            units,
            lambda: _Worker(pickled),
            workers=workers,
            open_units=open_units(fn),
            attempts=self.attempts,
        )
        try:
            while not assignment.is_over:
                for worker, number, unit in assignment.due():
                    worker.give(number, unit)
                busy: dict[object, _Worker] = {w.pipe: w for w in assignment.busy}
                for pipe in wait([worker.pipe for worker in busy.values()]):
                    yield from self._received(busy[pipe], assignment)
        finally:
            for worker in assignment.idle:
                worker.end(kill=False)
            for worker in assignment.busy:
                worker.end(kill=True)

    def _received(
        self, worker: _Worker, assignment: Assignment[_Worker]
    ) -> Generator[UnitResult, None, None]:
        """Receives a message of a worker, or that it died, and yields the results of that."""
        message = worker.message()
        if message is None:
            reason = f"the worker died ({_exit(worker.end(kill=False))})"
            yield from assignment.lost(worker, reason)
            return
        number, result = message
        if result is None:
            assignment.drained(worker, number)
        else:
            assignment.finished(worker, number)
            yield result


def _exit(code: int | None) -> str:
    """Describes an exit code, by the signal's name if the process was killed."""
    if code is None or code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
