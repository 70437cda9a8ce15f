"""Metrics as lines of JSON: the record of every run, from which its report is made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pinxit.files import append
from pinxit.train.metric_rows import rows_until, write_rows


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
