"""Writers in threads: nothing is lost on a full disk, and a dead destination stops nobody."""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pinxit.train import background_writer
from pinxit.train.background_writer import BackgroundWriter, BackgroundWriters
from pinxit.train.metric_rows import read_rows
from pinxit.train.metric_writers.json_lines import JsonLines


class Memory:
    """A writer that fails as it is told to, and records the rest."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.error: Exception | None = None
        self.blocked = threading.Event()
        self.blocked.set()
        self.closed = False

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Records a row."""
        self.blocked.wait()
        if self.error is not None:
            raise self.error
        self.rows.append(step)

    def picture(self, step: int, path: Path) -> None:
        """Records a picture."""
        self.rows.append(-step)

    def close(self) -> None:
        """Notes the end."""
        self.closed = True


@pytest.fixture
def failures() -> list[str]:
    """The failures that were reported."""
    return []


def writer_of(memory: Memory, failures: list[str], **options: Any) -> BackgroundWriter:
    """Returns a background writer whose failures are listed."""
    report = lambda name, error: failures.append(f"{name}: {error}")  # noqa: E731
    return BackgroundWriter("memory", lambda: memory, report, **options)


def test_rows_wait_for_room(failures: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(background_writer, "RETRY_SECONDS", 0.1)
    memory = Memory()
    writer = writer_of(memory, failures)
    memory.error = OSError(errno.ENOSPC, "No space left on device")
    for step in (1, 2, 3):
        writer.write(step, {"loss": 0.5})
    assert not writer.flush(0.3)
    assert writer.unwritten() == [{"step": step, "loss": 0.5} for step in (1, 2, 3)]
    memory.error = None
    assert writer.flush(5.0) and memory.rows == [1, 2, 3] and failures
    writer.picture(3, Path("grid.png"))
    writer.close(5.0)
    assert memory.rows == [1, 2, 3, -3] and memory.closed and writer.unwritten() == []


def test_a_row_that_cannot_be_written_does_not_hold_up_the_others(failures: list[str]):
    memory = Memory()
    writer = writer_of(memory, failures)
    memory.error = TypeError("not a number")
    writer.write(1, {})
    assert writer.flush(5.0) and failures == ["memory: not a number"]
    memory.error = None
    writer.write(2, {})
    assert writer.flush(5.0) and memory.rows == [2]
    writer.close(1.0)


def test_one_that_hangs_is_reported_and_left(failures: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(background_writer, "SILENCE_SECONDS", 0.1)
    memory = Memory()
    memory.blocked.clear()
    writer = writer_of(memory, failures, most=3)
    started = time.monotonic()
    for step in range(5):
        writer.write(step, {})
        time.sleep(0.05)
    writer.close(0.2)
    assert time.monotonic() - started < 3
    assert "memory: no answer for 0.1 seconds" in failures
    assert "memory: more than 3 rows wait for it" in failures
    assert failures[-1] == "memory: 3 rows not written by the end of the run"
    memory.blocked.set()


def test_unwritten_rows_of_a_checkpoint_are_added_once(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "loss": float("nan")} for step in (2, 4, 6, 8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in (rows[0], rows[3])))
    JsonLines(path, resume_at=6, unwritten=rows[:3])
    assert [row["step"] for row in read_rows(path)] == [2, 4, 6]


def test_a_run_without_writers_has_nothing_to_write():
    writers = BackgroundWriters({}, lambda name, error: None)
    writers.write(1, {})
    assert writers.unwritten() == [] and writers.flush(0.0)
    writers.close(0.0)
