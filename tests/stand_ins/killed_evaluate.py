"""`pinxit evaluate` in a process of its own, which a test kills while it draws."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

PROMPTS = 640


def start(out: Path, cache: Path) -> subprocess.Popen[bytes]:
    """Starts the command that measures the shipped model, with one step for each picture."""
    words = ["evaluate", "--prompts", str(PROMPTS), "--images", "0", "--steps", "1"]
    words += ["--evaluators", "prompt_accuracy", "--out", str(out)]
    paths = {"PYTHONPATH": str(Path(__file__).parents[2]), "PINXIT_FEATURES": str(cache)}
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pinxit", *words], env=os.environ | paths, stdout=log, stderr=log
        )


def pieces(out: Path) -> list[str]:
    """Returns the names of the pieces of features that an unfinished evaluation has stored."""
    folder = out.with_name(f"{out.name}.partial")
    return sorted(path.name for path in folder.glob("*/rows-*.npy"))


def await_pieces(out: Path, process: subprocess.Popen[bytes], *, count: int) -> None:
    """Waits until `count` pieces are there, or the process has ended."""
    while process.poll() is None and len(pieces(out)) < count:
        time.sleep(0.005)
