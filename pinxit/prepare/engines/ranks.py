"""The engine ``rank``: each command does a fixed share of the units (Slurm, the hosts of a pod)."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from typing import Any

from pinxit.config import UsageError
from pinxit.prepare.engines.base import Engine, UnitResult
from pinxit.prepare.engines.local import LocalEngine


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
