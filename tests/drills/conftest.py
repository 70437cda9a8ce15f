"""Prints the table of all drills at the end: `python -m pytest -m slow tests/drills`.

The rows are collected in a temporary file, or in the one that PINXIT_DRILL_TABLE names.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from drill_table import VARIABLE, as_markdown, rows_of


def pytest_configure(config: pytest.Config) -> None:
    """Chooses a new file for the table, unless one is named or another process has chosen it."""
    if VARIABLE not in os.environ:
        handle, path = tempfile.mkstemp(prefix="pinxit-drills-", suffix=".jsonl")
        os.close(handle)
        os.environ[VARIABLE] = path
        config.add_cleanup(lambda: (os.environ.pop(VARIABLE, None), os.unlink(path))[0])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table, if any drill ran."""
    if rows := rows_of(Path(os.environ[VARIABLE])):
        terminalreporter.section("drills")
        terminalreporter.write_line(as_markdown(rows))
