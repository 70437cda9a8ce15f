"""The engine ``rank``: each command does a fixed share of the units, on Slurm or a pod's hosts."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from typing import Any

from pinxit.config import UsageError
from pinxit.prepare.engines.base import Engine, UnitResult
from pinxit.prepare.engines.local import LocalEngine


class RankEngine:
    """Runs a static share of the units: those whose index modulo `world` is `rank`."""

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
        """Returns every `world`-th unit, starting at `rank`."""
        return list(units[self.rank :: self.world])

    def map(
        self, fn: Callable[[Any], Any], units: Sequence[Any], *, workers: int = 1
    ) -> Generator[UnitResult, None, None]:
        """Runs `units`, which must be this rank's `share`, on the engine inside."""
        return self._engine.map(fn, units, workers=workers)


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
