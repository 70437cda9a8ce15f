"""The protocol of everything that records a run's metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Writer(Protocol):
    """A destination for metrics. A thread uses it (see `BackgroundWriter`)."""

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Records the metrics after `step`. Values are numbers, or lists of numbers. Raises OSError
        if the same call may succeed later."""
        ...

    def picture(self, step: int, path: Path) -> None:
        """Records the sample grid of a step, which is a file."""
        ...

    def close(self) -> None:
        """Ends the recording."""
        ...


@dataclass(frozen=True)
class RecordedRun:
    """The facts about a run that a writer may need."""

    name: str
    """Name of the run, which is any text that can name a folder."""
    folder: Path
    """Folder of the run, which exists once the writer is opened."""
    config: Mapping[str, Any]
    """Settings of the run, as plain JSON values."""
    resume_at: int = 0
    """Number of steps after which the run goes on. Rows of later steps are written again."""


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers by name. A list yields one number per entry."""
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Sequence) and not isinstance(value, str):
            entries = {f"{name}/{i}": entry for i, entry in enumerate(value)}
        else:
            entries = {name: value}
        flat |= {k: float(v) for k, v in entries.items() if isinstance(v, int | float)}
    return flat
