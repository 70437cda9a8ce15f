"""The example on one page: short, without the trainer, and it works."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "minimal.py"


def test_it_is_one_page_without_the_trainer():
    text = EXAMPLE.read_text("utf-8")
    assert len(text.splitlines()) < 200
    assert not re.search(r"pinxit\.train|import pinxit\b", text)


def test_two_steps_write_a_grid(tmp_path: Path):
    out = tmp_path / "grid.png"
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--steps", "2", "--out", str(out)],
        capture_output=True,
        text=True,
        cwd=EXAMPLE.parents[1],
    )
    assert done.returncode == 0, done.stderr
    losses = [float(word) for word in re.findall(r"loss (\S+)", done.stdout)]
    assert losses and all(math.isfinite(loss) and 1 < loss < 3 for loss in losses)
    with Image.open(out) as sheet:
        assert sheet.size[0] > 64 and len(sheet.getcolors(1 << 24)) > 1000
