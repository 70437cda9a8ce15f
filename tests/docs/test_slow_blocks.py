"""Commands that train for long are really run, each block in a fresh copy of the repository."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_blocks import ROOT, Block, read_blocks

MOST = 1800.0
"""Seconds after which a command is stopped; training must then end with exit code 0."""
MOST_OF_HOURS = 300.0
"""The same for the commands of a block that takes hours, by its tag."""
SHORT = "pinxit train --max_steps 500 --dataset_size 2000"
"""How such a block trains, unless it names its steps: later lines need a run that is finished."""
IGNORED = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache")
WRITTEN = ("runs", "outputs")
"""Folders of the repository that commands write to. The package has folders of these names too."""


def ignored(folder: str, names: list[str]) -> set[str]:
    """The names in a folder that a fresh copy does not have."""
    return IGNORED(folder, names) | (set(WRITTEN) if Path(folder) == ROOT else set())


SLOW = [pytest.param(b, id=b.name) for b in read_blocks() if b.kind == "slow"]


def run_line(
    line: str, folder: Path, environment: dict[str, str], most: float
) -> tuple[int, bool, str]:
    """Exit code of a line in bash, whether it was stopped after `most` seconds, and the end of
    what it printed."""
    log = folder / "output.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["bash", "-c", line],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code, stopped = process.wait(most), False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            code, stopped = process.wait(300), True
    return code, stopped, log.read_text()[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("block", SLOW)
def test_the_block_runs(block: Block, tmp_path: Path):
    """Every line ends with 0; one that does not train may be stopped while it works."""
    folder = tmp_path / "repository"
    shutil.copytree(ROOT, folder, ignore=ignored)
    environment = os.environ | {"PYTHONPATH": str(folder)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment.pop("PINXIT_NO_REEXEC", None)  # a user's process starts over, tuned
    lines = block.text.splitlines()
    if block.language == "python":
        (folder / "block.py").write_text(block.text)
        lines = ["python block.py"]
    if "venv" not in block.text:  # these tests' own environment stays as it is
        lines = [line.replace("pip install ", "pip install --dry-run ") for line in lines]
    if "runs/scenes" in block.text and "pinxit train" not in block.text:
        lines.insert(0, "pinxit train --max_steps 20")  # an earlier block of the page trains it
    hours = "hour" in (block.reason or "")
    if hours:
        lines = [x if "--max_steps" in x else x.replace("pinxit train", SHORT) for x in lines]
    for line in lines:
        most = MOST_OF_HOURS if hours and SHORT not in line else MOST
        code, stopped, said = run_line(line, folder, environment, most)
        trains = "pinxit train" in line or "train_text_to_image.py" in line
        assert code == 0 or (stopped and not trains), f"{line}\n{said}"
    reports = list(folder.glob("runs/*/report.html"))
    assert reports or "pinxit train" not in block.text
