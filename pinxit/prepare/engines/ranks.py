"""The engine ``rank``: each command does a fixed share of the units, on Slurm or a pod's hosts."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Generator, Sequence
from typing import Any

from pinxit.config import UsageError
from pinxit.prepare.engines.base import Engine, UnitResult
from pinxit.prepare.engines.handing_out import runs_of
from pinxit.prepare.engines.local import LocalEngine

SLACK = 0.05
"""The share by which a rank may get more rows than the mean so that a run stays whole."""


class RankEngine:
    """Runs a static share of the units, such that units which share a download stay together."""

    name = "rank"

    def __init__(
        self, rank: int | None = None, world: int | None = None, *, inside: Engine | None = None
    ) -> None:
        """Sets the share and the engine `inside` that does it, by default a `LocalEngine`.

        If `rank` or `world` is None, Slurm's variable ``SLURM_PROCID`` or ``SLURM_NTASKS`` is used.
        """
        self.rank = _from_slurm("rank", rank, "SLURM_PROCID")
        self.world = _from_slurm("world", world, "SLURM_NTASKS")
        if not 0 <= self.rank < self.world:
            raise UsageError(
                "rank", self.rank, problem="impossible", valid=f"0 to {self.world - 1}"
            )
        self._engine = inside or LocalEngine()

    def share(self, units: Sequence[Any]) -> list[Any]:
        """Returns the units of this rank, in order: whole runs of units of one group.

        Without groups, these are the units whose index modulo `world` is `rank`.
        """
        runs = runs_of(units)
        if len(runs) == len(units):
            return list(units[self.rank :: self.world])
        return shares_of_runs(runs, self.world)[self.rank]

    def map(
        self, fn: Callable[[Any], Any], units: Sequence[Any], *, workers: int = 1
    ) -> Generator[UnitResult, None, None]:
        """Runs `units`, which must be this rank's `share`, on the engine inside."""
        return self._engine.map(fn, units, workers=workers)


def shares_of_runs(runs: Sequence[Sequence[Any]], world: int) -> list[list[Any]]:
    """Returns the units of each rank: the runs are dealt in order, each to the rank that has the
    fewest rows.

    A run is cut if the rank would get more than the mean and `SLACK`. That happens to the last
    runs only, so that a larger `--limit` leaves most units with their ranks. Units whose rows are
    not known count as the others do on average.
    """
    known = [unit.rows for run in runs for unit in run if getattr(unit, "rows", None)]
    usual = sum(known) / len(known) if known else 1.0
    rows = [[getattr(unit, "rows", None) or usual for unit in run] for run in runs]
    mean = sum(map(sum, rows)) / world
    shares: list[list[Any]] = [[] for _ in range(world)]
    loads = [(0.0, rank) for rank in range(world)]
    for run, sizes in zip(runs, rows, strict=True):
        first = 0
        while first < len(run):
            load, rank = heapq.heappop(loads)
            stop = _cut(sizes, first, room=(1 + SLACK) * mean - load)
            shares[rank] += run[first:stop]
            heapq.heappush(loads, (load + sum(sizes[first:stop]), rank))
            first = stop
    return shares


def _cut(sizes: Sequence[float], first: int, *, room: float) -> int:
    """Returns where to cut a run that begins at `first`: after its first unit, or as many as about
    fit, to half a unit."""
    stop, total = first, 0.0
    while stop < len(sizes) and (stop == first or total + sizes[stop] / 2 <= room):
        total += sizes[stop]
        stop += 1
    return stop


def _from_slurm(name: str, value: int | None, variable: str) -> int:
    """Returns `value`, or the number in the environment variable if `value` is None."""
    if value is not None:
        return value
    text = os.environ.get(variable, "")
    if not text.isdigit():
        problem = (
            f"missing, and {variable} is {text!r}"
            if text
            else f"missing, and {variable} is not set"
        )
        raise UsageError(name, value, problem=problem, valid=f"a number from 0: --{name} N")
    return int(text)
