"""The figures by step: which checkpoints are measured, and the tables of the page."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import figures_by_step
import pytest

PAGE = figures_by_step.PAGE


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the page, which the script writes."""
    copy = Path(shutil.copy(PAGE, tmp_path))
    monkeypatch.setattr(figures_by_step, "PAGE", copy)
    return copy


def run_with(folder: Path, *steps: int) -> Path:
    """A run that has kept the checkpoints of these steps."""
    for step in steps:
        figures_by_step.checkpoint(folder, step).mkdir(parents=True)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"batch_size": 16}))
    return folder


def test_a_run_that_was_stopped_early_is_measured_as_far_as_it_got(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run, out, drawn = run_with(tmp_path / "run", 500, 700, 1000), tmp_path / "out", []
    out.mkdir()
    for step, mean in ((500, 0.61), (1000, 0.82)):
        values = {"prompts/accuracy/mean": mean, "prompts/ceiling/mean": 0.99}
        (out / f"step_{step}.json").write_text(json.dumps({"values": values}))
    plan = tmp_path / "plan.json"
    hours = {"low": 1.8, "middle": 3.6, "high": 7.2}
    plan.write_text(json.dumps({"time": hours, "batch_size": 256}))
    monkeypatch.setattr(figures_by_step, "draw", lambda run, steps: drawn.append(steps))
    monkeypatch.setattr(sys, "argv", ["figures", str(run), f"--plan={plan}", f"--out={out}"])

    figures_by_step.main()

    assert drawn == [[500, 1000]]
    assert "has no checkpoints of steps 1,500, 3,000, 9,000" in capsys.readouterr().out
    text = page.read_text()
    measured = text.partition("<!-- measured -->")[2].partition("<!-- end measured -->")[0]
    rows = [line.split("|")[1:4] for line in measured.strip().splitlines()[2:]]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["500", "8,000", "0.610"],
        ["1,000", "16,000", "0.820"],
        ["renders", "", "0.990"],
    ]
    assert "| 10,000 | 2.6 M | 10.0 | 5.0 | 20.0 |" in text


def test_a_run_without_these_checkpoints_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run = run_with(tmp_path / "run", 700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["figures_by_step.py", str(run)])
    with pytest.raises(SystemExit):
        figures_by_step.main()
    assert "no checkpoints of steps 500, 1,000" in capsys.readouterr().err
    assert not (tmp_path / "figures_by_step").exists()
