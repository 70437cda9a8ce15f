"""A run that diverges is rescued by exactly what its message says.

A learning rate that is far too high for float16 makes activations overflow until no step is finite
any more. The words that the message prints are added to the command, as often as the run stops
again. The arrays at the end must equal, bit for bit, those of a run that had these changes from
these steps. The commands and messages are those of docs/training.md.
"""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from drill_table import record
from markdown_blocks import blocks_of
from small_run import arrays_of, same_arrays

from pinxit.cli.train import train_command
from pinxit.train.display import Display

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text("utf-8")
BLOCKS = [block for block in blocks_of(PAGE, "docs/training.md")]
COMMAND, RESCUE = (
    block.text.replace("\\\n", " ").split()[2:]
    for block in BLOCKS
    if block.language == "bash" and "--name diverges" in block.text
)
"""Words behind `pinxit train` of the page's command, and of the same with the words added."""
MOST = 8
"""Number of rescues after which the drill gives up."""


def masked(text: str) -> str:
    """Returns a text with every number replaced, because divergence depends on the processor."""
    return re.sub(r"\d[\d.e-]*", "N", " ".join(text.split()))


def first_words(message: str) -> list[str]:
    """Returns the words of the first line to add, without the description behind them."""
    line = re.search(r"^  (--resume_step .*?)   \(", message, re.MULTILINE)
    assert line is not None, message
    return line[1].split()


def files(folder: Path) -> dict[str, int]:
    """Returns the files of all checkpoints, with their times."""
    paths = (folder / "checkpoints").rglob("*")
    return {str(path): path.stat().st_mtime_ns for path in paths if path.is_file()}


class Trainer:
    """Runs the page's command in a folder, and reads what it prints."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys

    def __call__(self, name: str, *words: str) -> tuple[int, str]:
        """Returns the exit code, and the output from the last message on."""
        where = ["--name", name, "--output_dir", str(self.folder)]
        self.capsys.readouterr()
        code = train_command([*COMMAND, *where, *words])
        output = self.capsys.readouterr().err
        return code, output[max(output.find("stopped at step"), 0) :]

    def replayed(self, changes: list[dict[str, Any]], patch: pytest.MonkeyPatch) -> Path:
        """Returns the folder of a run that had these changes and never diverged: it is stopped by a
        signal at the step of each change, and goes on with it."""
        stops = {change["step"] for change in changes}
        plain = Display.on_step

        def on_step(display: Display, step: int) -> None:
            plain(display, step)
            if step in stops:
                stops.remove(step)
                os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(Display, "on_step", on_step)
        words: list[str] = []
        for change in changes:
            code, output = self("straight", *words)
            assert code == 0 and f"SIGTERM after step {change['step']}" in output, output
            words = ["--change", "1", f"--{change['setting']}", str(change["new"])]
        code, output = self("straight", *words)
        assert code == 0 and "finished" in output, output
        return self.folder / "straight"


@pytest.mark.slow
def test_a_run_driven_to_nan_is_rescued_by_its_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    train, run = Trainer(tmp_path, capsys), tmp_path / "diverges"
    code, message = train("diverges")
    assert code == 1
    assert masked(message) in masked(PAGE), "the page shows this message"
    before = files(run)
    assert train("diverges") == (1, message), "the same command, the same message"
    assert files(run) == before, "nothing was saved while steps were not finite"
    rescues, words = 0, []
    while code != 0:
        assert rescues < MOST, message
        words = first_words(message)
        code, message = train("diverges", *words)
        rescues += 1
    assert masked(" ".join([*COMMAND, *words])) == masked(" ".join(RESCUE))
    changes = json.loads((run / "config.json").read_text())["changes"]
    assert changes and all(c["setting"] == "optimizer.learning_rate" for c in changes)
    last = max(int(path.name[5:]) for path in (run / "checkpoints").glob("step_*"))
    expected = arrays_of(train.replayed(changes, monkeypatch), last)
    equal = same_arrays(arrays_of(run, last), expected)
    listed = ", ".join(f"rate {c['new']:g} from step {c['step']}" for c in changes)
    evidence = f"{len(expected)} arrays bit-equal to a run with {listed}; {rescues} rescues"
    record("rescue", "non-finite steps to the end", 1, int(equal), evidence)
    assert equal, f"{changes} give other arrays"
