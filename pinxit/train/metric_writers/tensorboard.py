"""Metrics and sample grids as event files of TensorBoard, in the run's folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pinxit.train.metric_writers.writer import RecordedRun, scalars


class TensorBoard:
    """Writes event files for TensorBoard."""

    def __init__(self, run: RecordedRun) -> None:
        self._folder = run.folder
        self._purge = run.resume_at + 1 if run.resume_at else None
        self._file: Any = None
        self._number = 0

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds one point to each curve."""
        from tensorboardX.summary import scalar

        self._add(step, [scalar(name, value) for name, value in scalars(values).items()])

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
