"""Metrics and sample grids on wandb.ai."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pinxit.train.metric_writers.tracker_id import display_name, tracker_id
from pinxit.train.metric_writers.writer import RecordedRun, scalars

WANDB_FILE = "wandb.json"
"""The file in a run's folder with its id on wandb.ai."""
WANDB_NAME = 128
"""Number of characters that the display name of a run on wandb.ai may have."""


class WeightsAndBiases:
    """Sends metrics and sample grids to a run on wandb.ai (requires the extra wandb)."""

    def __init__(self, run: RecordedRun) -> None:
        """Starts the run on wandb.ai, or continues it."""
        import wandb  # pyrefly: ignore[missing-import]

        self._wandb = wandb
        self._run = wandb.init(
            project="pinxit",
            id=tracker_id(run.folder / WANDB_FILE),
            name=display_name(run.name, limit=WANDB_NAME),
            dir=str(run.folder.absolute()),
            config=dict(run.config),
            resume="allow",
        )

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Logs one point to each curve."""
        self._run.log(scalars(values), step=step)

    def picture(self, step: int, path: Path) -> None:
        """Logs the picture under "samples"."""
        picture = self._wandb.Image(str(path), caption=f"step {step}")
        self._run.log({"samples": picture}, step=step)

    def close(self) -> None:
        """Sends what is left and ends the recording."""
        self._run.finish()
