"""Writers of metrics: JSON lines, TensorBoard and W&B. A writer has ``write(step, values)``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pinxit.config import UsageError, to_json
from pinxit.files import whole
from pinxit.train.metric_rows import read_rows
from pinxit.train.run_folder import RunFolder
from pinxit.train.settings import TrainConfig


def check_wandb(enabled: bool) -> None:
    """Raises `UsageError` if Weights & Biases is enabled but not installed."""
    if enabled and find_spec("wandb") is None:
        valid = "0, or 1 after: pip install 'pinxit[wandb]'"
        raise UsageError("wandb", True, problem="not possible: wandb is not installed", valid=valid)


@runtime_checkable
class Writer(Protocol):
    """A destination for metrics."""

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Records the metrics after `step`. Values are numbers, or lists of numbers."""
        ...


class JsonLines:
    """Writes each row as one line of JSON, to the disk immediately."""

    def __init__(self, path: Path, *, resume_at: int = 0) -> None:
        """Removes the rows after step `resume_at`, because the resumed run writes them again."""
        self.path = path
        rows = [row for row in read_rows(path) if row["step"] <= resume_at]
        with whole(path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends a row."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def _scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers by name. A list yields one number per entry."""
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Sequence) and not isinstance(value, str):
            entries = {f"{name}/{i}": entry for i, entry in enumerate(value)}
        else:
            entries = {name: value}
        flat |= {k: float(v) for k, v in entries.items() if isinstance(v, int | float)}
    return flat


class TensorBoard:
    """Writes event files for TensorBoard."""

    def __init__(self, folder: Path, *, resume_at: int = 0) -> None:
        from tensorboardX import SummaryWriter

        purge = resume_at + 1 if resume_at else None
        self._writer = SummaryWriter(str(folder), purge_step=purge, flush_secs=20)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds one point to each curve."""
        for name, value in _scalars(values).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


class WeightsAndBiases:
    """Sends metrics to a run on wandb.ai (requires the extra wandb)."""

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        import wandb  # pyrefly: ignore[missing-import]

        self._run = wandb.init(
            project="pinxit", id=name, name=name, dir=folder, config=dict(config), resume="allow"
        )

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Logs one point to each curve."""
        self._run.log(_scalars(values), step=step)


def open_writers(folder: RunFolder, config: TrainConfig, *, resume_at: int) -> list[Writer]:
    """Opens the writers of a run, which continues from step `resume_at`."""
    writers: list[Writer] = [
        JsonLines(folder.metrics, resume_at=resume_at),
        TensorBoard(folder.root, resume_at=resume_at),
    ]
    if config.wandb:
        writers.append(WeightsAndBiases(config.name, folder.root, to_json(config)))
    return writers
