"""The engine ``ray``, which runs units of work on a Ray cluster.

Each worker is an actor with its own copy of the function, as in the other engines. All machines
must share the output folder and have Pinxit installed. Without an address, a cluster on this
machine alone is started, without Ray's usage reports and dashboard, and stopped after the map.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

from pinxit import extensions
from pinxit.config import UsageError
from pinxit.open_files import raise_limit
from pinxit.prepare.engines.assignment import Assignment
from pinxit.prepare.engines.base import UnitResult, close, open_units
from pinxit.prepare.engines.unit_threads import Message, UnitThreads

CALLS = 3
"""Number of calls that an actor serves at the same time: one that waits for a message, and others
that begin units."""


class _Actor:
    """A worker, which runs in a process that Ray started."""

    def __init__(self, fn: bytes, paths: str) -> None:
        os.environ[extensions.VARIABLE] = paths
        extensions.load()
        raise_limit()  # Ray's workers do not inherit the limit of this command
        self.fn = pickle.loads(fn)
        self.messages: SimpleQueue[Message] = SimpleQueue()
        self.threads = UnitThreads(self.fn, self.messages.put)

    def begin(self, number: int, unit: Any) -> None:
        """Begins a unit."""
        self.threads.begin(number, unit)

    def message(self) -> Message:
        """Waits for the next message of a unit, and returns it."""
        return self.messages.get()

    def close(self) -> None:
        """Calls the function's `close`, if it exists."""
        close(self.fn)


class RayEngine:
    """Runs units in actors on a Ray cluster, and replaces those that die."""

    name = "ray"

    def __init__(
        self, address: str | None = None, *, cpus: float = 1, attempts: int = 2, **options: Any
    ) -> None:
        """Sets the cluster's address and the resources of each actor.

        `cpus` and `options` (``num_gpus``, ``resources``) are what each actor requests from Ray.
        """
        self.address = address
        self.options = {"num_cpus": cpus, **options}
        self.attempts = attempts

    def share(self, units: Sequence[Any]) -> list[Any]:
        """Returns all units."""
        return list(units)

    def map(
        self, fn: Callable[..., Any], units: Sequence[Any], *, workers: int = 1
    ) -> Generator[UnitResult, None, None]:
        """Implements `Engine.map`."""
        ray, started = self._connect(workers)
        # one call waits for the next message while others begin units
        actor = ray.remote(_Actor).options(max_concurrency=CALLS, **self.options)
        function = ray.put(ray.cloudpickle.dumps(fn))
        paths = os.environ.get(extensions.VARIABLE, "")
        assignment = Assignment(
            units,
            lambda: actor.remote(function, paths),
            workers=workers,
            open_units=open_units(fn),
            attempts=self.attempts,
        )
        calls: dict[Any, Any] = {}
        try:
            while not assignment.is_over:
                for worker, number, unit in assignment.due():
                    worker.begin.remote(number, unit)
                awaited = set(calls.values())
                calls |= {w.message.remote(): w for w in assignment.busy if w not in awaited}
                for ready in ray.wait(list(calls), num_returns=1)[0]:
                    yield from _received(ray, ready, calls.pop(ready), assignment)
            ray.get([worker.close.remote() for worker in assignment.idle])
        finally:
            for worker in [*assignment.idle, *assignment.busy]:
                ray.kill(worker)
            if started:
                ray.shutdown()

    @contextlib.contextmanager
    def connected(self, workers: int) -> Iterator[None]:
        """Keeps the connection to the cluster, with room for `workers`, while several maps run."""
        ray, started = self._connect(workers)
        try:
            yield
        finally:
            if started:
                ray.shutdown()

    def _connect(self, workers: int) -> tuple[Any, bool]:
        """Connects to a cluster. Returns the module `ray`, and whether to shut it down later."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            problem = "not installed: pip install 'pinxit[ray]'"
            raise UsageError("engine", "ray", problem=problem) from error
        if ray.is_initialized():
            return ray, False
        if self.address is None:
            cpus = max(workers * float(self.options["num_cpus"]), os.cpu_count() or 1)
            paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            ray.init(
                num_cpus=int(cpus),
                include_dashboard=False,
                log_to_driver=False,
                runtime_env={"env_vars": paths},
            )
        else:
            ray.init(address=self.address, log_to_driver=False)
        return ray, True


def _received(
    ray: Any, ready: Any, worker: Any, assignment: Assignment[Any]
) -> Generator[UnitResult, None, None]:
    """Receives a message of a worker, or that it died, and yields the results of that."""
    try:
        number, result = ray.get(ready)
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines()  # the cause comes last
        reason = f"the worker died ({lines[-1] if lines else error!r})"
        yield from assignment.lost(worker, reason, trace=str(error))
        return
    if result is None:
        assignment.drained(worker, number)
    else:
        assignment.finished(worker, number)
        yield result
