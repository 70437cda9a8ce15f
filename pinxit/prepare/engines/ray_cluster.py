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
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from pinxit import extensions
from pinxit.config import UsageError
from pinxit.open_files import raise_limit
from pinxit.prepare.engines.base import DIED, UnitResult, attempt, close


class _Actor:
    """A worker, which runs in a process that Ray started."""

    def __init__(self, fn: bytes, paths: str) -> None:
        os.environ[extensions.VARIABLE] = paths
        extensions.load()
        raise_limit()  # Ray's workers do not inherit the limit of this command
        self.fn = pickle.loads(fn)

    def run(self, unit: Any) -> UnitResult:
        """Runs one unit."""
        return attempt(self.fn, unit)

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
        self, fn: Callable[[Any], Any], units: Sequence[Any], *, workers: int = 1
    ) -> Generator[UnitResult, None, None]:
        """Implements `Engine.map`."""
        ray, started = self._connect(workers)
        actor = ray.remote(_Actor).options(**self.options)
        function = ray.put(ray.cloudpickle.dumps(fn))
        paths = os.environ.get(extensions.VARIABLE, "")
        waiting = deque((unit, 1) for unit in units)
        busy: dict[Any, tuple[Any, Any, int]] = {}
        idle: list[Any] = []
        try:
            while waiting or busy:
                while waiting and len(busy) < workers:
                    unit, count = waiting.popleft()
                    worker = idle.pop() if idle else actor.remote(function, paths)
                    busy[worker.run.remote(unit)] = worker, unit, count
                for ready in ray.wait(list(busy), num_returns=1)[0]:
                    worker, unit, count = busy.pop(ready)
                    try:
                        result = ray.get(ready)
                        idle.append(worker)
                    except ray.exceptions.RayError as error:
                        if count < self.attempts:
                            waiting.append((unit, count + 1))
                            continue
                        lines = str(error).strip().splitlines()  # the cause comes last
                        reason = f"the worker died ({lines[-1] if lines else error!r})"
                        result = UnitResult(unit, kind=DIED, reason=reason, trace=str(error))
                    yield result
            ray.get([worker.close.remote() for worker in idle])
        finally:
            for worker in [*idle, *(worker for worker, _, _ in busy.values())]:
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
