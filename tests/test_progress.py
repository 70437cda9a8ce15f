"""Progress in words: figures, and what is left on a terminal and in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pinxit import progress
from pinxit.progress import counted, duration, how_far, showing


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (63, "1m03s"), (3 * 3600 + 60, "3h01m"), (90000, "1d01h")],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text


def test_numbers_in_words():
    assert (counted(1, "picture"), counted(16_000, "image")) == ("1 picture", "16,000 images")
    assert how_far(62, 250, unit="batch", seconds=62.0) == "batch 62 of 250, 3m08s left"
    assert how_far(0, 250, unit="batch", seconds=1.0) == "batch 0 of 250"
    assert how_far(250, 250, unit="batch", seconds=9.0) == "batch 250 of 250"


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def watched(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    """What an hour of 3600 batches leaves, a batch a second."""
    clock, out = Clock(), io.StringIO()
    monkeypatch.setattr(progress, "time", clock)
    console = Console(file=out, force_terminal=terminal, width=100)
    with showing(console, "encoding 57,600 images with the VAE") as show:
        for done in range(1, 3601):
            clock.now += 1
            show(done, 3600)
    return out.getvalue()


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch):
    lines = watched(monkeypatch, terminal=False).splitlines()
    job = "encoding 57,600 images with the VAE"
    assert lines[:2] == [job, f"{job}: batch 10 of 3,600, 59m50s left"]
    assert lines[-1] == f"{job}: done in 1h00m"
    assert len(lines) == 361 and not any("\r" in line or "\x1b" in line for line in lines)


def test_a_terminal_gets_a_bar_in_words(monkeypatch: pytest.MonkeyPatch):
    text = watched(monkeypatch, terminal=True)
    assert "encoding 57,600 images with the VAE: batch 3,600 of 3,600" in text
    assert text.splitlines()[-1].endswith("encoding 57,600 images with the VAE: done in 1h00m")
    assert "\x1b" in text


def test_a_short_job_says_its_start_and_its_end(monkeypatch: pytest.MonkeyPatch):
    clock, said = Clock(), []
    monkeypatch.setattr(progress, "time", clock)
    lines = progress.Lines(said.append, "fetching 900 rows", unit="row")
    for done in range(1, 901):
        clock.now += 1 / 128
        lines.show(done, 900)
    lines.end()
    assert said == ["fetching 900 rows", "fetching 900 rows: done in 7s"]
