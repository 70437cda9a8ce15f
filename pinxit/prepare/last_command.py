"""Stores the last command of a prepared folder, and the units that failed in it.

The commit records say what is done. They do not say which command did it, and units that failed
have no record.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pinxit.files import write_json

NAME = "report/last_command.json"
"""The file in the prepared folder."""


@dataclass(frozen=True)
class LastCommand:
    """The words of a command, and the units that failed in it."""

    words: tuple[str, ...] = ()
    """The command line, beginning with ``pinxit prepare``; empty if it is not known."""
    failed: tuple[tuple[str, str], ...] = ()
    """The id and the reason of each unit that failed."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words after ``pinxit prepare``."""
        return self.words[2:]


def write_last_command(root: Path, words: Sequence[str], failed: Sequence[tuple[str, str]]) -> None:
    """Stores a command and its failures in the prepared folder `root`."""
    write_json(root / NAME, {"command": list(words), "failed": [*map(list, failed)]})


def read_last_command(root: Path) -> LastCommand:
    """Reads what `write_last_command` stored; empty for older folders, which have no such file."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads((root / NAME).read_text("utf-8"))
        failed = tuple((str(unit), str(reason)) for unit, reason in stored["failed"])
        return LastCommand(tuple(map(str, stored["command"])), failed)
    return LastCommand()
