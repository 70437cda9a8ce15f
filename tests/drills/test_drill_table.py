"""The table of drills keeps the last row of each fault, and is valid Markdown."""

from __future__ import annotations

from pathlib import Path

import pytest
from drill_table import VARIABLE, as_markdown, record, rows_of


def test_rows_are_appended_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "table.jsonl"
    monkeypatch.setenv(VARIABLE, str(path))
    record("signals", "SIGTERM while saving", 1, 0, "exit code 1")
    record("disk", "full", 2, 2, "both resumed")
    record("signals", "SIGTERM while saving", 1, 1, "exit code 0 after 2.1 s")
    rows = rows_of(path)
    assert [(row.drill, row.survived) for row in rows] == [("disk", 2), ("signals", 1)]
    lines = as_markdown(rows).splitlines()
    assert {line.count("|") for line in lines} == {6} and "2.1 s" in lines[-1]


def test_without_a_table_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    record("disk", "full", 1, 1, "none")
    assert rows_of(tmp_path / "table.jsonl") == []
