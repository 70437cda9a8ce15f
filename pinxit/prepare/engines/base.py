"""Engines: where units of work are done. The same function, the same units, the same results.

An engine maps a function over units in any order and survives what happens to single units: an
exception, or the death of the process that was at work, becomes a `UnitResult` with its reason, and
the others go on. What makes the outcome independent of the engine is the function: it depends on
its unit alone, and writes files that are whole or absent.

======== =================================================================================
``local`` processes of this machine, replaced when they die (the default)
``inline`` this process, one unit after another
``rank``  every world-th unit, done as by ``local``: static shares for Slurm or a pod's hosts
``ray``   actors of a Ray cluster, or of one started on this machine (extra ``ray``)
======== =================================================================================
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, runtime_checkable

from pinxit.config import UsageError, choice

DIED = "Died"
"""`UnitResult.kind` when the process at work ended."""
TIMEOUT = "Timeout"
"""`UnitResult.kind` when the unit took too long and its process was killed."""
READY = "ready"
"""What a worker says first: its start, with all imports, is no part of a unit's time."""


@dataclass(frozen=True)
class UnitResult:
    """One unit, done or failed."""

    unit: Any
    value: Any = None
    """What the function returned."""
    kind: str = ""
    """Empty if done; otherwise the exception's class, `DIED` or `TIMEOUT`."""
    reason: str = ""
    """One line: why it failed."""
    trace: str = ""
    """The exception's traceback."""
    os_error: bool = False
    """Whether the exception was an OSError: of the machine or the network, not of the unit."""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether there is no value."""
        return bool(self.kind)


@runtime_checkable
class Engine(Protocol):
    """Does units of work somewhere."""

    name: str

    def share(self, units: Sequence[Any]) -> list[Any]:
        """Of all units, those that this command is to see to; the same in every run."""
        ...

    def map(
        self, fn: Callable[[Any], Any], units: Sequence[Any], *, workers: int = 1
    ) -> Generator[UnitResult, None, None]:
        """Does all of `units`, `workers` at a time, and yields each as it ends, in any order.

        `fn` and units must pickle. Each worker keeps its own copy of `fn` for its whole life, so
        that what `fn` keeps (a pool, a compiled encoder) is made once; `fn.close()`, where there is
        one, is called at the end. Closing the iterator ends the workers.
        """
        ...


def attempt(fn: Callable[[Any], Any], unit: Any) -> UnitResult:
    """One unit, with its exception caught: a failure is a result."""
    begun = time.perf_counter()
    try:
        result = UnitResult(unit, value=fn(unit))
    except BaseException as error:  # handed on as a result, and the run goes on
        if not isinstance(error, Exception):
            raise
        said = str(error).strip().partition("\n")[0]
        result = UnitResult(
            unit,
            kind=type(error).__name__,
            reason=f"{type(error).__name__}: {said}" if said else type(error).__name__,
            trace=traceback.format_exc(),
            os_error=isinstance(error, OSError),
        )
    return replace(result, seconds=time.perf_counter() - begun)


def close(fn: Any) -> None:
    """Lets the function give back what it holds."""
    if callable(getattr(fn, "close", None)):
        fn.close()


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


# --- processes of this machine ----------------------------------------------------------------


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


# --- many machines ----------------------------------------------------------------------------


class RankEngine:
    """A static share of the units: those whose number leaves `rank` when divided by `world`."""

    name = "rank"

    def __init__(
        self, rank: int | None = None, world: int | None = None, *, inside: Engine | None = None
    ) -> None:
        """Without numbers, as Slurm says (``SLURM_PROCID``, ``SLURM_NTASKS``); the share is done
        by `inside`, by default a `LocalEngine`."""
        self.rank = _from_slurm("rank", rank, "SLURM_PROCID")
        self.world = _from_slurm("world", world, "SLURM_NTASKS")
        if not 0 <= self.rank < self.world:
            raise UsageError(
                "rank", self.rank, problem="impossible", valid=f"0 to {self.world - 1}"
            )
        self._engine = inside or LocalEngine()

    def share(self, units: Sequence[Any]) -> list[Any]:
        """Every `world`-th, from `rank` on."""
        return list(units[self.rank :: self.world])

    def map(
        self, fn: Callable[[Any], Any], units: Sequence[Any], *, workers: int = 1
    ) -> Generator[UnitResult, None, None]:
        """As `LocalEngine.map`, or that of the engine inside: give it a `share`."""
        return self._engine.map(fn, units, workers=workers)


def in_this_process(engine: Engine) -> Engine:
    """The same share, done here: what takes all of the machine's devices is to be in one process,
    and this one may hold them already. Not for Ray."""
    if isinstance(engine, RankEngine):
        return RankEngine(engine.rank, engine.world, inside=InlineEngine())
    return InlineEngine() if isinstance(engine, LocalEngine) else engine


def _from_slurm(name: str, value: int | None, variable: str) -> int:
    """The number given, or that of the environment."""
    if value is not None:
        return value
    text = os.environ.get(variable, "")
    if not text.isdigit():
        problem = f"absent, and {variable} is {text!r}" if text else f"absent, as is {variable}"
        raise UsageError(
            name, value, problem=problem, valid="a number from 0, given by the command"
        )
    return int(text)


ENGINES = ("local", "inline", "rank", "ray")


def get_engine(
    name: str = "local",
    *,
    address: str | None = None,
    rank: int | None = None,
    world: int | None = None,
) -> Engine:
    """An engine by name; `address` is for ``ray``, `rank` and `world` are for ``rank``."""
    choice("engine", name, ENGINES)
    if address is not None and name != "ray":
        raise UsageError("address", address, problem=f"of no use to engine {name!r}", valid="ray")
    if name != "rank" and not (rank is None and world is None):
        problem = f"of no use to engine {name!r}"
        raise UsageError("rank", rank if rank is not None else world, problem=problem, valid="rank")
    if name == "ray":
        from pinxit.prepare.engines.ray_cluster import RayEngine

        return RayEngine(address)
    if name == "rank":
        return RankEngine(rank, world)
    return InlineEngine() if name == "inline" else LocalEngine()
