"""The facts about a run that several checks share. Each check adds those that it establishes."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinxit.checkpoint_files import RUN
from pinxit.config import read_json
from pinxit.train.run_folder import RunFolder
from pinxit.train.settings import TrainConfig

RECENT = 120.0
"""Seconds since a file was written within which its run may still be running."""


@dataclass
class RunFacts:
    """The state of a report on one run."""

    folder: RunFolder
    full: bool = False
    """Whether to read every file, whatever its size."""
    config: TrainConfig | None = None
    """The run's settings, or None if they cannot be read."""
    valid: Path | None = None
    """The newest valid checkpoint."""
    damaged: list[str] = field(default_factory=list)
    """Names of checkpoints that cannot be used."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Rows of metrics that have a step."""
    results: dict[str, Any] | None = None
    """The final results, or None if the run is not finished."""
    blocked: str = ""
    """The file at which the same command stops with an error, or ""."""

    @property
    def last_step(self) -> int:
        """The step of the last row of metrics, or 0."""
        return max((row["step"] for row in self.rows), default=0)

    def record(self) -> dict[str, Any]:
        """Returns everything that the newest valid checkpoint stores besides arrays."""
        return {} if self.valid is None else read_json(self.valid / RUN)

    def checkpoint_file(self) -> Path:
        """Returns the file that `record` reads, for messages."""
        return (self.valid or self.folder.checkpoints) / RUN


def age(path: Path) -> float:
    """Returns the seconds since the newest change in a file or folder; infinity if it is gone."""
    try:
        paths = [path, *path.rglob("*")] if path.is_dir() else [path]
        return time.time() - max(one.stat().st_mtime for one in paths)
    except OSError:  # it vanished or was renamed while it was read
        return math.inf


def listing(items: list[str], most: int = 3) -> str:
    """Joins the first items with commas, and counts the others."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return ", ".join([*items[:most], *more])
