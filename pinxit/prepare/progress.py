"""How far a stage of a preparation is, and the function that is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pinxit.prepare.engines.base import UnitResult


@dataclass(frozen=True)
class StageProgress:
    """How far a stage is."""

    stage: str
    """A `manifest.Stage`, or another part of a long job."""
    units: int
    """Units that this command sees to."""
    done: int
    """Of them, those that are done."""
    failed: int
    rows: int
    """Rows done since the start of this command."""
    counts: Mapping[str, int]
    """These rows by status."""
    seconds: float
    """Since the start of this command."""
    fresh: int
    """Units done since then."""

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds until the stage is done, at the rate so far; None before the first unit."""
        left = self.units - self.done - self.failed
        return self.seconds / self.fresh * left if self.fresh else None


WatchFn = Callable[[StageProgress, UnitResult | None], None]
"""Told of the state at the start, and of every unit as it ends."""


def no_watch(progress: StageProgress, result: UnitResult | None) -> None:
    """Nobody watches."""
