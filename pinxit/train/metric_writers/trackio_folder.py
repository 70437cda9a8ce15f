"""Metrics and sample grids for Trackio, which keeps them in a folder of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pinxit.train.metric_writers.tracker_id import display_name, tracker_id
from pinxit.train.metric_writers.writer import RecordedRun, scalars

TRACKIO_FILE = "trackio.json"
"""The file in a run's folder with its id at Trackio."""
TRACKIO_NAME = 100
"""Number of characters of the run's own name in its name at Trackio."""
REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Trackio's variables that send metrics to a Space or a server. Without them, all stays here."""


class Trackio:
    """Records metrics and sample grids with Trackio (requires the extra trackio). `trackio show`
    displays them."""

    def __init__(self, run: RecordedRun) -> None:
        """Starts the run at Trackio, or continues it.

        Trackio finds a run by its name, so the name contains the run's id.
        """
        import trackio  # pyrefly: ignore[missing-import]

        self._trackio = trackio
        name = display_name(run.name, limit=TRACKIO_NAME)
        with _without_lookups():
            self._run = trackio.init(
                project="pinxit",
                name=f"{name}-{tracker_id(run.folder / TRACKIO_FILE)}",
                config=dict(run.config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self._first = getattr(self._run, "_next_step", 0)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Logs one point to each curve, unless an earlier start of the run has logged the step."""
        if step >= self._first:
            self._run.log(scalars(values), step=step)

    def picture(self, step: int, path: Path) -> None:
        """Logs the picture under "samples"."""
        if step >= self._first - 1:
            picture = self._trackio.Image(str(path), caption=f"step {step}")
            self._run.log({"samples": picture}, step=step)

    def close(self) -> None:
        """Stores what is left and ends the recording."""
        self._run.finish()


@contextmanager
def _without_lookups() -> Iterator[None]:
    """Keeps Trackio from asking huggingface.co for the name of its user, which it only does to
    label a run, if metrics stay on this machine."""
    from trackio.run import Run  # pyrefly: ignore[missing-import]

    ask = getattr(Run, "_get_username", None)
    if ask is None or any(os.environ.get(name) for name in REMOTE):
        yield
        return
    Run._get_username = lambda run: None
    try:
        yield
    finally:
        Run._get_username = ask
