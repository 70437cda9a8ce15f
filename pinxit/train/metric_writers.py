"""Writers of metrics and sample grids: JSON lines, TensorBoard, and Weights & Biases."""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from pinxit.config import UsageError, read_json, to_json
from pinxit.files import append, write_json
from pinxit.train.metric_rows import rows_until, write_rows
from pinxit.train.run_folder import RunFolder
from pinxit.train.settings import TrainConfig

WANDB_FILE = "wandb.json"
"""The file in a run's folder with its id on wandb.ai."""
WANDB_NAME = 128
"""Number of characters that the display name of a run on wandb.ai may have."""


def check_wandb(enabled: bool) -> None:
    """Raises `UsageError` if Weights & Biases is enabled but not installed."""
    if enabled and find_spec("wandb") is None:
        valid = "0, or 1 after: pip install 'pinxit[wandb]'"
        raise UsageError("wandb", True, problem="not possible: wandb is not installed", valid=valid)


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


class JsonLines:
    """Writes each row as one line of JSON, to the disk immediately."""

    def __init__(
        self, path: Path, *, resume_at: int = 0, unwritten: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Removes the rows after step `resume_at`, because the resumed run writes them again. Adds
        the rows `unwritten` of the checkpoint, unless they are there."""
        self.path = path
        write_rows(path, rows_until(path, resume_at, unwritten))

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends a row. If that fails, the file is as it was."""
        append(self.path, json.dumps({"step": step, **values}) + "\n")

    def picture(self, step: int, path: Path) -> None:
        """Does nothing: the grid is a file beside this one."""

    def close(self) -> None:
        """Does nothing: every row is on the disk."""


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
        self._folder = folder
        self._purge = resume_at + 1 if resume_at else None
        self._file: Any = None
        self._number = 0

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds one point to each curve."""
        from tensorboardX.summary import scalar

        self._add(step, [scalar(name, value) for name, value in _scalars(values).items()])

    def picture(self, step: int, path: Path) -> None:
        """Adds the picture under "samples"."""
        from tensorboardX.summary import image

        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self._add(step, [image("samples", pixels, dataformats="HWC")])

    def close(self) -> None:
        """Closes the event file."""
        if self._file is not None:
            self._file.close()

    def _add(self, step: int, summaries: Sequence[Any]) -> None:
        """Writes events. After an error, the next ones go to a new file, because nothing can be
        read after an incomplete event."""
        try:
            if self._file is None:
                self._file = self._opened()
            for summary in summaries:
                self._file.write_event(_event(wall_time=time.time(), step=step, summary=summary))
            self._file.flush()
        except OSError:
            with suppress(OSError):
                self.close()
            self._file = None
            raise

    def _opened(self) -> Any:
        """Opens a new event file, which tells TensorBoard to forget the points that the resumed run
        writes again."""
        from tensorboardX.event_file_writer import EventsWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        self._number += 1
        suffix = f".{os.getpid()}.{self._number}"
        file = EventsWriter(str(self._folder / "events"), suffix)
        if self._purge is not None:
            start = {"status": 1}  # SessionLog.START
            file.write_event(_event(wall_time=time.time(), step=self._purge, session_log=start))
        return file


def _event(**fields: Any) -> Any:
    """Returns an event of TensorBoard, a protocol buffer."""
    from tensorboardX.proto import event_pb2

    return getattr(event_pb2, "Event")(**fields)  # noqa: B009 - protobuf makes it at import


class WeightsAndBiases:
    """Sends metrics and sample grids to a run on wandb.ai (requires the extra wandb)."""

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        """Starts or continues the run whose id is in `folder`. Two runs of one name have two
        ids."""
        import wandb  # pyrefly: ignore[missing-import]

        self._wandb = wandb
        self._run = wandb.init(
            project="pinxit",
            id=wandb_id(folder / WANDB_FILE),
            name="".join(letter for letter in name if letter.isprintable())[:WANDB_NAME],
            dir=str(folder.absolute()),
            config=dict(config),
            resume="allow",
        )

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Logs one point to each curve."""
        self._run.log(_scalars(values), step=step)

    def picture(self, step: int, path: Path) -> None:
        """Logs the picture under "samples"."""
        picture = self._wandb.Image(str(path), caption=f"step {step}")
        self._run.log({"samples": picture}, step=step)

    def close(self) -> None:
        """Sends what is left and ends the recording."""
        self._run.finish()


def wandb_id(path: Path) -> str:
    """Returns the id of this run on wandb.ai. The first call makes one and stores it."""
    stored = read_json(path) if path.is_file() else None
    if isinstance(stored, dict) and re.fullmatch(r"\w{1,64}", str(stored.get("id"))):
        return str(stored["id"])
    new = secrets.token_hex(8)
    write_json(path, {"id": new})
    return new


def writers_of(
    folder: RunFolder,
    config: TrainConfig,
    *,
    resume_at: int,
    unwritten: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Callable[[], Writer]]:
    """Returns functions that open the writers of a run, which continues from step `resume_at`.

    `unwritten` are the rows of its checkpoint (see `BackgroundWriters`).
    """
    openers: dict[str, Callable[[], Writer]] = {
        folder.metrics.name: partial(
            JsonLines, folder.metrics, resume_at=resume_at, unwritten=unwritten
        ),
        "TensorBoard": partial(TensorBoard, folder.root, resume_at=resume_at),
    }
    if config.wandb:
        openers["Weights & Biases"] = partial(
            WeightsAndBiases, config.name, folder.root, to_json(config)
        )
    return openers
