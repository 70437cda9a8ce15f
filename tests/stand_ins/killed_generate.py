"""`pinxit generate` in a process of its own, which a test kills while it draws."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from pinxit.picture_files import read_recipe

PROMPTS = ("a small red house under a full moon", "a blue tent on a beach")


def start(out: Path, *, n: int) -> subprocess.Popen[bytes]:
    """Starts the command that draws `n` pictures for each prompt into `out`."""
    words = ["generate", *PROMPTS, "--n", str(n), "--steps", "2", "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pinxit", *words], env=environment, stdout=log, stderr=log
        )


def pictures(out: Path) -> dict[str, bytes]:
    """Returns the pictures by name, each of which opens and carries its recipe."""
    whole = {}
    for path in sorted(out.glob("*.png")):
        with Image.open(path) as image:
            image.verify()
        assert read_recipe(path)["prompt"] in PROMPTS
        whole[path.name] = path.read_bytes()
    return whole


def await_pictures(out: Path, process: subprocess.Popen[bytes], *, count: int) -> None:
    """Waits until `count` pictures are there, or the process has ended."""
    while process.poll() is None and sum(1 for _ in out.glob("*.png")) < count:
        time.sleep(0.005)
