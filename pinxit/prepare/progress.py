"""The progress of a stage of a preparation, and the type of the function that observes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pinxit.prepare.engines.base import UnitResult


@dataclass(frozen=True)
class StageProgress:
    """The progress of a stage."""

    stage: str
    """The name of a `manifest.Stage`, or of another part of a long job."""
    units: int
    """Number of units that this command is responsible for."""
    done: int
    """Number of these units that are done."""
    failed: int
    """Number of these units that failed."""
    rows: int
    """Rows done since this command started."""
    counts: Mapping[str, int]
    """The same rows by status."""
    seconds: float
    """Seconds since this command started."""
    fresh: int
    """Units done since this command started."""

    @property
    def rate(self) -> float:
        """The speed in rows per second."""
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def eta(self) -> float | None:
        """The seconds until the stage is done, at the rate so far; None before the first unit."""
        left = self.units - self.done - self.failed
        return self.seconds / self.fresh * left if self.fresh else None


WatchFn = Callable[[StageProgress, UnitResult | None], None]
"""Called at the start with no result, and then with the result of each unit."""


def no_watch(progress: StageProgress, result: UnitResult | None) -> None:
    """Ignores the progress."""
