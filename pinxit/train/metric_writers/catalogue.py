"""The trackers that ``--log`` may name, and the writers of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pinxit.config import UsageError
from pinxit.extras import extra_command
from pinxit.train.metric_writers.json_lines import JsonLines
from pinxit.train.metric_writers.tensorboard import TensorBoard
from pinxit.train.metric_writers.trackio_folder import Trackio
from pinxit.train.metric_writers.weights_and_biases import WeightsAndBiases
from pinxit.train.metric_writers.writer import RecordedRun, Writer


@dataclass(frozen=True)
class Tracker:
    """A destination of metrics that `--log` may name."""

    open: Callable[[RecordedRun], Writer]
    """Opens the writer of a run, in the writer's own thread."""
    title: str
    """The tracker's name in warnings."""
    extra: str | None = None
    """The extra of the package, and the module it installs, that the writer imports."""


TRACKERS: dict[str, Tracker] = {
    "tensorboard": Tracker(TensorBoard, "TensorBoard"),
    "wandb": Tracker(WeightsAndBiases, "Weights & Biases", extra="wandb"),
    "trackio": Tracker(Trackio, "Trackio", extra="trackio"),
}
"""The trackers by their names for ``--log``."""
NO_TRACKER = "none"
"""The value of ``--log`` that turns all trackers off."""


def tracker_names(log: str) -> tuple[str, ...]:
    """Returns the names in a value of ``--log``, each once. Raises `UsageError` for others."""
    names = tuple(dict.fromkeys(name.strip() for name in log.split(",") if name.strip()))
    if names == (NO_TRACKER,):
        return ()
    valid = f"{', '.join(TRACKERS)}, separated by commas, or {NO_TRACKER}"
    if not names:
        raise UsageError("log", log, problem="empty", valid=valid)
    if NO_TRACKER in names:
        raise UsageError("log", log, problem="contradictory", valid=valid)
    for name in names:
        if name not in TRACKERS:
            raise UsageError("log", name, valid=valid)
    return names


def check_installed(names: Sequence[str]) -> None:
    """Raises `UsageError` for a tracker whose package is not installed."""
    for name in names:
        extra = TRACKERS[name].extra
        if extra is not None and find_spec(extra) is None:
            problem = f"not possible: {extra} is not installed"
            others = ",".join(other for other in names if other != name) or NO_TRACKER
            valid = f"{others}, or {name} after: {extra_command(extra)}"
            raise UsageError("log", name, problem=problem, valid=valid)


def writers_of(
    run: RecordedRun,
    metrics: Path,
    log: str,
    *,
    unwritten: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Callable[[], Writer]]:
    """Returns functions that open the writers of a run: of its file `metrics`, and of the trackers
    that `log` names.

    `unwritten` are the rows of its checkpoint (see `BackgroundWriters`).
    """
    lines = partial(JsonLines, metrics, resume_at=run.resume_at, unwritten=unwritten)
    openers: dict[str, Callable[[], Writer]] = {metrics.name: lines}
    for name in tracker_names(log):
        tracker = TRACKERS[name]
        openers[tracker.title] = partial(tracker.open, run)
    return openers
