"""A disk that is full or read-only at each kind of write: one line, nothing lost, and it goes on.

During the run: rows of metrics, TensorBoard's events, sample grids and checkpoints. Before: the
cache of encoded rows and the settings. After: the last checkpoint, the release and the report.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import full_disk
import pytest
from drill_table import record
from small_run import arrays_of, rows_without_times, same_arrays, small_run, train_here

from pinxit.config import to_json
from pinxit.train.settings import TrainConfig

ROOT = Path(__file__).parents[2]
CASES = {
    "rows, events, grids and checkpoints": ("3", "9", 0),
    "the cache of encoded rows": ("cache", "", 0),
    "the settings": ("start", "", 1),
    "the last checkpoint, room again after 3 s": ("11", "+3", 0),
    "the last checkpoint and the report": ("11", "", 1),
}
"""When the fault begins and ends, and the exit code, by what cannot be written."""


@pytest.fixture(scope="module")
def whole(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the undisturbed run."""
    result, output = train_here(small_run(bundle, tmp_path_factory.mktemp("whole")))
    assert result.status == "finished", output
    return result.folder


def train_on(config: TrainConfig, kind: str, begin: str, end: str, folder: Path) -> tuple[int, str]:
    """Trains in another process. Returns the exit code and the output."""
    path = folder / "config.json"
    path.write_text(json.dumps(to_json(config)))
    process = subprocess.run(
        [sys.executable, full_disk.__file__, str(path), kind, begin, end],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return process.returncode, process.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "read-only"])
@pytest.mark.parametrize("what", CASES)
def test_a_disk_fails(what: str, kind: str, whole: Path, bundle: Path, tmp_path: Path):
    begin, end, expected = CASES[what]
    (tmp_path / "runs").mkdir()
    config = small_run(bundle, tmp_path / "runs")
    folder = tmp_path / "runs" / config.name
    code, output = train_on(config, kind, begin, end, tmp_path)
    assert code == expected and "Traceback" not in output, output
    lines = output.splitlines()
    causes = [line for line in lines if "File too large" in line or "Read-only file" in line]
    # a line for each of metrics, TensorBoard, grid, report and starts; the checkpoint has two
    assert 1 <= len(causes) <= 7 and len({*causes}) == len(causes), output
    if expected:
        result, output = train_here(config)
        assert result.status == "finished", output
    assert same_arrays(arrays_of(folder, 12), arrays_of(whole, 12))
    assert rows_without_times(folder) == rows_without_times(whole)
    assert (folder / "results.json").is_file() and (folder / "report.html").is_file()
    evidence = f"exit code {code}, {len(causes)} lines, all rows, arrays equal"
    record("disk", f"{kind}: {what}", 1, 1, evidence + (" after a resume" if expected else ""))
